use super::*;

#[test]
fn is_gone_with_what_is_in_it() {
    let home = Home::new();
    let file = home.write("layers/python/a.py", "1");
    assert_eq!(fs::read(&file).unwrap(), b"1");
    for folder in ["layers/python", "layers"] {
        let sealed = fs::Permissions::from_mode(0o555);
        fs::set_permissions(home.path().join(folder), sealed).unwrap();
    }
    let path = home.path().to_owned();
    drop(home);
    assert!(!path.exists());
}
