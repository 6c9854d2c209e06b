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

#[test]
fn a_schedule_is_named_after_its_command() {
    let name = |command: &str| ScheduleName::from_command(command).to_string();
    assert_eq!(name("python manage.py clearsessions"), "python-manage-py-clearsessions");
    assert_eq!(name("./bin/Tidy --all 7d"), "bin-tidy-all-7d");
    assert_eq!(name("\"$X\" > /dev/null"), "x-dev-null");
    assert_eq!(name("42"), "job");
    let long = ScheduleName::from_command(&"a".repeat(99));
    assert_eq!(long.numbered(12).to_string(), format!("{}-12", "a".repeat(37)));
}

proptest! {
    #[test]
    fn any_command_makes_a_name_of_a_schedule_and_of_its_process(text in any::<String>()) {
        let name = ScheduleName::from_command(&text);
        prop_assert_eq!(&name.as_str().parse::<ScheduleName>().unwrap(), &name);
        let numbered = name.numbered(u32::MAX);
        prop_assert_eq!(&numbered.as_str().parse::<ScheduleName>().unwrap(), &numbered);
        let kind = ProcessType::scheduled(&name);
        prop_assert_eq!(kind.as_str().parse::<ProcessType>().unwrap(), kind);
    }

    #[test]
    fn any_text_becomes_a_valid_app_name(text in any::<String>()) {
        let name = AppName::from_text(&text);
        prop_assert_eq!(name.as_str().parse::<AppName>().unwrap(), name);
    }
}
