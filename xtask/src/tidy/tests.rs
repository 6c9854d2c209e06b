use serde_json::json;

use super::{docs, edges, examples, sources};

#[test]
fn an_edge_up_the_staircase_is_named() {
    let package = |name: &str, dependency: &str, kind: serde_json::Value| {
        json!({ "packages": [{ "name": name,
            "dependencies": [{ "name": dependency, "kind": kind }] }] })
    };
    let normal = serde_json::Value::Null;
    assert!(edges::judge(&package("tolv-build", "tolv-sandbox", normal.clone())).is_empty());
    assert!(edges::judge(&package("tolv-build", "tolv-testkit", json!("dev"))).is_empty());
    assert!(edges::judge(&package("tolv-build", "serde", normal.clone())).is_empty());
    for (name, dependency) in [
        ("tolv-build", "tolv-router"),
        ("tolv-build", "tolv-testkit"),
        ("tolv-model", "tolv-logs"),
        ("tolv-model", "tokio"),
        ("tolv-surprise", "serde"),
    ] {
        let problems = edges::judge(&package(name, dependency, normal.clone()));
        assert_eq!(problems.len(), 1, "{name} on {dependency}: {problems:?}");
        assert!(problems[0].starts_with(name), "{problems:?}");
    }
}

#[test]
fn the_table_has_no_way_back_up() {
    for (at, (name, may_use)) in edges::MAY_USE.iter().enumerate() {
        for used in *may_use {
            let position = edges::MAY_USE.iter().position(|(listed, _)| listed == used);
            assert!(position.is_some_and(|position| position < at), "{name} uses {used}");
        }
    }
}

#[test]
fn a_version_outside_the_root_manifest_is_found() {
    let good = "[package]\nname = \"x\"\n[dependencies]\n# why\nserde.workspace = true\n[lints]\nworkspace = true\n";
    assert!(edges::pinned_elsewhere("x", good).is_empty());
    let bad = "[dependencies]\nserde = \"1\"\n[dev-dependencies]\ninsta = { version = \"1\" }\n";
    assert_eq!(edges::pinned_elsewhere("x", bad).len(), 2);
}

#[test]
fn a_crate_begins_with_its_docs() {
    assert!(sources::judge("crates/x/src/lib.rs", "//! What it is.\n").is_empty());
    assert_eq!(sources::judge("crates/x/src/lib.rs", "pub mod y;\n").len(), 1);
    assert!(sources::judge("crates/x/src/y.rs", "pub struct Y;\n").is_empty());
}

#[test]
fn unfinished_code_is_found_with_its_line() {
    let text = concat!("fn main() {\n    todo", "!()\n}\n");
    let problems = sources::judge("crates/x/src/y.rs", text);
    assert!(problems[0].starts_with("crates/x/src/y.rs:2:"), "{problems:?}");
}

#[test]
fn commands_of_the_program_are_read_from_its_arguments() {
    let args = "pub(crate) enum Command {\n    /// Doc\n    #[command(hide = true)]\n    Up(Up),\n    \
                StaticServer {\n        root: PathBuf,\n    },\n    Spawner,\n}\nenum Other {\n    No,\n}\n";
    assert_eq!(docs::subcommands(args), ["up", "static-server", "spawner"]);
}

#[test]
fn commands_are_found_in_code_only() {
    let text = "tolv is a platform.\n\n```console\n$ tolv up examples/x\ntolv status --json\ntolv --version\n```\n\
                Say `tolv build` or `cargo xtask test`.\n";
    assert_eq!(docs::commands(text, "tolv "), ["up", "status", "build"]);
    assert_eq!(docs::commands(text, "cargo xtask "), ["test"]);
}

#[test]
fn links_to_files_are_found() {
    let text = "[a](docs/a.md) [b](https://b.example/) [c](#here) [d](d.md#part) ![e](e.svg)";
    assert_eq!(docs::links(text), ["docs/a.md", "d.md", "e.svg"]);
}

#[test]
fn an_open_version_is_found() {
    let text = "# pinned\nflask==3.1.3\nredis==8.1.0 ; python_version > \"3\"\n\ngunicorn>=20\n";
    assert_eq!(examples::unpinned(text).collect::<Vec<_>>(), ["gunicorn>=20"]);
}
