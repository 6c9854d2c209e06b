//! The state folder, and whether it may be used: programs in it run with the user's own rights, so a
//! folder that came with a codebase must never be taken for one.
//!
//! | folder | is used when |
//! |---|---|
//! | `.tolv` in a codebase | it is missing or empty, or its mark was made with this user's key for this very folder |
//! | one that the user names (`TOLV_HOME`, that of `serve`) | it is missing or empty, or has a mark |
//!
//! Neither is used when git tracks anything in it: a pull would put programs there. The mark is a MAC
//! over the folder's inode number and its time of birth, so a codebase that is moved on its file
//! system keeps its state, and a copy of the folder, or a clone, has none.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac as _};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, StatxFlags, flock, statx};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::Sha256;

use crate::files;

mod index;
mod tighten;

/// The name of the state folder in a codebase.
const NAME: &str = ".tolv";
/// The file with the mark, in the state folder.
const MARK: &str = "tolv-state";
/// Its first line.
const TITLE: &str = "state folder of tolv";
/// Most bytes of a mark or a key that are read.
const MAX_BYTES: u64 = 512;
/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// What is in a folder that is as good as empty: the root of a file system, and a start that was cut off.
const NOTHING: [&str; 3] = ["lost+found", ".gitignore", MARK];

/// Why a folder is not used for state.
#[derive(Debug, thiserror::Error)]
pub enum StateFolderError {
    /// The folder, or a file in it, cannot be made or read.
    #[error("the state folder `{path}` cannot be used")]
    Unusable {
        /// What was touched.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A link in the codebase.
    #[error("the state folder `{path}` is a symbolic link: what it leads to is not touched")]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// It is not this user's work.
    #[error(
        "the state folder `{path}` was not made by you: whatever came with the codebase in it would \
         run with your rights"
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Whether there is a key to tell.
        has_key: bool,
    },
    /// Git tracks files in it.
    #[error(
        "git tracks `{file}` in the state folder `{path}`: what others commit there would run with \
         your rights"
    )]
    Tracked {
        /// The folder.
        path: PathBuf,
        /// The first of the files, from the root of its repository.
        file: String,
    },
    /// Something else is in it.
    #[error("the folder `{path}` is not empty and is no state folder of tolv")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
}

impl StateFolderError {
    /// What to do.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Unusable { .. } => return None,
            Self::Link { path } => format!(
                "remove the link, or name its target yourself: TOLV_HOME={}",
                fs::canonicalize(path).unwrap_or_else(|_| "FOLDER".into()).display()
            ),
            Self::Foreign { path, has_key: true } => format!(
                "remove it (rm -r {0}); if you copied it, or another user made it for you, name it \
                 once: TOLV_HOME={0}",
                path.display()
            ),
            Self::Foreign { path, has_key: false } => format!(
                "there is no place for the key by which tolv knows its folders: set HOME or \
                 XDG_STATE_HOME; or name the folder yourself: TOLV_HOME={}",
                path.display()
            ),
            Self::Tracked { path, .. } => format!(
                "remove it from the repository and from the disk: git rm -r --cached {0}; rm -r {0}",
                path.display()
            ),
            Self::NotEmpty { .. } => "name a new or an empty folder: TOLV_HOME=FOLDER".to_owned(),
        })
    }
}

/// Where state is to be kept, before anything in it is read.
#[derive(Clone, Debug)]
pub struct StateFolder {
    path: PathBuf,
    /// The user named it; it does not merely lie in a codebase.
    is_named: bool,
    /// Where the user's key may be: the first place that works is taken.
    keys: Vec<PathBuf>,
}

/// What was found out about a folder.
enum Found {
    /// It is not there.
    Missing,
    /// It has nothing that could be trusted.
    Empty(Folder),
    /// It has state, and whether its mark is good for this user.
    State(Folder, bool),
}

/// A folder that is open and locked while it is looked at.
struct Folder {
    real: PathBuf,
    /// Held against another tolv that makes it at the same time.
    _open: File,
    identity: Vec<u8>,
}

impl StateFolder {
    /// That of a codebase. `keys` are the places of the user's key, outside of every codebase.
    pub fn in_codebase(codebase: &Path, keys: Vec<PathBuf>) -> Self {
        Self { path: codebase.join(NAME), is_named: false, keys }
    }

    /// One that the user names.
    pub fn named(path: PathBuf, keys: Vec<PathBuf>) -> Self {
        Self { path, is_named: true, keys }
    }

    /// Where it is, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there and may be used; nothing is changed.
    pub fn is_usable(&self) -> bool {
        matches!(self.look(false), Ok(Found::State(..)))
    }

    /// Refuses a folder that may not be used; a missing one is fine. Nothing is changed.
    ///
    /// # Errors
    ///
    /// As [`StateFolder::claim`].
    pub fn check(&self) -> Result<(), StateFolderError> {
        self.look(false).map(drop)
    }

    /// Makes the folder where it is missing, or checks it; gives its path, absolute and without links.
    /// It is its owner's alone from here on, and ignored by git.
    ///
    /// # Errors
    ///
    /// Every variant of [`StateFolderError`].
    pub fn claim(&self) -> Result<PathBuf, StateFolderError> {
        let found = match self.look(true)? {
            Found::Missing => {
                let made =
                    DirBuilder::new().recursive(self.is_named).mode(0o700).create(&self.path);
                match made {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(self.unusable(error));
                    }
                    _ => self.look(true)?,
                }
            }
            found => found,
        };
        let (folder, is_new) = match found {
            Found::Missing => return Err(self.unusable(io::ErrorKind::NotFound.into())),
            Found::Empty(folder) => (folder, true),
            Found::State(folder, true) => return self.tightened(&folder),
            // A disk that takes no writer takes no mark.
            Found::State(folder, false) => (folder, false),
        };
        let real = self.tightened(&folder)?;
        let key = self.key(true);
        let mac = key.map(|key| hex(&mac(&key, &folder.identity).finalize().into_bytes()));
        let mark = format!("{TITLE}\n{}\n", mac.clone().unwrap_or_default());
        let marked = tolv_durable::write(&real.join(MARK), mark.as_bytes(), 0o600);
        let ignored = || match is_new {
            true => tolv_durable::write(&real.join(".gitignore"), b"*\n", 0o600),
            false => Ok(()),
        };
        match marked.and_then(|()| ignored()) {
            Err(error) if is_new => Err(self.unusable(error)),
            _ => Ok(real),
        }
    }

    fn unusable(&self, source: io::Error) -> StateFolderError {
        StateFolderError::Unusable { path: self.path.clone(), source }
    }

    fn tightened(&self, folder: &Folder) -> Result<PathBuf, StateFolderError> {
        tighten::tighten(&folder.real).map_err(|error| self.unusable(error))?;
        Ok(folder.real.clone())
    }

    /// Looks at what is there; `locks` waits for another one that is making it.
    fn look(&self, locks: bool) -> Result<Found, StateFolderError> {
        let unusable = |error| self.unusable(error);
        match self.path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
            Err(error) => return Err(unusable(error)),
            Ok(meta) if meta.is_symlink() && !self.is_named => {
                return Err(StateFolderError::Link { path: self.path.clone() });
            }
            Ok(_) => {}
        }
        let real = self.path.canonicalize().map_err(unusable)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = rustix::fs::open(&real, flags, Mode::empty());
        let open = File::from(open.map_err(|error| unusable(error.into()))?);
        let meta = open.metadata().map_err(unusable)?;
        if !self.is_named && meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(StateFolderError::Foreign { path: real, has_key: true });
        }
        if locks {
            // Where the file system has no locks, two first starts at once may see each other.
            flock(&open, FlockOperation::LockExclusive).ok();
        }
        if let Some(file) = index::tracked(&real).map_err(unusable)? {
            return Err(StateFolderError::Tracked { path: real, file });
        }
        let identity = identity(&open).map_err(unusable)?;
        let folder = Folder { real, _open: open, identity };
        let mut is_empty = true;
        for entry in fs::read_dir(&folder.real).map_err(unusable)? {
            let name = entry.map_err(unusable)?.file_name();
            let name = name.to_string_lossy();
            // A key that was put back from a backup, for a database elsewhere.
            let is_key = self.is_named && name == "secret-key";
            let is_nothing =
                is_key || NOTHING.contains(&&*name) || name.starts_with(&format!(".{MARK}"));
            is_empty &= is_nothing;
            if !is_empty {
                break;
            }
        }
        if is_empty {
            return Ok(Found::Empty(folder));
        }
        let mark = read_small(&folder.real.join(MARK)).unwrap_or_default();
        let mark = std::str::from_utf8(&mark).unwrap_or_default();
        let mac_of_mark = mark.strip_prefix(TITLE).and_then(|rest| unhex(rest.trim()));
        let key = self.key(false);
        let is_ours = key.is_some_and(|key| {
            mac_of_mark.is_some_and(|code| mac(&key, &folder.identity).verify_slice(&code).is_ok())
        });
        match (is_ours, self.is_named) {
            (true, _) => Ok(Found::State(folder, true)),
            (false, true) if mark.starts_with(TITLE) => Ok(Found::State(folder, false)),
            (false, true) => Err(StateFolderError::NotEmpty { path: folder.real }),
            (false, false) => {
                let has_key = key.is_some() || self.key(true).is_some();
                Err(StateFolderError::Foreign { path: folder.real, has_key })
            }
        }
    }

    /// The user's key, from the first place that has one; `make` makes it in the first place that
    /// takes it.
    fn key(&self, make: bool) -> Option<[u8; KEY_BYTES]> {
        let known = self.keys.iter().find_map(|place| read_key(place));
        known.or_else(|| self.keys.iter().filter(|_| make).find_map(|place| make_key(place)))
    }
}

/// What tells a folder from every other: its inode, and when that was made. The device has another
/// number after a restart of the machine.
pub(crate) fn identity(folder: impl AsFd) -> io::Result<Vec<u8>> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let stat = statx(folder, "", AtFlags::EMPTY_PATH, wanted)?;
    let mut identity = stat.stx_ino.to_be_bytes().to_vec();
    if StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME) {
        identity.extend(stat.stx_btime.tv_sec.to_be_bytes());
        identity.extend(stat.stx_btime.tv_nsec.to_be_bytes());
    }
    Ok(identity)
}

fn mac(key: &[u8; KEY_BYTES], identity: &[u8]) -> Hmac<Sha256> {
    let mut block = [0; 64];
    block[..KEY_BYTES].copy_from_slice(key);
    <Hmac<Sha256> as hmac::Mac>::new(&block.into())
        .chain_update(b"tolv state folder\0")
        .chain_update(identity)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<_>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() == 64)?;
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
}

/// A small regular file; a link or a pipe in its place is none.
fn read_small(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    files::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The key in a file that is this user's, and that nobody else can read.
fn read_key(path: &Path) -> Option<[u8; KEY_BYTES]> {
    let file = files::open(path).ok()?;
    let meta = file.metadata().ok()?;
    if meta.uid() != rustix::process::geteuid().as_raw() || meta.permissions().mode() & 0o077 != 0 {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    bytes.try_into().ok()
}

/// Makes a key; that of another process which was quicker is taken.
fn make_key(path: &Path) -> Option<[u8; KEY_BYTES]> {
    let folder = path.parent()?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder).ok()?;
    let mut key = [0; KEY_BYTES];
    // So few bytes come at once.
    getrandom(&mut key, GetRandomFlags::empty()).ok().filter(|&count| count == KEY_BYTES)?;
    let aside = folder.join(format!(".tolv-key-{}", hex(&key[..8])));
    let made = tolv_durable::write(&aside, &key, 0o600).and_then(|()| fs::hard_link(&aside, path));
    fs::remove_file(&aside).ok();
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => None,
        _ => read_key(path),
    }
}

#[cfg(test)]
mod tests;
