//! The API of a `tolv up`: over a socket in its state folder, which only its user can open, and
//! which is all the proof of who asks that there is.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What requests to the socket have for an address.
pub const URL: &str = "http://127.0.0.1";

/// Where the socket is, below the state folder.
pub fn socket(home: &Path) -> PathBuf {
    home.join("api/socket")
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

/// Connects to the `tolv up` that has a socket there.
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
