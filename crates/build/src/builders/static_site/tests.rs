use super::super::tests::Machine;
use crate::toolchains::Layout;
use tolv_model::name::ProcessType;

const CONFIG: &str = " --config static.json";

fn served(files: &[(&str, &str)]) -> String {
    Machine::new(files).plan().unwrap().process_types[&ProcessType::web()].clone()
}

#[test]
fn the_declared_folder_is_served() {
    let page = ("public/index.html", "");
    let of = |json| served(&[("static.json", json), page]);
    assert_eq!(
        of(r#"{"root": "public"}"#),
        format!("/toolchain/tolv static-server public{CONFIG}")
    );
    assert_eq!(
        of(r#"{"root": "./public/"}"#),
        format!("/toolchain/tolv static-server public{CONFIG}")
    );
    assert_eq!(of(r#"{"root": "."}"#), format!("/toolchain/tolv static-server .{CONFIG}"));
    assert_eq!(served(&[("index.html", "")]), "/toolchain/tolv static-server .");
    let default = [("static.json", "{}"), ("public_html/index.html", "")];
    assert_eq!(served(&default), format!("/toolchain/tolv static-server public_html{CONFIG}"));
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
    let json =
        r#"{"root": ".", "https_only": true, "routes": {"/**": "index.html"}, "proxies": {}}"#;
    let plan = Machine::new(&[("static.json", json)]).plan().unwrap();
    assert_eq!(plan.warnings, ["`static.json`: the key `proxies` is not used"]);
    assert!(plan.notes.iter().any(|note| note.contains("https_only")), "{:?}", plan.notes);
}

#[test]
fn what_is_no_folder_of_the_codebase_is_refused() {
    let problem = |json: &str| Machine::new(&[("static.json", json), ("a b/x", "")]).refusal().0;
    for json in ["{", "[]", r#"{"root": 3}"#, r#"{"routes": {"/**": 3}}"#] {
        assert!(problem(json).starts_with("static: `static.json`: "), "{json}");
    }
    for root in ["/etc", "../x", "a//b", "-x", "a b", "$(x)", "a;b", "public\\n"] {
        let json = format!(r#"{{"root": "{root}"}}"#);
        let problem = problem(&json);
        assert!(problem.starts_with("static: `root` in `static.json` is `"), "{root}: {problem}");
    }
    insta::assert_snapshot!(problem(r#"{"root": "public"}"#), @"static: `static.json` serves `public`, which is no folder");
}

#[test]
fn a_folder_that_a_build_makes_is_served() {
    let files = [
        ("package.json", r#"{"scripts": {"build": "vite build", "start": "vite"}}"#),
        ("static.json", r#"{"root": "dist"}"#),
    ];
    let machine = Machine::new(&files);
    machine.program("bin/node", "20.20.2");
    let npm = ("bin/npm", "../package/bin/npm-cli.js");
    machine.kept(("npm", "10.9.9"), &[("package/bin/npm-cli.js", "")], &[npm]);
    let plan = machine.plan().unwrap();
    assert_eq!(plan.builder, "node and static");
    assert!(plan.steps.iter().any(|step| step.heading == "Building"));
    let command = &plan.process_types[&ProcessType::web()];
    assert_eq!(command, &format!("/toolchain/tolv static-server dist{CONFIG}"));
}
