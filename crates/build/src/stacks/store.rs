//! The layers and versions of stacks in one folder.
//!
//! Of a layer there are `<digest>/`, `<digest>.entries`, what is in it, `<digest>.proof`, what builds have
//! proven of it, and `<digest>.packages.json`, its record, which is written last: a folder without one is the remnant of something that was
//! ended. The digest covers the record's packages and the entries, so that a layer proves itself.
//! Of a version there is `<digest>.version.json`, by the digest of its name and layers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tolv_model::slug::{Digest, Entry};
use tolv_model::stack::{Package, StackId, StackName};

use super::Version;
use crate::Error;
use crate::files::{self, Lock};
use crate::keep::digests;
use crate::proof::{Proofs, prove, prove_kept};
use crate::seal::{self, READ_ONLY};

/// What is recorded of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Sorted by name.
    pub(crate) packages: Vec<Package>,
    pub(crate) files: u64,
    /// Bytes of its files.
    pub(crate) size: u64,
}

/// The folder.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) folder: PathBuf,
}

/// What is wrong with a layer whose record and entries do not give its digest.
const NOT_LISTED: &str = "has no list of files that is its own";

/// The digest of a layer.
fn digest(packages: &[Package], entries: &[(Vec<u8>, Entry)]) -> Digest {
    let mut hash = Sha256::new();
    let mut put = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    put(b"tolv stack layer 1");
    for package in packages {
        put(package.name.as_bytes());
        put(package.version.as_bytes());
        put(package.architecture.as_bytes());
    }
    put(&seal::content(entries.iter().map(|(path, entry)| (path, entry))).0);
    Digest(hash.finalize().into())
}

impl Store {
    pub(crate) fn path(&self, layer: &Digest) -> PathBuf {
        self.folder.join(layer.to_string())
    }

    fn entries_path(&self, layer: &Digest) -> PathBuf {
        self.folder.join(format!("{layer}.entries"))
    }

    fn proof_path(&self, layer: &Digest) -> PathBuf {
        self.folder.join(format!("{layer}.proof"))
    }

    fn record_path(&self, layer: &Digest) -> PathBuf {
        self.folder.join(format!("{layer}.packages.json"))
    }

    fn version_path(&self, id: &StackId) -> PathBuf {
        let named = format!("{} {}", id.name, id.digest());
        self.folder.join(format!("{}.version.json", Digest::of(named.as_bytes())))
    }

    /// The lock that whoever makes or removes something holds.
    pub(crate) fn lock(&self) -> PathBuf {
        self.folder.join("lock")
    }

    /// Where a layer is made, under the lock.
    pub(crate) fn making(&self, view: &str) -> PathBuf {
        self.folder.join(format!("{view}.new"))
    }

    /// Removes what was left half made, if nobody is making something.
    pub(crate) fn sweep(&self) -> Result<(), Error> {
        let Some(_held) = Lock::try_take(&self.lock())? else { return Ok(()) };
        self.sweep_held()
    }

    /// As [`Store::sweep`], by who holds the lock.
    pub(crate) fn sweep_held(&self) -> Result<(), Error> {
        tolv_durable::sweep(&self.folder).map_err(Error::io("read", &self.folder))?;
        let list = fs::read_dir(&self.folder).map_err(Error::io("read", &self.folder))?;
        for entry in list.flatten() {
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            let remnant = match name.strip_suffix(".entries").unwrap_or(name).parse::<Digest>() {
                Ok(layer) => !self.record_path(&layer).is_file(),
                Err(_) => name.ends_with(".new"),
            };
            if remnant {
                files::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// What is recorded of a layer, if it is there.
    pub(crate) fn record(&self, layer: &Digest) -> Option<Record> {
        let bytes = files::read(&self.record_path(layer)).ok()?;
        self.path(layer).is_dir().then_some(())?;
        serde_json::from_slice(&bytes).ok()
    }

    fn listed(&self, layer: &Digest) -> Option<Vec<(Vec<u8>, Entry)>> {
        let record = self.record(layer)?;
        let bytes = files::read(&self.entries_path(layer)).ok()?;
        let entries: Vec<(Vec<u8>, Entry)> = serde_json::from_slice(&bytes).ok()?;
        (digest(&record.packages, &entries) == *layer).then_some(entries)
    }

    /// Proves that a layer is what its digest says.
    ///
    /// # Errors
    ///
    /// The inner error says what is wrong with it.
    pub(crate) fn proven(
        &self,
        layer: &Digest,
        proofs: &Proofs,
    ) -> Result<Result<(), String>, Error> {
        let entries = || self.listed(layer).ok_or_else(|| NOT_LISTED.to_owned());
        prove(&self.path(layer), READ_ONLY, *layer, entries, proofs)
    }

    /// As [`Store::proven`], for builds: bytes that an earlier process has read are not read again.
    pub(crate) fn proven_kept(
        &self,
        layer: &Digest,
        proofs: &Proofs,
    ) -> Result<Result<(), String>, Error> {
        let Some(entries) = self.listed(layer) else { return Ok(Err(NOT_LISTED.to_owned())) };
        let file = self.proof_path(layer);
        prove_kept(&self.path(layer), READ_ONLY, *layer, || Ok(entries), proofs, &file)
    }

    /// Takes a layer that was made; the lock is held. One that is there already stays, unless it
    /// has changed on the disk.
    pub(crate) fn put(
        &self,
        made: &Path,
        packages: &[Package],
        entries: &[(Vec<u8>, Entry)],
        proofs: &Proofs,
    ) -> Result<Digest, Error> {
        let layer = digest(packages, entries);
        if self.record(&layer).is_some() && self.proven(&layer, proofs)?.is_ok() {
            files::remove(made)?;
            return Ok(layer);
        }
        let place = self.path(&layer);
        files::remove(&self.record_path(&layer))?;
        files::remove(&place)?;
        // Moving a folder writes its `..`, which takes write permission where root is not us.
        files::set_mode(made, 0o755)?;
        tolv_durable::move_folder(made, &place).map_err(Error::io("create", &place))?;
        seal::fix(&place, READ_ONLY)?;
        let (files, size) = seal::count(entries);
        let record = Record { packages: packages.to_vec(), files, size };
        self.write(&self.entries_path(&layer), &entries)?;
        self.write(&self.record_path(&layer), &record)?;
        Ok(layer)
    }

    fn write(&self, path: &Path, what: &impl Serialize) -> Result<(), Error> {
        let bytes = serde_json::to_vec(what).map_err(io_error(path))?;
        tolv_durable::write(path, &bytes, 0o644).map_err(Error::io("write", path))
    }

    /// Records a version; the lock is held.
    pub(crate) fn put_version(&self, version: &Version) -> Result<(), Error> {
        self.write(&self.version_path(&version.id), version)
    }

    /// Forgets a version; the lock is held.
    pub(crate) fn remove_version(&self, id: &StackId) -> Result<(), Error> {
        files::remove(&self.version_path(id))
    }

    /// The versions whose layers are all there, oldest first.
    pub(crate) fn versions(&self) -> Result<Vec<Version>, Error> {
        let mut versions: Vec<Version> = Vec::new();
        for digest in digests(&self.folder, ".version.json")? {
            let path = self.folder.join(format!("{digest}.version.json"));
            let version = files::read(&path).ok();
            let version: Option<Version> =
                version.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            versions.extend(version.filter(|version| {
                self.version_path(&version.id) == path
                    && version.id.layers().all(|layer| self.record(layer).is_some())
            }));
        }
        versions.sort_by(|a, b| (a.made, &a.id).cmp(&(b.made, &b.id)));
        Ok(versions)
    }

    /// The newest version of a name.
    pub(crate) fn newest(&self, name: &StackName) -> Option<Version> {
        let versions = self.versions().ok()?;
        versions.into_iter().rfind(|version| version.id.name == *name)
    }

    /// Every layer that has a folder or a record.
    pub(crate) fn layers(&self) -> Result<BTreeSet<Digest>, Error> {
        let mut all = digests(&self.folder, "")?;
        all.extend(digests(&self.folder, ".packages.json")?);
        Ok(all)
    }

    /// Removes a layer, its record first; the lock is held.
    pub(crate) fn remove_layer(&self, layer: &Digest) -> Result<(), Error> {
        files::remove(&self.record_path(layer))?;
        files::remove(&self.entries_path(layer))?;
        files::remove(&self.proof_path(layer))?;
        files::remove(&self.path(layer))
    }
}

fn io_error(path: &Path) -> impl FnOnce(serde_json::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::io("write", path)(std::io::Error::other(error))
}
