use std::os::unix::fs::symlink;

use tolv_testkit::Home;

use super::*;

fn packed(app: &Path, plan: &Plan) -> Result<Vec<(Vec<u8>, Entry)>, Error> {
    pack(app, plan, &Layout::sandboxed(), &Caps::default(), &|| false)
}

fn paths(entries: &[(Vec<u8>, Entry)]) -> Vec<&str> {
    entries.iter().map(|(path, _)| std::str::from_utf8(path).unwrap()).collect()
}

fn manifest(entries: Vec<(Vec<u8>, Entry)>) -> Manifest {
    Manifest {
        entries,
        layers: Vec::new(),
        toolchains: Vec::new(),
        process_types: std::collections::BTreeMap::new(),
        env: std::collections::BTreeMap::new(),
        path: Vec::new(),
        declared: Default::default(),
        profile: Vec::new(),
        build_config: std::collections::BTreeMap::new(),
        buildpacks: Vec::new(),
        stack: None,
    }
}

fn plan(prune: &[&str], keep: &[&str]) -> Plan {
    let mut plan = Plan::new("test", 1);
    plan.prune = prune.iter().map(|path| (*path).to_owned()).collect();
    plan.keep = keep.iter().map(|path| (*path).to_owned()).collect();
    plan
}

#[test]
fn a_slug_stands_whole_or_is_put_again() {
    let home = Home::new();
    let slugs = Slugs::open(home.path()).unwrap();
    let put = |text: &str| {
        let app = home.write("app/run", text);
        files::set_mode(&app, 0o755).unwrap();
        let app = home.path().join("app");
        let manifest = manifest(packed(&app, &plan(&[], &[])).unwrap());
        (slugs.put(&app, &manifest, &Proofs::default()).unwrap(), manifest)
    };
    let (id, manifest) = put("one");
    assert_eq!(id, manifest.id());
    assert!(slugs.proven(id, &Proofs::default()).unwrap().is_ok());
    assert_eq!(slugs.recorded(id), Some(manifest.clone()));
    assert_eq!(fs::read(slugs.path(id).join("run")).unwrap(), b"one");
    let run = slugs.path(id).join("run");
    for damage in [
        &(|| fs::write(&run, "other").unwrap()) as &dyn Fn(),
        &|| files::set_mode(&run, 0o644).unwrap(),
        &|| fs::remove_file(&run).unwrap(),
        &|| fs::remove_file(home.path().join(format!("slugs/{}.json", id.0))).unwrap(),
        &|| home.write(&format!("slugs/{}.json", id.0), "{}").clear(),
    ] {
        damage();
        assert!(slugs.proven(id, &Proofs::default()).unwrap().is_err());
        assert_eq!(put("one"), (id, manifest.clone()));
        assert!(slugs.proven(id, &Proofs::default()).unwrap().is_ok());
        assert_eq!(slugs.recorded(id), Some(manifest.clone()));
    }
    // A second equal one changes nothing, and its tree is the caller's to remove.
    put("one");
    assert!(home.path().join("app").exists());
}

#[test]
fn an_input_is_known_while_its_slug_stands() {
    let home = Home::new();
    let slugs = Slugs::open(home.path()).unwrap();
    home.write("app/run", "one");
    let app = home.path().join("app");
    let manifest = manifest(packed(&app, &plan(&[], &[])).unwrap());
    let id = slugs.put(&app, &manifest, &Proofs::default()).unwrap();
    let (input, other) = (Digest::of(b"input"), Digest::of(b"other"));
    assert_eq!(slugs.known(&input, &Proofs::default()).unwrap(), None);
    slugs.remember(&input, id).unwrap();
    assert_eq!(slugs.known(&input, &Proofs::default()).unwrap(), Some((id, manifest)));
    assert_eq!(slugs.known(&other, &Proofs::default()).unwrap(), None);
    fs::remove_file(slugs.path(id).join("run")).unwrap();
    assert_eq!(slugs.known(&input, &Proofs::default()).unwrap(), None);
}

#[test]
fn the_private_and_the_pruned_stay_out() {
    let home = Home::new();
    for path in [
        ".git/config",
        "lib/.git/config",
        ".tolv/wheels/x.whl",
        "lib/.tolv/kept",
        "target/release/shop",
        "target/release/deps/shop.d",
        "target/debug/shop",
        "targets/kept",
    ] {
        home.write(path, "");
    }
    let plan = plan(&["target", "nowhere"], &["target/release/shop", "target/gone/x"]);
    let entries = packed(home.path(), &plan).unwrap();
    assert_eq!(
        paths(&entries),
        [
            "lib",
            "lib/.tolv",
            "lib/.tolv/kept",
            "target",
            "target/release",
            "target/release/shop",
            "targets",
            "targets/kept",
        ]
    );
    assert!(!home.path().join(".git").exists() && !home.path().join("target/debug").exists());
}

#[test]
fn folders_emptied_by_pruning_go_and_others_stay() {
    let home = Home::new();
    home.write("target/release/deps/x", "");
    fs::create_dir_all(home.path().join("uploads/empty")).unwrap();
    let entries = packed(home.path(), &plan(&["target"], &["target/release/shop"])).unwrap();
    assert_eq!(paths(&entries), ["uploads", "uploads/empty"]);
    assert!(!home.path().join("target").exists());
}

#[test]
fn links_into_the_app_become_relative_and_others_are_refused() {
    let link = |target: &str| {
        let home = Home::new();
        home.write("lib/tool", "");
        fs::create_dir(home.path().join("bin")).unwrap();
        symlink(target, home.path().join("bin/tool")).unwrap();
        let mut plan = plan(&[], &[]);
        plan.toolchains.push(crate::plan::Toolchain {
            version: "node 22".to_owned(),
            source: "/somewhere/node".into(),
            target: "/toolchains/node".into(),
            at_run: true,
        });
        let packed = packed(home.path(), &plan);
        packed.map(|entries| {
            let on_disk = fs::read_link(home.path().join("bin/tool")).unwrap();
            let listed = entries.into_iter().find(|(path, _)| path == b"bin/tool").unwrap().1;
            let target = on_disk.into_os_string().into_encoded_bytes();
            assert_eq!(listed, Entry::Symlink { target: target.clone() });
            String::from_utf8(target).unwrap()
        })
    };
    assert_eq!(link("../lib/tool").unwrap(), "../lib/tool");
    assert_eq!(link("/app/lib/tool").unwrap(), "../lib/tool");
    assert_eq!(link("/app").unwrap(), "../");
    assert_eq!(link("/layers/x/bin/tool").unwrap(), "/layers/x/bin/tool");
    assert_eq!(link("/toolchains/node/bin/node").unwrap(), "/toolchains/node/bin/node");
    for bad in ["/etc/passwd", "../../tool", "/appendix"] {
        let error = link(bad).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "the build made the link `bin/tool`, which leaves the slug: it points to `{bad}`"
            )
        );
    }
}

#[test]
fn a_layer_is_linked_where_it_is_needed_at_run() {
    let layer = |at_run: bool, path: &str| crate::plan::LayerPlan {
        name: "Packages".to_owned(),
        key: Digest::of(path.as_bytes()),
        path: "/layers/x".into(),
        copies: Vec::new(),
        files: Vec::new(),
        at_run,
        sees_app: false,
        steps: Vec::new(),
        remove: Vec::new(),
        links: vec![(path.to_owned(), String::new())],
    };
    let home = Home::new();
    home.write("app.py", "");
    let mut plan = plan(&[], &[]);
    plan.layers = vec![layer(true, ".venv"), layer(false, "tools/modules")];
    for layer in &plan.layers {
        crate::layers::link(home.path(), layer).unwrap();
    }
    symlink(".venv/bin/x", home.path().join("x")).unwrap();
    let entries = packed(home.path(), &plan).unwrap();
    assert_eq!(paths(&entries), [".venv", "app.py", "tools", "x"]);
}

#[test]
fn a_slug_that_is_too_big_is_refused_in_words() {
    let home = Home::new();
    home.write("data", vec![0; 3 << 20]);
    let caps = Caps { slug: 2 << 20, ..Caps::default() };
    let packed = pack(home.path(), &plan(&[], &[]), &Layout::sandboxed(), &caps, &|| false);
    assert_eq!(
        packed.unwrap_err().to_string(),
        "the slug with 3 MiB is over the limit of 2 MiB (TOLV_BUILD_MIB)"
    );
}
