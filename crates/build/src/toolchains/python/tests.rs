use super::*;

fn found(versions: &[&str]) -> Vec<Found> {
    versions
        .iter()
        .map(|version| Found {
            version: version.parse().unwrap(),
            prefix: "/usr".into(),
            program: "/usr/bin/python3".into(),
        })
        .collect()
}

#[test]
fn versions_are_asked_for_in_several_ways() {
    let all = found(&["3.9.18", "3.11.2", "3.11.7", "3.12.1"]);
    let best = |want: Option<Want>| {
        best_python(&all, &[want.unwrap()]).map(|found| found.version.to_string())
    };
    let version = |text| best(Want::version(text, ".python-version"));
    assert_eq!(version("3.11").as_deref(), Some("3.11.7"));
    assert_eq!(version(" 3.11.2\n").as_deref(), Some("3.11.2"));
    assert_eq!(version("python-3.12.1").as_deref(), Some("3.12.1"));
    assert_eq!(version("cpython@3.9").as_deref(), Some("3.9.18"));
    assert_eq!(version("3").as_deref(), Some("3.12.1"));
    assert_eq!(version("3.1"), None);
    assert_eq!(version(">=3.10,<3.12").as_deref(), Some("3.11.7"));
    assert_eq!(best(Want::specifiers(">=3.8", "x")).as_deref(), Some("3.12.1"));
    for text in ["pypy3.10", "3.x", "", "3..1", "system", "3.99999999999999999999"] {
        assert!(
            Want::version(text, ".python-version")
                .is_none_or(|want| !want.text.is_empty() && best_python(&all, &[want]).is_none()),
            "{text}"
        );
    }
}

#[test]
fn wishes_add_up() {
    let all = found(&["3.9.18", "3.11.2", "3.12.1"]);
    let wants = [Want::version("3.11", "a").unwrap(), Want::specifiers(">=3.12", "b").unwrap()];
    assert_eq!(best_python(&all, &wants), None);
    assert_eq!(best_python(&all, &[]).unwrap().version.to_string(), "3.12.1");
}

#[test]
fn an_answer_is_taken_only_whole() {
    assert!(understood("3.11.2\nfinal\ncpython\n/usr\n/usr/bin/python3.11").is_some());
    assert!(understood("3.15.0\nbeta\ncpython\n/usr\n/usr/bin/python3.15").is_none());
    assert!(understood("3.11.2\nfinal\npypy\n/usr\n/usr/bin/pypy").is_none());
    assert!(understood("3.11.2\nfinal\ncpython\n/usr").is_none());
    assert!(understood("").is_none());
}
