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
        best_node(all(), &wants).map(|found| found.version.to_string())
    };
    assert_eq!(best(&[]).as_deref(), Some("20.11.0"));
    assert_eq!(best(&[">=18"]).as_deref(), Some("20.11.0"));
    assert_eq!(best(&[">20.11"]).as_deref(), Some("21.9.0"));
    assert_eq!(best(&[">=18", "18"]).as_deref(), Some("18.20.1"));
    assert_eq!(best(&["18", "20"]), None);
}
