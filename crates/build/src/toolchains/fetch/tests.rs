use std::collections::BTreeMap;
use std::io::Write as _;

use sha2::Digest as _;

use super::*;
use crate::proof::Proofs;
use crate::toolchains::Layout;

#[test]
fn base64_as_in_the_rfc() {
    let pairs = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
    ];
    for (plain, coded) in pairs {
        assert_eq!(base64(plain.as_bytes()), coded);
    }
}

#[test]
fn digests_are_compared_whole() {
    let check = |expected: Expected, bytes: &[u8]| {
        let mut hasher = expected.hasher();
        hasher.update(bytes);
        expected.accepts(hasher)
    };
    let sha256 = format!("{:X}", Sha256::digest(b"a"));
    assert!(check(Expected::Sha256(sha256.clone()), b"a"));
    assert!(!check(Expected::Sha256(sha256), b"b"));
    assert!(check(Expected::Sha512(base64(&Sha512::digest(b"a"))), b"a"));
    assert!(!check(Expected::Sha512(String::new()), b"a"));
}

#[test]
fn an_entry_never_leaves_its_folder() {
    let folder = Path::new("/x");
    assert_eq!(inside(folder, Path::new("package/bin/node"), 1), Some("/x/bin/node".into()));
    assert_eq!(inside(folder, Path::new("./a/b"), 1), Some("/x/b".into()));
    for bad in ["../a", "a/../../b", "/etc/passwd", "package", ""] {
        assert_eq!(inside(folder, Path::new(bad), 1), None, "{bad}");
    }
}

#[test]
fn a_folder_appears_whole_or_not() {
    let home = tempfile::tempdir().unwrap();
    let env = BTreeMap::new();
    let mut chains = Toolchains {
        config: None,
        stack: None,
        folder: home.path().join("toolchains"),
        system: Vec::new(),
        proofs: &Proofs::default(),
        user_home: None,
        env: &env,
        tolv: "/bin/true".into(),
        layout: Layout::sandboxed(),
        events: &mut |_| {},
        cancelled: &|| false,
        resolver: &mut |_, _| Err(Error::Cancelled),
        require_lock: false,
        ignored: &|_| false,
    };
    let failed = chains.install(("uv", "1"), |_, folder| {
        fs::write(folder.join("half"), "x").unwrap();
        Err(Error::Cancelled)
    });
    assert!(failed.is_err());
    assert_eq!(chains.store().kept("uv"), []);
    let mut runs = 0;
    for _ in 0..2 {
        let kept = chains
            .install(("uv", "1"), |_, folder| {
                runs += 1;
                assert!(!folder.join("half").exists());
                fs::write(folder.join("uv"), "x").map_err(Error::io("write", folder))
            })
            .unwrap();
        assert!(kept.folder.join("uv").exists());
    }
    assert_eq!(runs, 1);
}

#[test]
fn archives_keep_the_executable_bit_and_drop_links() {
    let home = tempfile::tempdir().unwrap();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
        tempfile::tempfile().unwrap(),
        flate2::Compression::fast(),
    ));
    let mut add = |name: &str, mode, kind| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(2);
        header.set_entry_type(kind);
        if kind == tar::EntryType::Symlink {
            header.set_size(0);
            header.set_link_name("/etc/passwd").unwrap();
        }
        let bytes: &[u8] = if kind == tar::EntryType::Symlink { b"" } else { b"hi" };
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    add("package/bin/node", 0o755, tar::EntryType::Regular);
    add("package/README", 0o666, tar::EntryType::Regular);
    add("package/link", 0o777, tar::EntryType::Symlink);
    let mut file = tar.into_inner().unwrap().finish().unwrap();
    file.rewind().unwrap();
    untar(file, home.path()).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |name: &str| home.path().join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("bin/node"), 0o755);
    assert_eq!(mode("README"), 0o644);
    assert!(!home.path().join("link").exists());

    let mut zip = zip::ZipWriter::new(tempfile::tempfile().unwrap());
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("uv-1.data/scripts/uv", options).unwrap();
    zip.write_all(b"hello").unwrap();
    let mut file = zip.finish().unwrap();
    file.rewind().unwrap();
    unzip_one(file.try_clone().unwrap(), "/scripts/uv", &home.path().join("uv")).unwrap();
    assert_eq!(mode("uv"), 0o755);
    file.rewind().unwrap();
    assert!(unzip_one(file, "/scripts/pip", &home.path().join("pip")).is_err());
}
