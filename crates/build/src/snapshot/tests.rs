use std::fs::File;
use std::os::unix::fs::symlink;

use tolv_testkit::Home;

use super::*;

fn listing(root: &Path, paths: &[&[u8]]) -> Listing {
    Listing {
        root: root.to_owned(),
        paths: paths.iter().map(|path| (path.to_vec(), true)).collect(),
        commit: None,
        warnings: Vec::new(),
    }
}

fn taken(root: &Path, paths: &[&[u8]]) -> Result<Tree, Error> {
    take(&listing(root, paths), &Caps::default(), &|| false)
}

fn refusal(root: &Path, paths: &[&[u8]], caps: Caps) -> String {
    take(&listing(root, paths), &caps, &|| false).unwrap_err().to_string()
}

#[test]
fn files_and_links_are_taken_as_they_are() {
    let home = Home::new();
    home.write("web", "run me");
    files::set_mode(&home.path().join("web"), 0o700).unwrap();
    home.write("lib/a", "");
    symlink("lib", home.path().join("link")).unwrap();
    let tree = taken(home.path(), &[b"web", b"lib/a", b"link"]).unwrap();
    let entries: Vec<_> = tree.entries().iter().collect();
    let file = |bytes: &[u8], executable| Entry::File {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        executable,
    };
    assert_eq!(
        entries,
        [
            (&b"lib/a".to_vec(), &file(b"", false)),
            (&b"link".to_vec(), &Entry::Symlink { target: b"lib".to_vec() }),
            (&b"web".to_vec(), &file(b"run me", true)),
        ]
    );
}

#[test]
fn the_digest_is_of_contents_and_not_of_times_and_modes() {
    let home = Home::new();
    let path = home.write("web", "one");
    let digest_now = || digest(&taken(home.path(), &[b"web"]).unwrap());
    let before = digest_now();
    File::options().append(true).open(&path).unwrap().set_modified(UNIX_EPOCH).unwrap();
    files::set_mode(&path, 0o666).unwrap();
    assert_eq!(digest_now(), before);
    files::set_mode(&path, 0o755).unwrap();
    assert_ne!(digest_now(), before);
    files::set_mode(&path, 0o644).unwrap();
    home.write("web", "two");
    assert_ne!(digest_now(), before);
}

#[test]
fn every_limit_is_named() {
    let home = Home::new();
    home.write("small", "x");
    home.write("big\n.bin", vec![0; 3 << 10]);
    let all: [&[u8]; 2] = [b"small", b"big\n.bin"];
    let caps = Caps::default();
    assert_eq!(
        refusal(home.path(), &all, Caps { file: 2 << 10, ..caps }),
        "the file `big\\n.bin` with 3 KiB is over the limit of 2 KiB"
    );
    assert_eq!(
        refusal(home.path(), &all, Caps { slug: 2 << 10, ..caps }),
        "the codebase is over the limit of 2 KiB"
    );
    assert_eq!(
        refusal(home.path(), &all, Caps { files: 1, ..caps }),
        "the codebase's 2 files is over the limit of 1 files"
    );
}

#[test]
fn a_link_that_leaves_the_codebase_is_refused_by_name() {
    for (target, through) in [("/etc/passwd", "x"), ("../x", "x"), ("up/x", "../..")] {
        let home = Home::new();
        symlink(target, home.path().join("link")).unwrap();
        symlink(through, home.path().join("up")).unwrap();
        let error = refusal(home.path(), &[b"link", b"up"], Caps::default());
        assert!(error.starts_with("the link `link` leaves the codebase"), "{error}");
        assert!(error.contains(target) && error.contains(".slugignore"), "{error}");
    }
}

#[test]
fn what_is_neither_file_nor_link_is_refused_by_name() {
    let home = Home::new();
    let _socket = std::os::unix::net::UnixListener::bind(home.path().join("web.sock")).unwrap();
    let error = refusal(home.path(), &[b"web.sock"], Caps::default());
    assert!(error.starts_with("`web.sock` is a socket"), "{error}");
    fs::create_dir(home.path().join("lib")).unwrap();
    let error = refusal(home.path(), &[b"lib"], Caps::default());
    assert!(error.starts_with("`lib` is a folder where git has a file"), "{error}");
}

#[test]
fn taking_can_be_cancelled() {
    let home = Home::new();
    home.write("a", "");
    let taken = take(&listing(home.path(), &[b"a"]), &Caps::default(), &|| true);
    assert!(matches!(taken, Err(Error::Cancelled)));
}

#[test]
fn a_stamp_is_kept_while_its_file_is_the_same() {
    let home = Home::new();
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    home.write("same", "1");
    home.write("other", "1");
    let all: [&[u8]; 2] = [b"same", b"other"];
    let first = Stamps::default().update(&taken(home.path(), &all).unwrap(), at(100));
    let path = home.path().join("stamps.json");
    first.save(&path).unwrap();
    home.write("other", "2");
    let second = Stamps::load(&path).update(&taken(home.path(), &all).unwrap(), at(200));
    assert_eq!(second.of(b"same"), Some(at(100)));
    assert_eq!(second.of(b"other"), Some(at(200)));
    assert_eq!(second.of(b"gone"), None);
    home.write("stamps.json", "not JSON");
    let third = Stamps::load(&path).update(&taken(home.path(), &all).unwrap(), at(300));
    assert_eq!(third.of(b"same"), Some(at(300)));
}

#[test]
fn the_copy_has_contents_modes_and_stamps() {
    let (home, to) = (Home::new(), Home::new());
    let to = to.path().join("app");
    home.write("lib/deep/a", "text");
    files::set_mode(&home.path().join("lib/deep/a"), 0o400).unwrap();
    home.write("web", "#!/bin/sh\n");
    files::set_mode(&home.path().join("web"), 0o700).unwrap();
    symlink("lib", home.path().join("link")).unwrap();
    home.write("not listed", "");
    let tree = taken(home.path(), &[b"lib/deep/a", b"web", b"link"]).unwrap();
    let time = UNIX_EPOCH + Duration::from_secs(1_000_000);
    place(&tree, &to, &Stamps::default().update(&tree, time)).unwrap();
    let meta = |path: &str| to.join(path).symlink_metadata().unwrap();
    let mode = |path| std::os::unix::fs::PermissionsExt::mode(&meta(path).permissions()) & 0o777;
    assert_eq!((mode("lib/deep/a"), mode("web")), (0o644, 0o755));
    assert_eq!(meta("lib/deep/a").modified().unwrap(), time);
    assert_eq!(fs::read(to.join("lib/deep/a")).unwrap(), b"text");
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("lib"));
    assert!(!to.join("not listed").exists());
}

#[test]
fn a_file_that_changes_meanwhile_is_an_error() {
    let (home, to) = (Home::new(), Home::new());
    home.write("web", "one");
    let tree = taken(home.path(), &[b"web"]).unwrap();
    home.write("web", "two");
    let error = place(&tree, &to.path().join("app"), &Stamps::default()).unwrap_err();
    assert_eq!(error.to_string(), "`web` changed while it was read; build again");
}
