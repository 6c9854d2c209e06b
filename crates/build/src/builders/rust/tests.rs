use super::super::tests::{Machine, help, words};
use super::programs::Programs;
use super::{channel, read_toml};
use crate::toolchains::Layout;
use tolv_model::name::ProcessType;

const ONE: [(&str, &str); 3] =
    [("Cargo.toml", "[package]\nname = \"shop\""), ("Cargo.lock", ""), ("src/main.rs", "")];

/// A machine with Rust 1.90.0 and what else rustup has.
fn machine(files: &[(&str, &str)], others: &[&str]) -> Machine {
    let machine = Machine::new(files);
    let sysroot = machine.path("rust");
    for (folder, version) in
        [("rust", "1.90.0")].into_iter().chain(others.iter().map(|version| (*version, *version)))
    {
        let folder = match folder {
            "rust" => folder.to_owned(),
            own => format!("home/.rustup/toolchains/{own}-x86_64-unknown-linux-gnu"),
        };
        let about = format!("release: {version}\nhost: x86_64-unknown-linux-gnu");
        machine.program(&format!("{folder}/bin/rustc"), &about);
        machine.program(&format!("{folder}/bin/cargo"), "");
    }
    machine.program("bin/rustc", &sysroot.display().to_string());
    machine
}

#[test]
fn programs_are_compiled_in_the_cache_and_copied() {
    let plan = machine(&ONE, &[]).plan().unwrap();
    let all: Vec<_> = plan.steps.iter().map(|step| words(step).join(" ")).collect();
    assert_eq!(
        all,
        [
            "cargo build --release --locked --bins",
            "install -D /cache/target/release/shop target/release/shop"
        ]
    );
    assert_eq!(plan.build_env["CARGO_TARGET_DIR"], "/cache/target");
    assert_eq!(
        (plan.prune, plan.keep),
        (vec!["target".to_owned()], vec!["target/release/shop".to_owned()])
    );
    assert_eq!(plan.process_types[&ProcessType::web()], "target/release/shop");
    assert!(!plan.toolchains[0].at_run && plan.toolchains[0].version == "rust 1.90.0");
    let stale = "error: cannot update the lock file /app/Cargo.lock because --locked was passed";
    assert!(help(&plan.steps[0], stale).unwrap().contains("cargo update --workspace"));
}

#[test]
fn a_rust_that_is_too_old_is_told_before_anything_compiles() {
    let with = |manifest: &str| {
        let files = [("Cargo.toml", manifest), ("Cargo.lock", ""), ("src/main.rs", "")];
        machine(&files, &[]).plan().map(drop)
    };
    for (manifest, fits) in [
        ("[package]\nname = \"shop\"\nrust-version = \"1.90\"", true),
        ("[package]\nname = \"shop\"\nrust-version = \"1.91\"", false),
        (
            "[package]\nname = \"shop\"\nrust-version.workspace = true\n\
             [workspace.package]\nrust-version = \"1.100.1\"",
            false,
        ),
        ("[package]\nname = \"shop\"\nrust-version = 5", true),
    ] {
        let planned = with(manifest);
        assert_eq!(planned.is_ok(), fits, "{manifest}: {planned:?}");
        let Err(error) = planned else { continue };
        let help = error.help().unwrap();
        assert!(help.contains("rustup toolchain install 1."), "{help}");
        assert!(error.to_string().contains("Rust 1.90.0 was taken"), "{error}");
    }
}

#[test]
fn paths_of_a_build_elsewhere_are_taken_out() {
    let layout = Layout { app: "/h/app".into(), layers: "/h/l".into(), cache: "/h/c".into() };
    let plan = machine(&ONE, &[]).plan_in(layout).unwrap();
    let config = words(&plan.steps[0]).pop().unwrap();
    assert_eq!(
        config,
        r#"build.rustflags=["--remap-path-prefix=/h/app=/app", "--remap-path-prefix=/h/c=/cache"]"#
    );
}

#[test]
fn a_missing_lock_or_program_is_refused() {
    let (problem, help) = machine(&[ONE[0], ONE[2]], &[]).refusal();
    assert_eq!(problem, "rust: there is no `Cargo.lock`");
    assert!(help.contains("cargo generate-lockfile"), "{help}");
    let (problem, _) = machine(&[ONE[0], ONE[1], ("src/lib.rs", "")], &[]).refusal();
    assert!(problem.starts_with("rust: no program: "), "{problem}");
    let (problem, _) = machine(&[("Cargo.toml", "[package"), ONE[1]], &[]).refusal();
    assert!(problem.starts_with("rust: `Cargo.toml` is not TOML: line 1: "), "{problem}");
}

#[test]
fn the_named_toolchain_is_taken_where_it_is_installed() {
    let with = |path: &str, text: &str| {
        let mut machine = machine(&ONE, &["1.80.1", "1.80.0", "nightly-2025-01-02", "stable"]);
        machine.source(path, text);
        machine.plan().map(|plan| plan.toolchains[0].version.clone())
    };
    let toml =
        |channel| with("rust-toolchain.toml", &format!("[toolchain]\nchannel = \"{channel}\""));
    assert_eq!(toml("1.90").unwrap(), "rust 1.90.0");
    assert_eq!(toml("stable").unwrap(), "rust 1.90.0");
    assert_eq!(toml("1.80").unwrap(), "rust 1.80.1");
    assert_eq!(toml("1.80.0").unwrap(), "rust 1.80.0");
    assert_eq!(toml("nightly-2025-01-02").unwrap(), "rust nightly-2025-01-02");
    assert_eq!(with("rust-toolchain", "1.80.0\n").unwrap(), "rust 1.80.0");
    let components = "[toolchain]\ncomponents = [\"clippy\"]";
    assert_eq!(with("rust-toolchain.toml", components).unwrap(), "rust 1.90.0");
    let error = toml("1.70.0").unwrap_err();
    assert_eq!(error.help(), Some("install it: `rustup toolchain install 1.70.0`"));
    let text = error.to_string();
    assert!(
        text.contains("Rust 1.70.0 (rust-toolchain.toml)") && text.contains("1.90.0"),
        "{text}"
    );
    assert!(toml("../x").is_err());
}

#[test]
fn a_machine_without_rust_says_how_to_get_it() {
    let (problem, help) = Machine::new(&ONE).refusal();
    assert!(problem.starts_with("Rust is needed and not available: "), "{problem}");
    assert!(help.contains("rustup"), "{help}");
    let tree = Machine::new(&ONE).tree();
    assert_eq!(channel(&tree).unwrap(), None);
}

fn programs(files: &[(&str, &str)]) -> Programs {
    let machine = Machine::new(files);
    let tree = machine.tree();
    let root = read_toml(&tree, "rust", "Cargo.toml").unwrap().unwrap();
    Programs::read(&tree, &root).unwrap()
}

#[test]
fn programs_are_found_as_cargo_finds_them() {
    let found = programs(&[
        (
            "Cargo.toml",
            r#"
            [package]
            name = "shop"
            default-run = "shop"
            [features]
            default = ["net"]
            net = ["tls"]
            [[bin]]
            name = "daemon"
            path = "src/bin/d.rs"
            [[bin]]
            name = "with"
            path = "src/with.rs"
            required-features = ["tls"]
            [[bin]]
            name = "without"
            path = "src/without.rs"
            required-features = ["gui", "net"]
            "#,
        ),
        ("src/main.rs", ""),
        ("src/bin/a.rs", ""),
        ("src/bin/b/main.rs", ""),
        ("src/bin/b/helper.rs", ""),
        ("src/bin/notes/readme.md", ""),
        ("src/bin/d.rs", ""),
    ]);
    assert_eq!(found.names, ["a", "b", "daemon", "shop", "with"]);
    assert_eq!(found.left_out["without"], "gui");
    assert_eq!(found.web(), Some("shop"));
}

#[test]
fn a_renamed_main_program_is_one() {
    let manifest = "[package]\nname = \"shop\"\n[[bin]]\nname = \"web\"\npath = \"src/main.rs\"";
    let found = programs(&[("Cargo.toml", manifest), ("src/main.rs", "")]);
    assert_eq!(found.names, ["web"]);
    assert_eq!(found.web(), Some("web"));
}

#[test]
fn a_workspace_has_the_programs_of_its_members() {
    let member = |name: &str| format!("[package]\nname = \"{name}\"");
    let (a, b, c) = (member("a"), member("b"), member("c"));
    let of = |root: &str| {
        programs(&[
            ("Cargo.toml", root),
            ("crates/a/Cargo.toml", &a),
            ("crates/a/src/main.rs", ""),
            ("crates/b/Cargo.toml", &b),
            ("crates/b/src/main.rs", ""),
            ("crates/notes.md", ""),
            ("tools/c/Cargo.toml", &c),
            ("tools/c/src/main.rs", ""),
        ])
    };
    let all = of("[workspace]\nmembers = [\"crates/*\", \"./tools/c\"]\nexclude = [\"crates/b\"]");
    assert_eq!(all.names, ["a", "c"]);
    assert_eq!(all.web(), None);
    let chosen =
        of("[workspace]\nmembers = [\"crates/*\"]\ndefault-members = [\"crates/?\", \"x\"]");
    assert_eq!(chosen.names, ["a", "b"]);
    assert_eq!(of("[workspace]").names, Vec::<String>::new());
}
