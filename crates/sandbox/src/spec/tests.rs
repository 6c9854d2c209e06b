use std::path::Path;

use super::*;

#[test]
fn the_deepest_mount_gives_the_view() {
    let mounts =
        [Mount::read_only("/home/slugs/x", "/app"), Mount::read_write("/home/cache", "/app/cache")];
    let seen = |target: &str| view(Level::Landlock, &mounts, Path::new(target));
    assert_eq!(seen("/app"), Path::new("/home/slugs/x"));
    assert_eq!(seen("/app/bin/web"), Path::new("/home/slugs/x/bin/web"));
    assert_eq!(seen("/app/cache/a"), Path::new("/home/cache/a"));
    assert_eq!(seen("/apple"), Path::new("/apple"));
    assert_eq!(view(Level::Strict, &mounts, Path::new("/app/x")), Path::new("/app/x"));
}

#[test]
fn uids_are_stable_and_in_their_range() {
    assert_eq!(uid_of("shop/production"), uid_of("shop/production"));
    assert_ne!(uid_of("shop/production"), uid_of("shop/staging"));
    for n in 0..2000 {
        let uid = uid_of(&format!("app{n}"));
        assert!((FIRST_UID..FIRST_UID + UIDS).contains(&uid), "{uid}");
    }
}

#[test]
fn odd_targets_are_refused() {
    for good in ["/app", "/app/x", "/layers/abc"] {
        assert!(is_plain_target(Path::new(good)), "{good}");
    }
    for bad in ["", "/", "app", "/app/../etc", "./x", "/.."] {
        assert!(!is_plain_target(Path::new(bad)), "{bad}");
    }
}
