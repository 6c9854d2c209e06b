use proptest::prelude::*;

use super::*;

#[test]
fn a_bad_name_says_what_is_wrong() {
    let error = |name: &str| name.parse::<AppName>().unwrap_err().to_string();
    assert_eq!(error(""), "app name is empty");
    assert_eq!(
        error("a/b"),
        "app name `a/b` has '/'; allowed are a-z, 0-9 and `-`, a letter first"
    );
    assert_eq!(error("1a"), "app name `1a` has '1'; allowed are a-z, 0-9 and `-`, a letter first");
    assert!(error(&"a".repeat(300)).ends_with("is longer than 30 characters"));
}

#[test]
fn a_process_name_reads_back() {
    assert_eq!("web.2".parse::<ProcessName>().unwrap().to_string(), "web.2");
    assert!("my.web.2".parse::<ProcessName>().is_err());
    assert!("web.0".parse::<ProcessName>().is_err());
    assert!("web".parse::<ProcessName>().is_err());
}

proptest! {
    #[test]
    fn any_text_becomes_a_valid_app_name(text in any::<String>()) {
        let name = AppName::from_text(&text);
        prop_assert_eq!(name.as_str().parse::<AppName>().unwrap(), name);
    }
}
