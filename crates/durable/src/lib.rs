//! Files and folders that are there whole or not at all, whatever ends this program or the machine.
//!
//! A rename is atomic for whoever looks, but not on the disk: after a power cut the new name may
//! lead to an empty file, or the old name may be back although a client was told that the change
//! was made. Whatever the platform renames into place therefore goes through here. The content
//! reaches the disk before the name changes, and the name before the caller goes on.

#![warn(missing_docs)]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes a file of this mode, in place of one that is there.
///
/// The content is written beside it first, under a name that begins with a dot and is removed when
/// a step fails. Who reads the file meanwhile, and who finds it after a crash, sees the one before
/// or the new one.
///
/// # Errors
///
/// The file system's; what was there stays.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let aside = aside(path)?;
    let written = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(bytes)?;
        // By name and not by umask: it says who else may read the file.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    written().inspect_err(|_| {
        // The first error is the one to tell.
        fs::remove_file(&aside).ok();
    })?;
    sync_folder_of(path)
}

/// The most that [`read()`] reads.
const MAX_READ: u64 = 64 << 20;

/// Reads a file that [`write()`] wrote. Anything else in its place is not opened: a pipe would block
/// until somebody writes to it, and a link leads elsewhere.
///
/// # Errors
///
/// The file system's; [`io::ErrorKind::InvalidData`] where it is no regular file, or larger than
/// 64 MiB.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    use rustix::fs::{FileType, Mode, OFlags, fstat, open};
    // This opens the name alone: nothing waits, and no link is followed.
    let name = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&name)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not a regular file"));
    }
    let file = File::open(format!("/proc/self/fd/{}", name.as_raw_fd()))?;
    let mut bytes = Vec::new();
    file.take(MAX_READ + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > MAX_READ {
        true => Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 64 MiB")),
        false => Ok(bytes),
    }
}

/// Makes a symbolic link, in place of a file or link that is there.
///
/// # Errors
///
/// The file system's; what was there stays.
pub fn link(path: &Path, target: &Path) -> io::Result<()> {
    let aside = aside(path)?;
    let made = || {
        std::os::unix::fs::symlink(target, &aside)?;
        fs::rename(&aside, path)
    };
    made().inspect_err(|_| {
        fs::remove_file(&aside).ok();
    })?;
    sync_folder_of(path)
}

/// Moves a folder with all that is in it to a name on the same file system where there is nothing.
///
/// The whole file system is written out first (`syncfs`): one call for any number of files.
///
/// # Errors
///
/// The file system's; the folder stays where it is then.
pub fn move_folder(from: &Path, to: &Path) -> io::Result<()> {
    sync_tree(from)?;
    fs::rename(from, to)?;
    sync_folder_of(to)
}

/// Waits until everything in a folder and below it is on the disk, with whatever else its file
/// system has to write.
///
/// # Errors
///
/// The file system's.
pub fn sync_tree(folder: &Path) -> io::Result<()> {
    rustix::fs::syncfs(File::open(folder)?)?;
    Ok(())
}

/// Waits until the names in the folder of `path` are on the disk.
///
/// # Errors
///
/// The file system's.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Removes what programs that were killed in [`write()`] or [`link()`] have left in a folder. To be called
/// before this program writes there itself: its number may have been another's, as 1 is in every
/// container.
///
/// # Errors
///
/// The file system's; a folder that is not there has nothing in it.
pub fn sweep(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(writer_of) else { continue };
        let is_over = pid == std::process::id() || !Path::new(&format!("/proc/{pid}")).exists();
        if is_over && !entry.file_type()?.is_dir() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whose a name is, if it is one that [`aside`] makes.
fn writer_of(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix('.')?.rsplitn(3, '.');
    let number = |text: &str| text.parse::<u64>().ok();
    number(parts.next()?)?;
    let pid = parts.next()?.parse().ok()?;
    parts.next().filter(|name| !name.is_empty()).map(|_| pid)
}

/// A name beside `path` that nobody else uses: of this process, and of this call.
fn aside(path: &Path) -> io::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a name")
    })?;
    let mut aside = OsString::from(".");
    aside.push(name);
    aside.push(format!(".{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(aside))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_file_takes_the_place_of_the_one_before_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write(&path, b"one", 0o644).unwrap();
        write(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        link(&path, Path::new("elsewhere")).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("elsewhere"));
        assert_eq!(names(dir.path()), ["key"]);
    }

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder");
        fs::create_dir_all(path.join("full")).unwrap();
        write(&path, b"text", 0o600).unwrap_err();
        link(&path, Path::new("elsewhere")).unwrap_err();
        assert_eq!(names(dir.path()), ["folder"]);
        assert_eq!(names(&path), ["full"]);
    }

    #[test]
    fn what_killed_programs_have_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let own = std::process::id();
        // No number of a process is as large.
        let left = [".key.4294967295.0".to_owned(), format!(".a.b.{own}.12")];
        let mut kept = vec![
            ".gitignore".to_owned(),
            "key".to_owned(),
            "key.4294967295.0".to_owned(),
            ".4294967295.0".to_owned(),
            ".key.4294967295.x".to_owned(),
            // Of a program that goes on.
            format!(".key.{}.0", std::os::unix::process::parent_id()),
        ];
        for name in left.iter().chain(&kept) {
            fs::write(at(name), "half").unwrap();
        }
        std::os::unix::fs::symlink("key", at(".link.4294967295.1")).unwrap();
        fs::create_dir(at(".folder.4294967295.2")).unwrap();
        kept.push(".folder.4294967295.2".to_owned());
        sweep(dir.path()).unwrap();
        sweep(&at("nowhere")).unwrap();
        let mut found = names(dir.path());
        found.sort();
        kept.sort();
        assert_eq!(found, kept.into_iter().map(OsString::from).collect::<Vec<_>>());
    }

    #[test]
    fn a_folder_is_moved_only_to_where_nothing_is() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(&from).unwrap();
        fs::write(from.join("file"), "text").unwrap();
        move_folder(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("file")).unwrap(), b"text");
        fs::create_dir_all(from.join("again")).unwrap();
        move_folder(&from, &to).unwrap_err();
        assert_eq!(names(&from), ["again"]);
    }
}
