use super::*;

#[test]
fn the_folder_must_be_one_that_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    assert_eq!(folder(dir.path()).unwrap(), root);
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file, dir.path().join("none")] {
        match folder(&path) {
            Err(CodebaseError::Dir { path: named, .. }) => assert_eq!(named, path),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_app_is_named_for_its_folder() {
    for (path, name) in [("/src/Guest Book", "guest-book"), ("/", "app"), ("/src/42", "app")] {
        assert_eq!(app_name(Path::new(path)).as_str(), name, "{path}");
    }
}

#[test]
fn none_is_an_empty_config_where_none_was_named() {
    let dir = tempfile::tempdir().unwrap();
    let open = |file: Option<&Path>| Codebase::open(dir.path(), file, None);
    assert_eq!(open(None).unwrap().config.iter().count(), 0);
    let named = dir.path().join("production.env");
    match open(Some(&named)) {
        Err(CodebaseError::EnvFile { path, .. }) => assert_eq!(path, named),
        other => panic!("{other:?}"),
    }
    fs::write(dir.path().join(".env"), "A=1\n").unwrap();
    fs::write(&named, "A=2\n").unwrap();
    assert_eq!(open(Some(&named)).unwrap().config.get("A").unwrap().as_bytes(), b"2");
}

fn read(text: &str) -> Result<Codebase, CodebaseError> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".env"), text).unwrap();
    Codebase::open(dir.path(), None, None)
}

#[test]
fn one_that_is_found_is_a_small_regular_file_and_one_that_is_named_may_be_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".env");
    let open = |file: Option<&Path>| Codebase::open(dir.path(), file, None);
    let cause = |file: Option<&Path>| match open(file) {
        Err(CodebaseError::EnvFile { source, .. }) => source.to_string(),
        other => panic!("{other:?}"),
    };
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert_eq!(cause(None), "it is not a regular file");
    assert_eq!(cause(Some(Path::new("/dev/zero"))), "it has more than 512 KiB");
    fs::remove_file(&path).unwrap();
    fs::File::create(&path).unwrap().set_len(3 << 30).unwrap();
    assert_eq!(cause(None), "it has more than 512 KiB");
    fs::remove_file(&path).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, 0o600.into(), 0).unwrap();
    assert_eq!(cause(None), "it is not a regular file");
    let writer = std::thread::spawn({
        let path = path.clone();
        move || fs::write(path, "A=3\n").unwrap()
    });
    assert_eq!(open(Some(&path)).unwrap().config.get("A").unwrap().as_bytes(), b"3");
    writer.join().unwrap();
}

#[test]
fn what_the_platform_sets_is_passed_over_and_said() {
    let Codebase { config, ignored, .. } = read("PORT=5000\nA=1\nTOLV_APP=x\n").unwrap();
    let names: Vec<_> = config.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["A"]);
    assert_eq!(ignored.len(), 2);
    assert!(ignored[0].starts_with("`PORT` in `"), "{ignored:?}");
    assert!(!ignored[0].contains("5000"), "{ignored:?}");
}

#[test]
fn mistakes_are_errors_without_the_value() {
    let syntax = read("A='hunter2\n").unwrap_err();
    assert!(matches!(syntax, CodebaseError::EnvSyntax(_)), "{syntax:?}");
    let large = read(&format!("A={}\n", "hunter2".repeat(20_000))).unwrap_err();
    let CodebaseError::Config(why) = large else { panic!("{large:?}") };
    assert!(!why.to_string().contains("hunter2"));
}

#[test]
fn the_file_is_the_config_and_generated_secrets_stay() {
    let codebase = read("A=1\nKEY2=mine\n").unwrap();
    let declared = tolv_model::app_json::AppJson::parse(
        br#"{"env": {"KEY": {"generator": "secret"}, "KEY2": {"generator": "secret"},
            "DEFAULT": "blue"}}"#,
    )
    .unwrap()
    .env;
    let mut before = Env::default();
    for (name, value) in
        [("A", "0"), ("GONE", "x"), ("KEY", "made"), ("KEY2", "made"), ("DEFAULT", "red")]
    {
        before.set_config(name.parse().unwrap(), value).unwrap();
    }
    let config = codebase.config(&before, &declared);
    let all: Vec<_> = config.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    assert_eq!(all, [("A", &b"1"[..]), ("KEY", b"made"), ("KEY2", b"mine")]);
}
