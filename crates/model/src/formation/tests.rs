use super::*;

#[test]
fn reads_and_prints_itself() {
    let formation: Formation = "worker=1, web=2".parse().unwrap();
    assert_eq!(formation.to_string(), "web=2,worker=1");
    let names: Vec<_> = formation.processes().map(|p| p.to_string()).collect();
    assert_eq!(names, ["web.1", "web.2", "worker.1"]);
}

#[test]
fn refuses_with_the_part_that_is_wrong() {
    let error = |text: &str| text.parse::<Formation>().unwrap_err().to_string();
    assert_eq!(error("web"), "`web` is not `<process type>=<quantity>`, as in `web=2`");
    assert_eq!(error("web=x"), "the quantity in `web=x` is not a number from 0 to 1000");
    assert_eq!(error("web=1001"), "the quantity in `web=1001` is not a number from 0 to 1000");
    assert_eq!(error("web=1,web=2"), "process type `web` is given twice");
    assert!(error("release=1").starts_with("`release` is the release phase"));
}
