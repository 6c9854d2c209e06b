//! The folder of toolchains: each is a sealed tree that its name pins by content.
//!
//! `<toolchains>/<kind>-<version>-<digest>/` is the tree. Beside it stand `<name>.entries`, what is
//! in it, and `<name>.json`, its record, written last: a tree without one is the remnant of a fetch
//! or copy that was ended. `<name>.proof` is what its files looked like when their bytes were read
//! last, for builds alone. `choices.json` says which toolchain a wish got: the same wish gets it again, whatever is
//! installed on the machine meanwhile.
//!
//! The digest in a name leaves Python's compiled files out: they follow from the others, and two
//! runs of the compiler need not give the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tolv_model::slug::{Digest, Entry, short};

use crate::Error;
use crate::files::{self, Lock};
use crate::proof::{Proofs, prove, prove_kept};
use crate::seal::{self, READ_ONLY, seal};
use crate::state_folder;

/// Most wishes that are remembered.
const MAX_CHOICES: usize = 4096;
/// A wish that is longer is remembered by its digest.
const MAX_WISH: usize = 100;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    kind: String,
    version: String,
    content: Digest,
    size: u64,
    files: u64,
    /// What the tree's folder was when it was made: a copy of it has another, and so has one that came
    /// in an archive.
    #[serde(default)]
    place: Vec<u8>,
    #[serde(flatten)]
    made: Made,
}

/// What is known of a toolchain beside its files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    /// The program that it was copied from, and what its files looked like then; nothing where it
    /// was fetched.
    pub(super) source: Option<String>,
    /// Whether `lib` has libraries that its programs do not find by themselves.
    pub(super) has_libraries: bool,
}

/// A toolchain that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// `<kind>-<version>-<digest>`: pins the content.
    pub(crate) name: String,
    /// As its maker writes it.
    pub(crate) version: String,
    /// Its tree.
    pub(crate) folder: PathBuf,
    pub(super) made: Made,
}

/// What is in a tree, or why that is not known.
type Listed = Result<Vec<(Vec<u8>, Entry)>, String>;

/// A folder of toolchains.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    /// The one in this folder.
    pub(crate) fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn beside(&self, name: &str, ending: &str) -> PathBuf {
        self.folder.join(format!("{name}.{ending}"))
    }

    fn record(&self, name: &str) -> Option<Record> {
        if name.contains('/') {
            return None;
        }
        serde_json::from_slice(&files::read(&self.beside(name, "json")).ok()?).ok()
    }

    /// The toolchain of this name.
    pub(crate) fn get(&self, name: &str) -> Option<Kept> {
        let record = self.record(name)?;
        let folder = self.folder.join(name);
        let kept =
            Kept { name: name.to_owned(), version: record.version, folder, made: record.made };
        kept.folder.is_dir().then_some(kept)
    }

    /// Whether the tree was made in this folder, and not put there with its record by somebody else: what
    /// runs outside of every sandbox must be.
    pub(super) fn was_made_here(&self, name: &str) -> bool {
        let Some(record) = self.record(name) else { return false };
        place(&self.folder.join(name)).is_ok_and(|place| place == record.place)
    }

    /// All of a kind, sorted by name.
    pub(super) fn kept(&self, kind: &str) -> Vec<Kept> {
        let list = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = list.filter_map(|entry| entry.file_name().into_string().ok());
        let prefix = format!("{kind}-");
        let mut names: Vec<String> = names
            .filter(|name| name.starts_with(&prefix))
            .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
            .filter(|name| self.record(name).is_some_and(|record| record.kind == kind))
            .collect();
        names.sort();
        names.iter().filter_map(|name| self.get(name)).collect()
    }

    /// Proves that a toolchain is what it was when it was made.
    ///
    /// # Errors
    ///
    /// The inner error says what is wrong with it.
    pub(crate) fn proven(&self, name: &str, proofs: &Proofs) -> Result<Result<(), String>, Error> {
        self.ask(name, |root, content, entries| prove(root, READ_ONLY, content, entries, proofs))
    }

    /// As [`Store::proven`], for builds: what another process has proven is not read again.
    pub(super) fn proven_before(
        &self,
        name: &str,
        proofs: &Proofs,
    ) -> Result<Result<(), String>, Error> {
        let file = self.beside(name, "proof");
        self.ask(name, |root, content, entries| {
            prove_kept(root, READ_ONLY, content, entries, proofs, &file)
        })
    }

    fn ask(
        &self,
        name: &str,
        prove: impl FnOnce(&Path, Digest, &dyn Fn() -> Listed) -> Result<Result<(), String>, Error>,
    ) -> Result<Result<(), String>, Error> {
        let Some(record) = self.record(name) else { return Ok(Err("is not here".to_owned())) };
        let entries = || {
            let entries = files::read(&self.beside(name, "entries")).ok();
            let entries = entries.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            entries
                .filter(|entries: &Vec<(Vec<u8>, Entry)>| {
                    let pinned = name.ends_with(&format!("-{}", short(&identity(entries))));
                    pinned && content(entries) == record.content
                })
                .ok_or_else(|| "has no list of files that is its own".to_owned())
        };
        prove(&self.folder.join(name), record.content, &entries)
    }

    /// Seals a tree in this folder, and moves it to the name that its content gives.
    pub(super) fn put(
        &self,
        (kind, version): (&str, &str),
        made: Made,
        part: &Path,
        (proofs, cancelled): (&Proofs, &dyn Fn() -> bool),
    ) -> Result<Kept, Error> {
        let entries = seal(part, READ_ONLY, &|_| true, cancelled)?;
        let name = format!("{kind}-{version}-{}", short(&identity(&entries)));
        let target = self.folder.join(&name);
        let is_here = self.get(&name).is_some_and(|kept| kept.made == made);
        if is_here && self.proven(&name, proofs)?.is_ok() {
            files::remove(part)?;
        } else {
            files::remove(&self.beside(&name, "json"))?;
            files::remove(&target)?;
            tolv_durable::move_folder(part, &target).map_err(Error::io("create", &target))?;
            let in_place = place(&target).map_err(Error::io("look at", &target))?;
            let (files, size) = seal::count(&entries);
            let content = content(&entries);
            let (kind, version) = (kind.to_owned(), version.to_owned());
            let record = Record { kind, version, content, size, files, place: in_place, made };
            write_json(&self.beside(&name, "entries"), &entries)?;
            write_json(&self.beside(&name, "json"), &record)?;
        }
        self.get(&name).ok_or_else(|| Error::Toolchain {
            what: name,
            why: "it is gone again".to_owned(),
            help: "build again".to_owned(),
        })
    }

    /// Forgets a toolchain that is not what it was; what is left of it is removed when it is made
    /// again.
    pub(super) fn forget(&self, name: &str) -> Result<(), Error> {
        files::remove(&self.beside(name, "json"))
    }

    fn choices(&self) -> BTreeMap<String, String> {
        let bytes = files::read(&self.folder.join("choices.json")).ok();
        bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// What this wish got the last time, if it is still there.
    pub(super) fn chosen(&self, wish: &str) -> Option<Kept> {
        self.get(self.choices().get(&key(wish))?)
    }

    /// Remembers what a wish got.
    pub(super) fn choose(&self, wish: &str, kept: &Kept) -> Result<(), Error> {
        let key = key(wish);
        if self.choices().get(&key) == Some(&kept.name) {
            return Ok(());
        }
        let _lock = Lock::take(&self.folder.join(".choices.lock"), &|| false, &mut || {})?;
        let mut choices = self.choices();
        choices.insert(key, kept.name.clone());
        if choices.len() > MAX_CHOICES {
            choices.retain(|_, name| self.get(name).is_some());
        }
        if choices.len() > MAX_CHOICES {
            return Ok(());
        }
        write_json(&self.folder.join("choices.json"), &choices)
    }
}

/// Forgets which toolchain each wish got, so that the next builds take the newest that the machine
/// has by then. What was made stays: releases run on it.
///
/// # Errors
///
/// The folder cannot be written.
pub fn renew_toolchains(folder: &Path) -> Result<(), Error> {
    files::remove(&folder.join("choices.json"))
}

#[cfg(test)]
impl Store {
    /// Keeps what a test has put into a folder beside it.
    pub(crate) fn keep_test(&self, what: (&str, &str), part: &Path) -> String {
        let put = self.put(what, Made::default(), part, (&Proofs::default(), &|| false));
        put.map(|kept| kept.name).unwrap_or_default()
    }
}

fn place(folder: &Path) -> std::io::Result<Vec<u8>> {
    state_folder::identity(fs::File::open(folder)?)
}

fn key(wish: &str) -> String {
    if wish.len() > MAX_WISH { Digest::of(wish.as_bytes()).to_string() } else { wish.to_owned() }
}

fn content(entries: &[(Vec<u8>, Entry)]) -> Digest {
    seal::content(entries.iter().map(|(path, entry)| (path, entry)))
}

/// What names a tree: its content without what follows from the rest.
fn identity(entries: &[(Vec<u8>, Entry)]) -> Digest {
    let compiled =
        |path: &[u8]| path.split(|&byte| byte == b'/').any(|part| part == b"__pycache__");
    let rest = entries.iter().filter(|(path, _)| !compiled(path));
    seal::content(rest.map(|(path, entry)| (path, entry)))
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_vec(value).map_err(std::io::Error::other);
    files::write_whole(path, &text.map_err(Error::io("write", path))?)
}

#[cfg(test)]
mod tests;
