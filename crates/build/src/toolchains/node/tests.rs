use serde_json::json;

use super::*;

fn fits(text: &str, version: &str) -> bool {
    let want = Want::parse(text, "here").unwrap_or_else(|| panic!("`{text}` is not understood"));
    want.range.satisfies(&Version::parse(version).unwrap())
}

#[test]
fn all_ways_to_ask_for_a_version() {
    for text in [
        "20",
        "v20",
        "20.x",
        "^20.1",
        ">=18",
        "20.20.2",
        "v20.20.2",
        "18 || 20",
        "lts/*",
        "lts/iron",
        "lts/Iron",
        "node",
        "*",
        ">= 18.0.0 < 21",
    ] {
        assert!(fits(text, "20.20.2"), "{text}");
    }
    for text in ["18", "v22", "^20.21", "<20", "20.20.1", "lts/jod"] {
        assert!(!fits(text, "20.20.2"), "{text}");
    }
    assert!(!fits("lts/*", "21.1.0"));
    for text in ["lts/nonsense", "twenty", "system"] {
        assert!(Want::parse(text, "here").is_none(), "{text}");
    }
}

#[test]
fn a_long_term_version_is_preferred_and_wishes_add_up() {
    let published = |versions: &[&str]| -> Vec<_> {
        versions
            .iter()
            .filter_map(|version| {
                Published::of(&json!({"version": version, "dist": {"tarball": "x"}}))
            })
            .collect()
    };
    let all = || published(&["18.20.1", "20.1.0", "20.11.0", "21.9.0", "22.3.0-rc.1"]);
    let best = |texts: &[&str]| {
        let wants: Vec<_> = texts.iter().map(|text| Want::parse(text, "here").unwrap()).collect();
        best_published(&all(), &wants).map(|found| found.version.to_string())
    };
    assert_eq!(best(&[]).as_deref(), Some("20.11.0"));
    assert_eq!(best(&[">=18"]).as_deref(), Some("20.11.0"));
    assert_eq!(best(&[">20.11"]).as_deref(), Some("21.9.0"));
    assert_eq!(best(&[">=18", "18"]).as_deref(), Some("18.20.1"));
    assert_eq!(best(&["18", "20"]), None);
}

#[test]
fn npm_is_the_one_of_the_line() {
    let npm = |node: &str| npm_of(&Version::parse(node).unwrap());
    assert_eq!(npm("14.21.3"), "6.14.18");
    assert_eq!(npm("16.20.2"), "8.19.4");
    assert_eq!((npm("18.12.0"), npm("18.20.8")), ("9.9.4", "10.9.9"));
    assert_eq!((npm("20.20.2"), npm("22.23.3")), ("10.9.9", "10.9.9"));
    assert_eq!((npm("24.21.0"), npm("26.12.1")), ("11.21.2", "11.21.2"));
    let pinned = |node: &str, range: &str| {
        let range = Range::parse(range).unwrap();
        pinned_npm(&Version::parse(node).unwrap(), &range).map(|range| range.to_string())
    };
    assert_eq!(pinned("20.20.2", ">=8").as_deref(), Some("10.9.9"));
    assert_eq!(pinned("24.1.0", "<11").as_deref(), Some("10.9.9"));
    assert_eq!(pinned("20.20.2", "^11").as_deref(), Some("11.21.2"));
    // Never a newer one than is asked for, and never one because it is the newest.
    assert_eq!(pinned("26.1.0", ">=12"), None);
}

#[test]
fn a_missing_library_is_named_with_its_package() {
    let line = "node: error while loading shared libraries: libatomic.so.1: cannot open shared \
                object file: No such file or directory";
    let step = |last: &str| Error::Step {
        command: "node --version".to_owned(),
        how: "failed".to_owned(),
        last: vec![last.to_owned()],
        help: None,
    };
    let why = Unfit::of(&step(line));
    assert_eq!(why.text, "it needs the library `libatomic.so.1`");
    assert!(why.help().contains("apt-get install libatomic1"), "{}", why.help());
    assert_eq!(Unfit::of(&step("illegal instruction")).text, "illegal instruction");
}
