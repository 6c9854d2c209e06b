//! The API of a `tolv up`: over a socket in its state folder, which only its user can open. That of a
//! `tolv serve` is there too, with what tells how the platform is and nothing else.
//!
//! An app may run as that user too, so the socket alone proves nothing: who asks has read the token
//! in a file beside it, which no sandbox shows.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What requests to the socket have for an address.
pub const URL: &str = "http://127.0.0.1";

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
