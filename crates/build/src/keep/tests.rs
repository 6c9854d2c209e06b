use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use tolv_model::slug::Entry;

use super::*;

/// A slug of one file, as a build would leave it.
fn slug(home: &Path, text: &str) -> SlugId {
    slug_on(home, text, Vec::new())
}

fn slug_on(home: &Path, text: &str, toolchains: Vec<Toolchain>) -> SlugId {
    let digest = Digest::of(text.as_bytes());
    let entry = Entry::File { digest, size: text.len() as u64, executable: false };
    let manifest = Manifest {
        entries: vec![(b"file".to_vec(), entry)],
        layers: Vec::new(),
        toolchains,
        process_types: Default::default(),
        env: Default::default(),
        path: Vec::new(),
        declared: Default::default(),
        profile: Vec::new(),
        build_config: std::collections::BTreeMap::new(),
        buildpacks: Vec::new(),
        stack: None,
    };
    let app = home.join("app");
    fs::create_dir_all(&app).unwrap();
    fs::write(app.join("file"), text).unwrap();
    fs::set_permissions(app.join("file"), fs::Permissions::from_mode(0o644)).unwrap();
    Slugs::open(home).unwrap().put(&app, &manifest, &Proofs::default()).unwrap()
}

fn file(home: &Path, id: SlugId) -> PathBuf {
    home.join("slugs").join(id.0.to_string()).join("file")
}

#[test]
fn a_slug_is_proven_to_the_last_byte() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let id = slug(home, "content");
    verify(&Places::below(home), id, &Proofs::default()).unwrap();
    let path = file(home, id);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    // The same length: only the bytes tell.
    fs::write(&path, "c0ntent").unwrap();
    assert!(
        verify(&Places::below(home), id, &Proofs::default())
            .unwrap_err()
            .to_string()
            .contains("differs at `file`")
    );
    fs::remove_file(&path).unwrap();
    assert!(
        verify(&Places::below(home), id, &Proofs::default())
            .unwrap_err()
            .to_string()
            .contains("differs at `file`")
    );
    let other = SlugId(Digest::of(b"other"));
    assert!(
        verify(&Places::below(home), other, &Proofs::default())
            .unwrap_err()
            .to_string()
            .contains("is not here")
    );
}

#[test]
fn a_toolchain_is_proven_to_the_last_byte() {
    let home = tempfile::tempdir().unwrap();
    let (home, toolchains) = (home.path(), home.path().join("toolchains"));
    let part = toolchains.join(".part");
    fs::create_dir_all(&part).unwrap();
    fs::write(part.join("program"), "content").unwrap();
    let name = Store::at(&toolchains).keep_test(("python", "3.99.1"), &part);
    let program = toolchains.join(&name).join("program");
    let of = |name: &str| Toolchain { name: name.to_owned(), target: b"/toolchains/x".to_vec() };
    let (id, platform) =
        (slug_on(home, "a", vec![of(&name)]), slug_on(home, "b", vec![of(Toolchain::PLATFORM)]));
    let places = Places { toolchains: toolchains.clone(), ..Places::below(home) };
    let verify = |id| verify(&places, id, &Proofs::default());
    verify(id).unwrap();
    verify(platform).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&program, "c0ntent").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o444)).unwrap();
    let error = verify(id).unwrap_err();
    assert!(error.to_string().contains("it differs at `program`"), "{error}");
    assert!(error.help().unwrap().contains("deploy the commit again"), "{error:?}");
    for (bad, why) in [("python-3.99.1-000000000000", "is not here"), ("../x", "is not here")] {
        let error = verify(slug_on(home, bad, vec![of(bad)])).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn what_nobody_keeps_goes_and_what_is_young_stays() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (kept, gone) = (slug(home, "kept"), slug(home, "gone"));
    let slugs = Slugs::open(home).unwrap();
    slugs.remember(&Digest::of(b"input"), gone).unwrap();
    let hour = Duration::from_secs(3600);
    let keep = [kept].into();
    assert_eq!(collect(home, &keep, hour).unwrap(), Collected::default());
    let collected = collect(home, &keep, Duration::ZERO).unwrap();
    assert_eq!(collected, Collected { slugs: 1, layers: 0 });
    assert!(
        verify(&Places::below(home), kept, &Proofs::default()).is_ok()
            && verify(&Places::below(home), gone, &Proofs::default()).is_err()
    );
    assert!(!file(home, gone).exists());
    assert_eq!(slugs.known(&Digest::of(b"input"), &Proofs::default()).unwrap(), None);
    assert_eq!(digests(&home.join("slugs/known"), "").unwrap().len(), 0);
    // Interrupted behind the manifest: the rest goes the next time.
    let half = slug(home, "half");
    fs::remove_file(home.join("slugs").join(format!("{}.json", half.0))).unwrap();
    assert_eq!(collect(home, &keep, Duration::ZERO).unwrap().slugs, 1);
    assert!(!file(home, half).exists());
    assert!(usage(home).unwrap().slugs > 0);
}
