use super::*;

/// The newest of these that fulfils all wishes.
fn best(all: &[&str], wants: &[Want]) -> Option<String> {
    let all = all.iter().filter_map(|version| version.parse::<Version>().ok());
    let fits = |one: &Version| wants.iter().all(|want| want.versions.contains(one));
    all.filter(fits).max().map(|version| version.to_string())
}

#[test]
fn versions_are_asked_for_in_several_ways() {
    let all = ["3.9.18", "3.11.2", "3.11.7", "3.12.1"];
    let best = |want: Option<Want>| best(&all, &[want.unwrap()]);
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
                .is_none_or(|want| !want.text.is_empty() && best(Some(want)).is_none()),
            "{text}"
        );
    }
}

#[test]
fn wishes_add_up() {
    let all = ["3.9.18", "3.11.2", "3.12.1"];
    let wants = [Want::version("3.11", "a").unwrap(), Want::specifiers(">=3.12", "b").unwrap()];
    assert_eq!(best(&all, &wants), None);
    assert_eq!(best(&all, &[]).unwrap(), "3.12.1");
}

#[test]
fn a_copy_has_its_own_path_in_its_settings() {
    let own = |text, prefix| with_path(text, prefix, "python3.11", "/toolchains/python-3.11.2");
    assert_eq!(
        own("'/usr/include/python3.11:/usr/lib:/usr/lib/python3.11/config'", "/usr"),
        "'/toolchains/python-3.11.2/include/python3.11:/usr/lib:\
         /toolchains/python-3.11.2/lib/python3.11/config'"
    );
    assert_eq!(own("'/root/.pyenv/x/lib'", "/root/.pyenv/x"), "'/toolchains/python-3.11.2/lib'");
}

#[test]
fn an_answer_is_taken_only_whole() {
    assert!(understood("3.11.2\nfinal\ncpython\n/usr\n/usr/bin/python3.11\n/usr/lib/x").is_some());
    assert!(understood("3.15.0\nbeta\ncpython\n/usr\n/usr/bin/python3.15\n/usr/lib/x").is_none());
    assert!(understood("3.11.2\nfinal\npypy\n/usr\n/usr/bin/pypy\n/usr/lib/x").is_none());
    assert!(understood("3.11.2\nfinal\ncpython\n/usr").is_none());
    assert!(understood("").is_none());
}
