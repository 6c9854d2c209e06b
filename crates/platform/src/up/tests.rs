use super::*;

#[test]
fn an_error_and_its_causes_are_one_line_without_repeats() {
    let address = SocketAddr::from(([127, 0, 0, 1], 80));
    let source = io::Error::other("not today");
    let error = Error::Listen(ListenError::Asked { address, source });
    assert_eq!(chain(&error), "cannot listen on 127.0.0.1:80: not today");
    let plain = Error::Run(tolv_run::Error::NoPort);
    assert_eq!(chain(&plain), plain.to_string());
}

#[test]
fn the_folder_must_be_one_that_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    assert_eq!(folder(dir.path()).unwrap(), root);
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file, dir.path().join("none")] {
        match folder(&path) {
            Err(Error::Dir { path: named, .. }) => assert_eq!(named, path),
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
fn releases_with_the_same_slug_config_and_formation_are_the_same() {
    let slug = |text: &[u8]| tolv_model::slug::SlugId(tolv_model::slug::Digest::of(text));
    let one = Release {
        deploy: Deploy { app: "shop".parse().unwrap(), name: DeployName::local() },
        number: ReleaseNumber(1),
        slug: slug(b"one"),
        commit: None,
        config: Env::default(),
        process_types: [(ProcessType::web(), "serve".to_owned())].into(),
        formation: "web=1".parse().unwrap(),
    };
    let next = Release { number: ReleaseNumber(2), commit: Some("c".to_owned()), ..one.clone() };
    assert!(same(&one, &next));
    assert!(!same(&one, &Release { slug: slug(b"two"), ..one.clone() }));
    assert!(!same(&one, &Release { formation: "web=2".parse().unwrap(), ..one.clone() }));
    let mut config = Env::default();
    config.set("A".parse().unwrap(), "1").unwrap();
    assert!(!same(&one, &Release { config, ..one.clone() }));
}

#[tokio::test]
async fn a_stop_is_waited_for_by_its_level() {
    let (say, mut hear) = watch::channel(Stop::No);
    say.send(Stop::Now).unwrap();
    // More than what was waited for is enough.
    stopped(&mut hear, Stop::Gracefully).await;
    stopped(&mut hear, Stop::Now).await;
    let (say, mut hear) = watch::channel(Stop::No);
    drop(say);
    let never = tokio::time::timeout(Duration::from_millis(20), stopped(&mut hear, Stop::Now));
    assert!(never.await.is_err(), "nobody can say so any more");
}

mod config_file {
    use super::*;

    fn read(text: &str) -> Result<(Env, Vec<String>), Error> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".env"), text).unwrap();
        config(dir.path(), None)
    }

    #[test]
    fn none_is_an_empty_config_where_none_was_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(config(dir.path(), None).unwrap().0.iter().count(), 0);
        let named = dir.path().join("production.env");
        match config(dir.path(), Some(&named)) {
            Err(Error::EnvFile { path, .. }) => assert_eq!(path, named),
            other => panic!("{other:?}"),
        }
        fs::write(dir.path().join(".env"), "A=1\n").unwrap();
        fs::write(&named, "A=2\n").unwrap();
        let (config, _) = config(dir.path(), Some(&named)).unwrap();
        assert_eq!(config.get("A").unwrap().as_bytes(), b"2");
    }

    #[test]
    fn what_the_platform_sets_is_passed_over_and_said() {
        let (config, ignored) = read("PORT=5000\nA=1\nTOLV_APP=x\n").unwrap();
        let names: Vec<_> = config.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["A"]);
        assert_eq!(ignored.len(), 2);
        assert!(ignored[0].starts_with("`PORT` in `"), "{ignored:?}");
        assert!(!ignored[0].contains("5000"), "{ignored:?}");
    }

    #[test]
    fn mistakes_are_errors_without_the_value() {
        let syntax = read("A='hunter2\n").unwrap_err();
        assert!(matches!(syntax, Error::EnvSyntax(_)), "{syntax:?}");
        let large = read(&format!("A={}\n", "hunter2".repeat(20_000))).unwrap_err();
        assert!(matches!(large, Error::Config(_)), "{large:?}");
        assert!(!chain(&large).contains("hunter2"));
    }
}
