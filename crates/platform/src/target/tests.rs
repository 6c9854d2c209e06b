use super::*;

fn types(names: &[&str]) -> BTreeMap<ProcessType, String> {
    names.iter().map(|name| (name.parse().unwrap(), "run".to_owned())).collect()
}

fn show(declared: &str, asked: &str, stopped: bool) -> String {
    show_first(First::Each, declared, asked, stopped)
}

fn show_first(first: First, declared: &str, asked: &str, stopped: bool) -> String {
    let read = |text: &str| match text {
        "" => Formation::default(),
        text => text.parse().unwrap(),
    };
    let types = types(&["web", "worker", "release"]);
    formation(&types, first, &read(declared), &read(asked), stopped).to_string()
}

#[test]
fn the_operator_wins_over_app_json_and_app_json_over_one_each() {
    assert_eq!(show("", "", false), "web=1,worker=1");
    assert_eq!(show("worker=3", "", false), "web=1,worker=3");
    assert_eq!(show("worker=3", "worker=0", false), "web=1,worker=0");
}

#[test]
fn on_a_platform_web_alone_runs_until_somebody_says_otherwise() {
    let show = |declared, asked| show_first(First::Web, declared, asked, false);
    assert_eq!(show("", ""), "web=1,worker=0");
    assert_eq!(show("worker=3", ""), "web=1,worker=3");
    assert_eq!(show("", "worker=1"), "web=1,worker=1");
    assert_eq!(show("web=0", ""), "web=0,worker=0");
}

#[test]
fn types_that_the_release_has_not_do_not_run() {
    assert_eq!(show("clock=1", "clock=2,web=2", false), "web=2,worker=1");
}

#[test]
fn nothing_of_a_stopped_deploy_runs() {
    assert_eq!(show("worker=3", "web=2", true), "web=0,worker=0");
}
