//! The API of a `tolv up`: over a socket in its state folder, which only its user can open. That of a
//! `tolv serve` is there too, with what tells how the platform is and nothing else.
//!
//! An app may run as that user too, so the socket alone proves nothing: who asks has read the token
//! in a file beside it, which no sandbox shows.
//!
//! While the disk of the state folder takes no new socket, they are in a [folder aside](aside).

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tolv_model::slug::Digest;

/// What requests to the socket have for an address.
pub const URL: &str = "http://127.0.0.1";

/// The folder for the sockets of the platform with its state in `home`, while the disk of `home` takes
/// none: in memory, and its user's alone. It may not be there yet. Nothing where this machine has no
/// place for it.
pub fn aside(home: &Path) -> Option<PathBuf> {
    let home = home.canonicalize().ok()?;
    let user = fs::metadata("/proc/self").ok()?.uid();
    let base = match user {
        0 => PathBuf::from("/run"),
        user => PathBuf::from(format!("/run/user/{user}")),
    };
    // Nobody else puts anything there.
    let meta = fs::metadata(&base).ok()?;
    let is_ours = meta.is_dir() && meta.uid() == user && meta.mode() & 0o022 == 0;
    let digest = Digest::of(home.as_os_str().as_bytes()).to_string();
    is_ours.then(|| base.join(format!("tolv-{}", &digest[..16])))
}

/// Makes that folder, and gives it.
///
/// # Errors
///
/// There is no place for it, or it cannot be made.
pub fn make_aside(home: &Path) -> io::Result<PathBuf> {
    let folder = aside(home).ok_or(io::ErrorKind::NotFound)?;
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => fs::set_permissions(&folder, Permissions::from_mode(0o700))?,
    }
    Ok(folder)
}

/// Where the socket and the token of the platform with its state in `home` may be.
pub fn folders(home: &Path) -> impl Iterator<Item = PathBuf> {
    [home.to_owned()].into_iter().chain(aside(home))
}

/// The one of them with the socket of a platform that runs.
pub fn reachable(home: &Path) -> Option<PathBuf> {
    folders(home).find(|folder| connect(&socket(folder)).is_ok())
}

/// Where the socket is, below the state folder.
pub fn socket(home: &Path) -> PathBuf {
    home.join("api/socket")
}

/// Where the token is, below the state folder.
fn token_file(home: &Path) -> PathBuf {
    home.join("api/token")
}

/// The token of the platform that has its state there; nothing where none has run.
pub fn token(home: &Path) -> Option<String> {
    fs::read_to_string(token_file(home)).ok()
}

/// Puts a new token in the place of an earlier one. Its folder exists.
///
/// # Errors
///
/// The system's.
pub fn write_token(home: &Path, token: &str) -> io::Result<()> {
    let path = token_file(home);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // New, so that nobody holds it open and its mode is this one.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    file?.write_all(token.as_bytes())
}

/// The path of a socket, however deep its folder is: the address of one has room for 107 bytes.
#[derive(Debug)]
pub struct Address {
    /// It is reached through this.
    _folder: File,
    path: PathBuf,
}

impl Address {
    /// Looks at the folder of the socket.
    ///
    /// # Errors
    ///
    /// The folder cannot be opened.
    pub fn of(socket: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let folder = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Self { _folder: folder, path })
    }

    /// What to bind or connect to, while this lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Connects to the platform that has a socket there.
///
/// # Errors
///
/// None runs.
pub fn connect(socket: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(Address::of(socket)?.path())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_socket_is_reached_however_deep_it_lies() {
        let home = tempfile::tempdir().unwrap();
        let mut deep = home.path().to_owned();
        for _ in 0..8 {
            deep.push("a".repeat(50));
        }
        let path = socket(&deep);
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let address = Address::of(&path).unwrap();
        let listener = UnixListener::bind(address.path()).unwrap();
        connect(&path).unwrap();
        drop(listener);
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
