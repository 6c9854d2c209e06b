use super::super::tests::{Machine, words};

const BUILT: &str = r#"{"scripts": {"build": "vite build", "start": "vite"}}"#;

const NPM: (&str, &str) = ("bin/npm", "../package/bin/npm-cli.js");

/// A machine with Node.js, Python and what installs their packages, and a codebase of both.
fn machine(files: &[(&str, &str)]) -> Machine {
    let mut all = vec![("requirements.txt", "click==8.1.7\n"), (".python-version", "3.99\n")];
    all.extend(files);
    let machine = Machine::new(&all);
    machine.program("bin/node", "20.20.2");
    machine.kept(("npm", "10.9.9"), &[("package/bin/npm-cli.js", "")], &[NPM]);
    machine.python("3.99.1");
    machine
}

fn headings(machine: &Machine) -> (&'static str, Vec<String>) {
    let plan = machine.plan().unwrap();
    let layers = plan.layers.iter().map(|layer| layer.name.clone());
    let steps = plan.steps.iter().filter(|step| !step.heading.is_empty());
    (plan.builder, layers.chain(steps.map(|step| words(step).join(" "))).collect())
}

#[test]
fn a_page_is_built_beside_a_python_program() {
    let machine = machine(&[("package.json", BUILT)]);
    let plan = machine.plan().unwrap();
    assert_eq!(plan.builder, "node and python");
    assert!(plan.layers.iter().any(|layer| layer.name == "Python packages"));
    assert!(plan.steps.iter().any(|step| step.heading == "Building"));
    assert!(plan.build_env.contains_key("npm_config_cache"));
    assert!(plan.build_env.contains_key("UV_CACHE_DIR"));
    assert_eq!(plan.path[0], "/app/.venv/bin");
}

#[test]
fn without_a_build_script_python_is_alone() {
    let machine = machine(&[("package.json", r#"{"scripts": {"test": "x"}}"#)]);
    assert_eq!(headings(&machine).0, "python");
}

#[test]
fn the_buildpacks_say_the_order() {
    let machine = machine(&[("package.json", BUILT)]);
    let of = |named: &[&'static str]| machine.plan_of(named).unwrap().builder;
    assert_eq!(of(&["node", "python"]), "node and python");
    assert_eq!(of(&["python", "node"]), "python and node");
    assert_eq!(of(&["python"]), "python");
    assert_eq!(of(&["node"]), "node");
    let error = machine.plan_of(&["go"]).unwrap_err().to_string();
    assert!(error.contains("looked in the root of the codebase for go.mod (go)"), "{error}");
}
