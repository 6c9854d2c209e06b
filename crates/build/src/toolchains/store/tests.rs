use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn put(store: &Store, text: &str, compiled: &str) -> Kept {
    let part = store.folder.join(".part");
    fs::create_dir_all(part.join("bin/__pycache__")).unwrap();
    fs::write(part.join("bin/x"), text).unwrap();
    fs::write(part.join("bin/__pycache__/x.pyc"), compiled).unwrap();
    let made = Made { source: Some(text.to_owned()), has_libraries: false };
    store.put(("x", "1.2"), made, &part, (&Proofs::default(), &|| false)).unwrap()
}

#[test]
fn a_name_pins_the_content_and_a_change_is_found() {
    let folder = tolv_testkit::Home::new();
    let store = Store::at(folder.path());
    let (one, other) = (put(&store, "one", "a"), put(&store, "other", "a"));
    assert!(one.name.starts_with("x-1.2-") && one.name != other.name);
    assert_eq!(store.kept("x").len(), 2);
    assert_eq!(put(&store, "one", "b"), one);
    let proven = |kept: &Kept| store.proven(&kept.name, &Proofs::default()).unwrap();
    assert_eq!((proven(&one), proven(&other)), (Ok(()), Ok(())));
    // A proof of another process saves a build the reading, and the run stage nothing.
    let before = |kept: &Kept| store.proven_before(&kept.name, &Proofs::default()).unwrap();
    let saved = || fs::read(store.beside(&one.name, "proof"));
    tolv_testkit::poll(std::time::Duration::from_secs(60), "a proof that is kept", || {
        assert_eq!(before(&one), Ok(()));
        saved().ok()
    });
    fs::remove_file(store.beside(&one.name, "entries")).unwrap();
    assert_eq!(before(&one), Ok(()));
    assert!(proven(&one).is_err());
    fs::remove_file(store.beside(&one.name, "json")).unwrap();
    assert_eq!(put(&store, "one", "a"), one);

    let path = one.folder.join("bin/x");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, "eno").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    assert!(proven(&one).unwrap_err().contains("`bin/x`"));
    // Made again, it is what it was.
    assert_eq!(put(&store, "one", "a"), one);
    assert_eq!(proven(&one), Ok(()));
    // A list of files that was changed with them is none.
    let list = store.beside(&other.name, "entries");
    fs::copy(store.beside(&one.name, "entries"), &list).unwrap();
    assert!(proven(&other).unwrap_err().contains("no list"));
}

#[test]
fn a_tree_that_was_put_there_is_told_from_one_that_was_made() {
    let folder = tolv_testkit::Home::new();
    let (store, other) =
        (Store::at(&folder.path().join("one")), Store::at(&folder.path().join("other")));
    let kept = put(&store, "one", "a");
    assert!(store.was_made_here(&kept.name));
    let copy =
        std::process::Command::new("cp").arg("-a").args([&store.folder, &other.folder]).status();
    assert!(copy.unwrap().success());
    assert!(other.get(&kept.name).is_some() && !other.was_made_here(&kept.name));
    assert!(!store.was_made_here("x-1.2-none"));
}

#[test]
fn a_wish_gets_what_it_got_before() {
    let folder = tolv_testkit::Home::new();
    let store = Store::at(folder.path());
    let (one, other) = (put(&store, "one", ""), put(&store, "other", ""));
    let long = "x ".repeat(500);
    for wish in ["x", long.as_str()] {
        assert_eq!(store.chosen(wish), None);
        store.choose(wish, &one).unwrap();
        assert_eq!(store.chosen(wish), Some(one.clone()));
    }
    store.choose("x", &other).unwrap();
    assert_eq!(store.chosen("x"), Some(other.clone()));
    store.forget(&other.name).unwrap();
    assert_eq!(store.chosen("x"), None);
    renew_toolchains(folder.path()).unwrap();
    assert_eq!(store.chosen(&long), None);
}
