//! The rights of others are taken away from a state folder.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Names of folders whose contents have modes of their own, because processes with other uids see
/// or own them.
const SHOWN: [&str; 5] = ["slugs", "toolchains", "cache", "builds", "program"];

/// Takes the rights of others away from an existing folder, and from what is in it where they could
/// reach that.
pub(super) fn tighten(root: &Path) -> io::Result<()> {
    let mode = fs::symlink_metadata(root)?.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    // First: nobody comes in any more.
    match fs::set_permissions(root, fs::Permissions::from_mode(0o700)) {
        // Somebody else's, as a volume of a container may be: what is made in it is ours alone.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        tightened => tightened?,
    }
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let meta = match entry.metadata() {
                Ok(meta) => meta,
                // Another process is at work here; its files are behind a closed door already.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let shown = entry.file_name().to_str().is_some_and(|name| SHOWN.contains(&name));
            if meta.is_dir() && !shown {
                open.push(entry.path());
            }
            let mode = meta.mode() & 0o7777;
            if !meta.is_symlink() && mode & 0o077 != 0 {
                let mode = fs::Permissions::from_mode(mode & 0o700);
                match fs::set_permissions(entry.path(), mode) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}
