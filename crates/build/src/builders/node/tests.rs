use super::super::tests::{Machine, help, words};
use crate::plan::{LayerPlan, Plan};
use tolv_model::name::ProcessType;

/// A machine with Node.js 20.11.0, npm 10.9.9 and fetched managers.
fn machine(manifest: &str, files: &[(&str, &str)]) -> Machine {
    let mut all = vec![("package.json", manifest)];
    all.extend(files);
    let machine = Machine::new(&all);
    let program = machine.path("node/bin/node");
    machine.program("node/bin/node", "20.11.0");
    machine.file("node/include/node/node_version.h", "");
    let npm = "node/lib/node_modules/npm";
    machine.file(&format!("{npm}/package.json"), r#"{"version": "10.9.9"}"#);
    machine.file(&format!("{npm}/bin/npm-cli.js"), "");
    machine.link("node/bin/npm", "../lib/node_modules/npm/bin/npm-cli.js");
    machine.link("bin/node", &program.display().to_string());
    for (name, version) in [
        ("pnpm", "8.15.0"),
        ("pnpm", "8.15.9"),
        ("pnpm", "10.34.9"),
        ("yarn", "1.22.22"),
        ("yarn", "3.6.1"),
        ("yarn", "4.12.0"),
    ] {
        let script = format!("package/bin/{name}.cjs");
        let link = (format!("bin/{name}"), format!("../{script}"));
        machine.kept((name, version), &[(&script, "")], &[(&link.0, &link.1)]);
    }
    machine
}

const EXPRESS: &str = r#"{"dependencies": {"express": "5.1.0"}}"#;
const BUILT: &str = r#"{
    "scripts": {"build": "tsc", "start": "node dist/server.js", "prepare": "husky || true"},
    "dependencies": {"express": "5.1.0"},
    "devDependencies": {"typescript": "5.6.3"}
}"#;
const NPM: (&str, &str) = ("package-lock.json", "{}");

/// The steps of a layer or plan, without the program in front.
fn steps(plan: &Plan, layer: Option<&LayerPlan>) -> Vec<String> {
    let list = layer.map_or(&plan.steps, |layer| &layer.steps);
    let text = list.iter().map(|step| words(step).join(" "));
    let replaced = text.map(|mut text| {
        for layer in &plan.layers {
            text = text.replace(&layer.key.to_string(), if layer.at_run { "RUN" } else { "BUILD" });
        }
        let npm = "/toolchains/node-20.11.0/bin/node /toolchains/node-20.11.0/lib/node_modules/npm/bin/npm-cli.js";
        text.replace(npm, "npm").replace("/toolchains/node-20.11.0/bin/node ", "")
    });
    replaced.collect()
}

fn web(manifest: &str, files: &[(&str, &str)]) -> Option<String> {
    let plan = machine(manifest, files).plan().unwrap();
    plan.process_types.get(&ProcessType::web()).cloned()
}

#[test]
fn packages_become_a_layer() {
    let mut machine = machine(EXPRESS, &[NPM, (".npmrc", "x=1"), ("server.js", "")]);
    let plan = machine.plan().unwrap();
    assert_eq!(plan.layers.len(), 1);
    let layer = &plan.layers[0];
    assert_eq!(steps(&plan, Some(layer)), ["npm ci --omit=dev"]);
    assert_eq!(plan.steps, []);
    assert!(layer.at_run && !layer.sees_app);
    assert_eq!(layer.links, [("node_modules".to_owned(), "node_modules".to_owned())]);
    let copies: Vec<_> = layer.copies.iter().map(|(from, _)| from.as_str()).collect();
    assert_eq!(copies, ["package-lock.json", ".npmrc"]);
    assert!(layer.remove.contains(&"package.json".to_owned()));
    assert_eq!(plan.env["NODE_ENV"], "production");
    assert_eq!(plan.build_env["npm_config_cache"], "/cache/npm");
    assert_eq!(plan.path, ["/app/node_modules/.bin", "/toolchains/node-20.11.0/bin"]);
    assert_eq!(plan.process_types[&ProcessType::web()], "node server.js");

    // Source, scripts and description leave the layer as it is.
    machine.source("server.js", "changed");
    let same =
        r#"{"description": "x", "scripts": {"test": "x"}, "dependencies": {"express": "5.1.0"}}"#;
    machine.source("package.json", same);
    assert_eq!(machine.plan().unwrap().layers[0].key, layer.key);
    machine.source("package-lock.json", "{ }");
    assert_ne!(machine.plan().unwrap().layers[0].key, layer.key);
}

#[test]
fn a_build_script_sees_all_packages_and_the_slug_some() {
    let plan = machine(BUILT, &[NPM]).plan().unwrap();
    let [build, run] = plan.layers.as_slice() else { panic!("{} layers", plan.layers.len()) };
    assert!(!build.at_run && run.at_run && build.key != run.key);
    assert_eq!(steps(&plan, Some(build)), ["npm ci --include=dev"]);
    assert_eq!(steps(&plan, Some(run)), ["npm ci --omit=dev"]);
    // A layer that is not at run and has a link would keep `node_modules` out of the slug.
    assert_eq!(build.links, []);
    insta::assert_snapshot!(steps(&plan, None).join("\n"), @r"
    rm -rf node_modules
    mkdir node_modules
    find /layers/BUILD/node_modules -mindepth 1 -maxdepth 1 -exec ln -s -t node_modules {} +
    npm run build
    rm -rf node_modules
    ln -s ../layers/RUN/node_modules node_modules
    ");
    let script = plan.steps.iter().find(|step| step.heading == "Building").unwrap();
    assert_eq!(script.env["NODE_ENV"], "production");
    assert_eq!(plan.process_types[&ProcessType::web()], "node dist/server.js");
}

#[test]
fn a_built_site_without_packages_at_run_has_none() {
    let manifest = r#"{"scripts": {"build": "x"}, "devDependencies": {"x": "1"}}"#;
    let plan = machine(manifest, &[NPM]).plan().unwrap();
    assert_eq!(plan.layers.len(), 1);
    assert_eq!(steps(&plan, None).last().unwrap(), "rm -rf node_modules");
}

#[test]
fn heroku_postbuild_wins_over_build() {
    let manifest = r#"{"scripts": {"build": "x", "heroku-postbuild": "y"}}"#;
    let plan = machine(manifest, &[]).plan().unwrap();
    assert_eq!(steps(&plan, None), ["npm run heroku-postbuild"]);
    assert_eq!(plan.layers, []);
}

#[test]
fn what_needs_the_source_is_installed_in_place() {
    let scripts = |script: &str| {
        format!(r#"{{"scripts": {{"{script}": "node x"}}, "dependencies": {{"a": "1"}}}}"#)
    };
    for manifest in [
        scripts("postinstall"),
        scripts("prepare"),
        r#"{"workspaces": ["packages/*"], "dependencies": {"a": "1"}}"#.to_owned(),
        r#"{"dependencies": {"a": "file:libs/a"}}"#.to_owned(),
        r#"{"dependencies": {"@prisma/client": "6.0.0"}}"#.to_owned(),
    ] {
        let plan = machine(&manifest, &[NPM]).plan().unwrap();
        assert_eq!(plan.layers, [], "{manifest}");
        let expected = ["npm ci --include=dev", "npm prune --omit=dev --ignore-scripts"];
        assert_eq!(steps(&plan, None), expected, "{manifest}");
        assert!(plan.notes.iter().any(|note| note.contains("in place: ")), "{:?}", plan.notes);
        assert!(plan.prune.contains(&"node_modules/.cache".to_owned()));
    }
    let next = r#"{"scripts": {"build": "next build"}, "dependencies": {"next": "15.0.0"}}"#;
    let plan = machine(next, &[NPM]).plan().unwrap();
    assert_eq!((plan.layers.len(), plan.steps.len()), (0, 3));
    let next = next.replace("build\": ", "test\": ");
    assert_eq!(machine(&next, &[NPM]).plan().unwrap().layers.len(), 1);
}

#[test]
fn each_lock_has_its_manager() {
    let installed = |manifest: &str, files: &[(&str, &str)]| {
        let plan = machine(manifest, files).plan().unwrap();
        steps(&plan, Some(&plan.layers[0])).join("; ")
    };
    let (nine, six) = ("lockfileVersion: '9.0'\n", "lockfileVersion: '6.0'\n");
    assert_eq!(
        installed(EXPRESS, &[("pnpm-lock.yaml", nine)]),
        "/toolchains/pnpm-10.34.9/package/bin/pnpm.cjs install --frozen-lockfile --prod"
            .replace("package/bin", "bin/../package/bin")
    );
    assert!(installed(EXPRESS, &[("pnpm-lock.yaml", six)]).contains("pnpm-8.15.9"));
    let classic = installed(EXPRESS, &[("yarn.lock", "# yarn lockfile v1\n")]);
    assert!(classic.contains("yarn-1.22.22") && classic.contains("--frozen-lockfile"), "{classic}");
    let berry = installed(EXPRESS, &[("yarn.lock", "__metadata:\n  version: 8\n")]);
    assert!(berry.contains("yarn-4.12.0") && berry.contains("install --immutable"), "{berry}");
    assert!(berry.ends_with("workspaces focus --production --all"), "{berry}");
    let own = ".yarnrc.yml";
    let named =
        [("yarn.lock", "__metadata:\n"), (own, "yarnPath: .yarn/releases/yarn-3.6.1.cjs\n")];
    assert!(installed(EXPRESS, &named).contains("yarn-3.6.1"));
    // Whatever range the manifest has, a lock is read by a manager of its own kind.
    let range = r#"{"engines": {"yarn": ">=1.10"}, "dependencies": {"express": "5.1.0"}}"#;
    assert!(
        installed(range, &[("yarn.lock", "__metadata:\n  version: 8\n")]).contains("yarn-4.12.0")
    );
    let shrinkwrap = machine(EXPRESS, &[NPM, ("npm-shrinkwrap.json", "{}")]).plan().unwrap();
    assert_eq!(shrinkwrap.layers[0].copies[0].0, "npm-shrinkwrap.json");
}

#[test]
fn the_named_manager_is_taken() {
    let named = |version: &str| {
        let rest = &EXPRESS[1..];
        format!(r#"{{"packageManager": "pnpm@{version}", {rest}"#)
    };
    let lock = ("pnpm-lock.yaml", "lockfileVersion: '9.0'\n");
    let plan = |version| machine(&named(version), &[lock, NPM]).plan().unwrap();
    let program = |plan: &Plan| words(&plan.layers[0].steps[0])[1].clone();
    assert!(program(&plan("8.15.0+sha512.abc")).contains("pnpm-8.15.0"));
    let newest = plan("12.0.1");
    assert!(program(&newest).contains("pnpm-10.34.9"));
    assert!(newest.warnings[0].contains("pnpm 12.0.1"), "{:?}", newest.warnings);
    let (problem, help) = machine(&named("8.15.0"), &[NPM]).refusal();
    insta::assert_snapshot!(problem, @"node: `packageManager` in package.json is pnpm, and the lock is `package-lock.json`");
    assert!(help.contains("pnpm install --lockfile-only"), "{help}");
    let (problem, _) = machine(&named("newest"), &[lock]).refusal();
    assert!(problem.contains("`newest`, which is no version of pnpm"), "{problem}");
}

#[test]
fn what_locks_nothing_is_refused() {
    let refusal = |manifest: &str, files: &[(&str, &str)]| {
        let (problem, help) = machine(manifest, files).refusal();
        format!("{problem}\n{help}")
    };
    insta::assert_snapshot!(refusal(EXPRESS, &[("bun.lock", "")]), @r"
    node: `bun.lock` is of Bun, which is not supported
    run `npm install --package-lock-only` and commit `package-lock.json`; `git rm` what is Bun's
    ");
    let named = r#"{"packageManager": "bun@1.2.0", "dependencies": {"a": "1"}}"#;
    assert!(refusal(named, &[]).contains("`packageManager` is of Bun"));
    insta::assert_snapshot!(refusal(EXPRESS, &[NPM, ("yarn.lock", "")]), @r"
    node: there are two locks, `package-lock.json` and `yarn.lock`
    `git rm yarn.lock` or `git rm package-lock.json`, or name the manager in `packageManager` of package.json
    ");
    assert!(refusal("{", &[]).contains("`package.json` is not JSON"));
    assert!(refusal("[]", &[]).contains("not a JSON object"));
    let engines = r#"{"engines": {"node": "newish"}}"#;
    assert!(refusal(engines, &[]).contains("engines.node in package.json is `newish`"));
}

#[test]
fn a_node_that_does_not_run_here_is_passed_over() {
    let machine = Machine::new(&[("package.json", "{}"), ("server.js", "")]);
    let error = "node: error while loading shared libraries: libatomic.so.1: cannot open shared";
    let fails = format!("#!echo '{error}' >&2; exit 127");
    let name = machine.kept(("node", "26.1.0"), &[("bin/node", &fails)], &[]);
    machine.kept(("node", "24.1.0"), &[("bin/node", "#!echo v24.1.0")], &[]);
    // Noted when it was fetched; else it is not executed again.
    machine.file("toolchains/.node-26.1.0.unfit", "");
    let plan = machine.plan().unwrap();
    assert!(plan.notes[0].starts_with("Node.js 24.1.0, the newest long-term"), "{:?}", plan.notes);
    let text = std::fs::read_to_string(machine.path("toolchains/.node-26.1.0.unfit")).unwrap();
    assert_eq!(text, "it needs the library `libatomic.so.1`");
    // Once the library is there, so is the version for who asks for it, without another fetch.
    std::fs::remove_file(machine.path(&format!("toolchains/{name}.json"))).unwrap();
    machine.kept(("node", "26.1.0"), &[("bin/node", "#!echo v26.1.0")], &[]);
    let plan = machine.plan().unwrap();
    assert!(plan.notes[0].starts_with("Node.js 24.1.0, the newest long-term"), "{:?}", plan.notes);
    let mut machine = machine;
    machine.source("package.json", r#"{"engines": {"node": ">=24"}}"#);
    let plan = machine.plan().unwrap();
    assert!(plan.notes[0].starts_with("Node.js 26.1.0, as wanted"), "{:?}", plan.notes);
    assert!(!machine.path("toolchains/.node-26.1.0.unfit").exists());
}

#[test]
fn packages_without_a_lock_are_resolved_once() {
    let plan = machine(EXPRESS, &[]).plan().unwrap();
    let [lock, run] = plan.layers.as_slice() else { panic!("{} layers", plan.layers.len()) };
    assert!(!lock.at_run && run.at_run);
    assert_eq!(steps(&plan, Some(lock)), ["npm install --package-lock-only --ignore-scripts"]);
    let copied = format!("cp {}/package-lock.json package-lock.json", lock.path.display());
    assert_eq!(
        steps(&plan, Some(run)),
        [copied.replace(&lock.key.to_string(), "BUILD"), "npm ci --omit=dev".to_owned()]
    );
    assert!(run.remove.contains(&"package-lock.json".to_owned()));
    assert!(!lock.remove.contains(&"package-lock.json".to_owned()));
    assert!(plan.warnings[0].contains("npm install --package-lock-only"), "{:?}", plan.warnings);
    // What asks for no other packages resolves nothing anew.
    let same = r#"{"scripts": {"test": "x"}, "dependencies": {"express": "5.1.0"}}"#;
    let again = machine(same, &[]).plan().unwrap();
    assert_eq!([again.layers[0].key, again.layers[1].key], [lock.key, run.key]);
    let other = machine(&same.replace("5.1.0", "5.0.0"), &[]).plan().unwrap();
    assert!(other.layers[0].key != lock.key && other.layers[1].key != run.key);

    let made = |manifest: &str, files: &[(&str, &str)]| {
        let plan = machine(manifest, files).plan().unwrap();
        steps(&plan, Some(&plan.layers[0])).join("; ")
    };
    let workspace = [("pnpm-workspace.yaml", "packages: [a]\n"), ("a/package.json", "{}")];
    assert!(made(EXPRESS, &workspace).contains("pnpm.cjs install --lockfile-only"));
    let yarn = r#"{"packageManager": "yarn@1.22.22", "dependencies": {"express": "5.1.0"}}"#;
    assert!(made(yarn, &[]).contains("yarn-1.22.22"));
    // In place, the lock is put into the app.
    let plan = machine(BUILT.replace("husky", "x").as_str(), &[]).plan().unwrap();
    assert!(steps(&plan, None)[0].starts_with("cp /layers/BUILD/package-lock.json "));
}

#[test]
fn workspaces_of_pnpm_keep_their_packages() {
    let lock = ("pnpm-lock.yaml", "lockfileVersion: '9.0'\n");
    let files = [lock, ("pnpm-workspace.yaml", "packages:\n  - apps/*\n")];
    let plan = machine(BUILT, &files).plan().unwrap();
    assert_eq!(plan.layers, []);
    let all = steps(&plan, None);
    assert!(all[0].ends_with("install --frozen-lockfile --prod=false"), "{all:?}");
    assert!(all[2].ends_with("install --prod --frozen-lockfile --ignore-scripts"), "{all:?}");
}

#[test]
fn packages_run_their_install_scripts() {
    let env = |manifest: &str, files: &[(&str, &str)], name: &str| {
        let plan = machine(manifest, files).plan().unwrap();
        plan.build_env.contains_key(name)
    };
    let pnpm = ("pnpm-lock.yaml", "lockfileVersion: '9.0'\n");
    let all = "npm_config_dangerously_allow_all_builds";
    assert!(env(EXPRESS, &[pnpm], all));
    assert!(!env(EXPRESS, &[pnpm, ("pnpm-workspace.yaml", "onlyBuiltDependencies:\n- x\n")], all));
    let listed = r#"{"pnpm": {"onlyBuiltDependencies": []}, "dependencies": {"express": "5.1.0"}}"#;
    assert!(!env(listed, &[pnpm], all));
    let berry = ("yarn.lock", "__metadata:\n  version: 8\n");
    assert!(env(EXPRESS, &[berry], "YARN_ENABLE_SCRIPTS"));
    assert!(!env(
        EXPRESS,
        &[berry, (".yarnrc.yml", "enableScripts: false\n")],
        "YARN_ENABLE_SCRIPTS"
    ));
    // npm 10 knows no such setting.
    assert!(!env(EXPRESS, &[NPM], "npm_config_dangerously_allow_all_scripts"));
    // What is compiled finds the headers of this Node.js and fetches none.
    let plan = machine(EXPRESS, &[NPM]).plan().unwrap();
    assert_eq!(plan.build_env["npm_config_nodedir"], "/toolchains/node-20.11.0");
}

#[test]
fn a_fetched_node_brings_its_headers() {
    let machine = Machine::new(&[("package.json", EXPRESS), NPM]);
    let header = ("package/include/node/node_version.h", "");
    machine.kept(("node", "24.1.0"), &[("bin/node", "#!echo v24.1.0"), header], &[]);
    let npm = ("bin/npm", "../package/bin/npm-cli.js");
    machine.kept(("npm", "11.21.2"), &[("package/bin/npm-cli.js", "")], &[npm]);
    let plan = machine.plan().unwrap();
    assert_eq!(plan.build_env["npm_config_nodedir"], "/toolchains/node-24.1.0/package");
    // npm 11 would warn about scripts, and npm 12 skip them.
    assert_eq!(plan.build_env["npm_config_dangerously_allow_all_scripts"], "true");
    let step = &plan.layers[0].steps[0];
    assert_eq!(help(step, "gyp info find Python using Python version 3.11.2"), None);
}

#[test]
fn packages_of_yarn_are_compiled_with_the_node_gyp_of_npm() {
    let plan = |lock: &str| machine(EXPRESS, &[("yarn.lock", lock)]).plan().unwrap();
    let native = plan("# yarn lockfile v1\n\nnode-addon-api@^5.0.0:\n");
    let npm = "/toolchains/node-20.11.0/lib/node_modules/npm/node_modules";
    let program = format!("{npm}/node-gyp/bin/node-gyp.js");
    assert_eq!(native.build_env["npm_config_node_gyp"], program.as_str());
    let folder = format!("{npm}/@npmcli/run-script/lib/node-gyp-bin");
    assert!(native.build_path.contains(&folder.into()), "{:?}", native.build_path);
    assert!(!plan("# yarn lockfile v1\n").build_env.contains_key("npm_config_node_gyp"));
}

#[test]
fn scripts_around_the_build_run_in_their_order() {
    let manifest = r#"{"scripts": {"heroku-prebuild": "a", "build": "b", "heroku-cleanup": "c"},
        "dependencies": {"express": "5.1.0"}}"#;
    let expected = [
        "npm run heroku-prebuild",
        "npm ci --include=dev",
        "npm run build",
        "npm prune --omit=dev --ignore-scripts",
        "npm run heroku-cleanup",
    ];
    assert_eq!(steps(&machine(manifest, &[NPM]).plan().unwrap(), None), expected);
    let without = r#"{"scripts": {"heroku-prebuild": "a", "heroku-cleanup": "c"}}"#;
    let expected = ["npm run heroku-prebuild", "npm run heroku-cleanup"];
    assert_eq!(steps(&machine(without, &[]).plan().unwrap(), None), expected);
}

#[test]
fn what_a_package_misses_to_be_compiled_is_told() {
    let plan = machine(EXPRESS, &[NPM]).plan().unwrap();
    let step = &plan.layers[0].steps[0];
    for (output, part) in [
        ("npm error gyp ERR! find Python", "python3"),
        ("gyp ERR! stack Error: not found: make", "make"),
        ("make: g++: No such file or directory", "C++ compiler"),
        ("gyp ERR! stack FetchError: getaddrinfo ENOTFOUND nodejs.org", "network"),
    ] {
        let help = help(step, output).unwrap_or_else(|| panic!("{output}"));
        assert!(help.contains(part), "{output}: {help}");
    }
}

#[test]
fn a_stale_lock_says_what_mends_it() {
    let plan = |file| machine(EXPRESS, &[file]).plan().unwrap();
    let helped = |plan: Plan, output: &str| {
        help(&plan.layers[0].steps[0], output).unwrap_or_default().to_owned()
    };
    let npm = helped(plan(NPM), r#"npm error Run "npm help ci" for more info"#);
    assert!(npm.contains("npm install --package-lock-only"), "{npm}");
    let pnpm = helped(plan(("pnpm-lock.yaml", "")), "ERR_PNPM_OUTDATED_LOCKFILE  Cannot install");
    assert!(pnpm.contains("pnpm install --lockfile-only"), "{pnpm}");
    let yarn = helped(plan(("yarn.lock", "")), "error Your lockfile needs to be updated, but");
    assert!(yarn.contains("yarn install"), "{yarn}");
}

#[test]
fn a_codebase_without_packages_needs_no_manager() {
    let plan = machine("{}", &[("server.js", "")]).plan().unwrap();
    assert_eq!((plan.layers.len(), plan.steps.len()), (0, 0));
    assert_eq!(plan.process_types[&ProcessType::web()], "node server.js");
}

#[test]
fn the_web_process_is_the_program_itself() {
    let scripts = |text: &str| format!(r#"{{"scripts": {{{text}}}}}"#);
    let of = |text: &str| web(&scripts(text), &[]).unwrap();
    assert_eq!(of(r#""start": "node -r x server.js""#), "node -r x server.js");
    assert_eq!(of(r#""start": "npm run prod", "prod": "node p.js""#), "node p.js");
    assert_eq!(of(r#""start": "yarn prod", "prod": "node p.js""#), "node p.js");
    assert_eq!(of(r#""start": "yarn x", "prod": "node p.js""#), "yarn x");
    assert_eq!(of(r#""start": "node s.js", "prestart": "x""#), "npm start");
    assert_eq!(of(r#""start": "npm run a", "a": "x", "posta": "y""#), "npm run a");
    assert_eq!(of(r#""start": "npm run start""#), "npm run start");
    assert_eq!(web("{}", &[]), None);
}
