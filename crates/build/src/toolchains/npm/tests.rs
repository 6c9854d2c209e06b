use serde_json::json;

use super::*;

#[test]
fn settings_are_read_with_names_expanded() {
    let env = BTreeMap::from([("TOKEN".to_owned(), OsString::from("t0"))]);
    let text = "; a comment\nregistry = \"https://npm.example/\"\n//npm.example/:_authToken=${TOKEN}x\n\
                //other/:_authToken=${UNSET}\nflag\n[section]\n";
    let rc = Npmrc::parse(text, &env);
    assert_eq!(rc.get("registry"), Some("https://npm.example/"));
    assert_eq!(rc.get("//npm.example/:_authToken"), Some("t0x"));
    assert_eq!(rc.get("//other/:_authToken"), None);
    assert_eq!(expand("${", &env), None);
}

#[test]
fn a_version_needs_a_place_and_may_have_two_digests() {
    let value = json!({"version": "1.2.3", "engines": {"node": ">=18"},
        "dist": {"tarball": "https://x/y.tgz", "integrity": "sha1-aa sha512-bb=="}});
    let found = Published::of(&value).unwrap();
    assert_eq!(found.integrity.as_deref(), Some("bb=="));
    assert!(found.runs_on(&Version::parse("20.1.0").unwrap()));
    assert!(!found.runs_on(&Version::parse("16.1.0").unwrap()));
    assert_eq!(Published::of(&json!({"version": "1.2.3"})), None);
    assert_eq!(Published::of(&json!(null)), None);
}

#[test]
fn commands_are_linked_and_stay_inside() {
    let home = tempfile::tempdir().unwrap();
    let inside = home.path().join("package");
    fs::create_dir_all(inside.join("lib")).unwrap();
    fs::write(inside.join("lib/cli.js"), "").unwrap();
    let document = json!({"name": "@a/b", "bin": {"b": "./lib/cli.js", "../c": "lib/cli.js", "d": "../../x", "e": "gone"}});
    fs::write(inside.join("package.json"), document.to_string()).unwrap();
    link_commands(home.path()).unwrap();
    let names: Vec<_> =
        fs::read_dir(home.path().join("bin")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["b"]);
    assert_eq!(
        fs::read_link(home.path().join("bin/b")).unwrap(),
        Path::new("../package/lib/cli.js")
    );
}
