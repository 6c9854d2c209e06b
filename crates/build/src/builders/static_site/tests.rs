use super::super::tests::Machine;
use crate::toolchains::Layout;
use tolv_model::name::ProcessType;

fn served(files: &[(&str, &str)]) -> String {
    Machine::new(files).plan().unwrap().process_types[&ProcessType::web()].clone()
}

#[test]
fn the_declared_folder_is_served() {
    let page = ("public/index.html", "");
    let of = |json| served(&[("static.json", json), page]);
    assert_eq!(of(r#"{"root": "public"}"#), "/toolchain/tolv static-server public");
    assert_eq!(of(r#"{"root": "./public/"}"#), "/toolchain/tolv static-server public");
    assert_eq!(of(r#"{"root": "."}"#), "/toolchain/tolv static-server .");
    assert_eq!(served(&[("index.html", "")]), "/toolchain/tolv static-server .");
    let default = [("static.json", "{}"), ("public_html/index.html", "")];
    assert_eq!(served(&default), "/toolchain/tolv static-server public_html");
}

#[test]
fn the_server_is_mounted_where_there_are_mounts() {
    let machine = Machine::new(&[("index.html", "")]);
    let plan = machine.plan().unwrap();
    assert!(plan.toolchains[0].at_run);
    assert_eq!(plan.toolchains[0].source.to_str(), Some("/opt/tolv"));
    assert_eq!(plan.toolchains[0].target.to_str(), Some("/toolchain/tolv"));
    let layout =
        Layout { app: "/home/b/app".into(), layers: "/home/l".into(), cache: "/home/c".into() };
    let plan = machine.plan_in(layout).unwrap();
    assert_eq!(plan.process_types[&ProcessType::web()], "/opt/tolv static-server .");
}

#[test]
fn unknown_keys_are_named() {
    let json = r#"{"root": ".", "https_only": true, "routes": {}}"#;
    let plan = Machine::new(&[("static.json", json)]).plan().unwrap();
    assert_eq!(
        plan.warnings,
        [
            "`static.json`: the key `https_only` is not used",
            "`static.json`: the key `routes` is not used"
        ]
    );
}

#[test]
fn what_is_no_folder_of_the_codebase_is_refused() {
    let problem = |json: &str| Machine::new(&[("static.json", json), ("a b/x", "")]).refusal().0;
    for json in ["{", "[]", r#"{"root": 3}"#] {
        assert!(problem(json).starts_with("static: "), "{json}");
    }
    for root in ["/etc", "../x", "a//b", "-x", "a b", "$(x)", "a;b", "public\\n"] {
        let json = format!(r#"{{"root": "{root}"}}"#);
        let problem = problem(&json);
        assert!(problem.starts_with("static: `root` in `static.json` is `"), "{root}: {problem}");
    }
    insta::assert_snapshot!(problem(r#"{"root": "public"}"#), @"static: `static.json` serves `public`, which is no folder");
}
