use super::*;

#[test]
fn the_second_comer_is_told_who_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join(".tolv");
    let mut first = Home::open(&root).unwrap();
    first.sign("pid 4711, http://shop.localhost:8080").unwrap();
    let second = Home::open(&root).unwrap_err().to_string();
    assert_eq!(second, "another `tolv` has the state folder: pid 4711, http://shop.localhost:8080");
    drop(first);
    Home::open(&root).unwrap();
    assert_eq!(fs::read_to_string(root.join(".gitignore")).unwrap(), "*\n");
}

#[test]
fn a_file_in_its_place_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("file");
    fs::write(&root, "").unwrap();
    let error = Home::open(&root).unwrap_err().to_string();
    assert!(error.starts_with("the state folder `"), "{error}");
}
