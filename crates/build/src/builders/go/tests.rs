use super::super::tests::{Machine, help, words};
use super::Module;
use tolv_model::name::ProcessType;

fn machine(files: &[(&str, &str)]) -> Machine {
    let machine = Machine::new(files);
    let root = machine.path("go");
    let says =
        format!("if [ \"$2\" = GOROOT ]; then echo {}; else echo go1.22.3; fi", root.display());
    machine.script("go/bin/go", &says);
    for (path, text) in [("fmt/a.go", ""), ("fmt/a_test.go", ""), ("cmd/x.go", "")] {
        machine.file(&format!("go/src/{path}"), text);
    }
    machine
}

#[test]
fn each_main_package_becomes_a_program() {
    let machine = machine(&[
        ("go.mod", "module example.com/shop/v2\n\ngo 1.22\n"),
        ("main.go", "// A shop.\npackage main\n"),
        ("cmd/web/main.go", "package main"),
        ("cmd/lib/lib.go", "package lib"),
        ("cmd/only_test/x_test.go", "package main"),
        ("cmd/tool/gen.go", "//go:build ignore\n\npackage main"),
    ]);
    let plan = machine.plan().unwrap();
    let built: Vec<_> = plan.steps.iter().map(|step| words(step)[6..].join(" ")).collect();
    assert_eq!(built, ["bin/shop .", "bin/web ./cmd/web"]);
    assert_eq!(
        words(&plan.steps[0])[..5],
        ["go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly"]
    );
    assert_eq!(plan.process_types[&ProcessType::web()], "bin/web");
    assert_eq!(plan.build_env["CGO_ENABLED"], "0");
    assert_eq!(plan.path, ["/app/bin"]);
    assert!(!plan.toolchains[0].at_run);
    assert_eq!(plan.build_env["GOROOT"], "/toolchains/go-1.22.3");
    let copy = &plan.toolchains[0].source;
    assert!(copy.join("src/fmt/a.go").is_file() && copy.join("bin/go").is_file());
    assert!(!copy.join("src/fmt/a_test.go").exists() && !copy.join("src/cmd").exists());
    assert!(
        help(&plan.steps[0], "missing go.sum entry for module").unwrap().contains("go mod tidy")
    );
}

#[test]
fn the_only_program_is_web() {
    let files = [("go.mod", "module \"x.org/hello\""), ("main.go", "package main")];
    let plan = machine(&files).plan().unwrap();
    assert_eq!(plan.process_types[&ProcessType::web()], "bin/hello");
}

#[test]
fn modules_without_their_sums_are_refused() {
    let files = [("go.mod", "module x\nrequire a.org/b v1.0.0\n"), ("main.go", "package main")];
    let (problem, help) = machine(&files).refusal();
    insta::assert_snapshot!(problem, @"go: `go.mod` requires modules and there is no `go.sum`");
    insta::assert_snapshot!(help, @"run `go mod tidy` and commit `go.sum`");
    let mut vendored = machine(&files);
    vendored.source("vendor/modules.txt", "");
    let plan = vendored.plan().unwrap();
    assert!(words(&plan.steps[0]).contains(&"-mod=vendor".to_owned()));
}

#[test]
fn a_library_alone_is_refused() {
    let (problem, _) = machine(&[("go.mod", "module x"), ("x.go", "package x")]).refusal();
    insta::assert_snapshot!(problem, @"go: no main package: looked for `package main` in the root and in `cmd/*`");
}

#[test]
fn the_oldest_go_is_what_go_mod_says() {
    let version = |text: &str| Module::read(text).version.map(|version| version.to_string());
    assert_eq!(version("module x\ngo 1.22 // comment\n").as_deref(), Some("1.22"));
    assert_eq!(version("go 1.21\n\ntoolchain go1.23.4\n").as_deref(), Some("1.23.4"));
    assert_eq!(version("module x\nrequire (\n\tgo 1.30\n)\n"), None);
    assert_eq!(version("gopher 1.22\n"), None);
}

#[test]
fn requirements_are_seen_in_all_their_forms() {
    for text in ["require a v1", "require (\n\ta v1 // indirect\n)", "require(\na v1\n)"] {
        assert!(Module::read(text).requires, "{text}");
    }
    for text in ["module x", "require (\n)\n", "// require a v1", "go 1.22\n"] {
        assert!(!Module::read(text).requires, "{text}");
    }
    assert_eq!(Module::name("// x\nmodule a.org/b/v3 // c"), Some("b"));
    assert_eq!(Module::name("module v2"), Some("v2"));
}
