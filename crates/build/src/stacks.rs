//! Stacks: the root file systems below every build and process, of known content.
//!
//! ```text
//! the machine's packages ──► select ──► copy ──► seal ──► <folder>/<digest>
//! ```
//!
//! A version of a stack is a list of layers, each known by a digest over its packages, their
//! versions and every file. One folder may serve several platforms of a machine at once.
//!
//! # Invariants
//!
//! * A layer appears whole under its digest or not at all; it is never changed.
//! * No file of a stack can be written, and none has the right to be another user.
//! * Nothing enters that the lists do not name: no secret, no `/usr/local`, no device.
//! * Every program of a stack finds its loader and its libraries in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tolv_model::slug::Digest;
use tolv_model::stack::{Package, StackId, StackName};

use crate::caps::bytes;
use crate::files::{self, Lock};
use crate::proof::Proofs;
use crate::source::shown;
use crate::{Error, Event};

mod copy;
mod dpkg;
mod elf;
mod libraries;
mod lists;
mod machine;
mod select;
mod store;

use machine::Machine;
use store::Store;

/// The folder of stacks, below a state folder.
pub const STACKS: &str = "slugs/stacks";

/// A stack that is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// What it is.
    pub id: StackId,
    /// Its folders for a process, lowest first.
    pub run: Vec<PathBuf>,
    /// Its folders for a build, lowest first.
    pub build: Vec<PathBuf>,
}

/// What is known of a version of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// What it is.
    pub id: StackId,
    /// Where its files come from: `Debian GNU/Linux 12 (bookworm)`.
    pub source: String,
    /// When it was made, in milliseconds since 1970.
    pub made: u64,
    /// What its list names and the source does not have.
    #[serde(default)]
    pub left_out: Vec<String>,
}

/// What a layer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Its packages, sorted by name.
    pub packages: Vec<Package>,
    /// How many files.
    pub files: u64,
    /// Bytes of its files.
    pub size: u64,
}

/// A package that is another one on the machine than in a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub package: String,
    /// Its version in the stack.
    pub from: Option<String>,
    /// Its version on the machine.
    pub to: Option<String>,
}

/// The stacks of a folder.
#[derive(Clone, Debug)]
pub struct Stacks {
    store: Store,
    /// Root of the machine that stacks are made of.
    machine: PathBuf,
    proofs: Proofs,
}

impl Stacks {
    /// The stacks of this folder, which is made where it is missing, rid of what killed makers left.
    ///
    /// # Errors
    ///
    /// The folder cannot be made or read.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        files::check_own(folder)?;
        files::make_folder(folder)?;
        // What is mounted is named by its whole path.
        let stacks = Self::at(&folder.canonicalize().map_err(Error::io("look at", folder))?);
        stacks.store.sweep()?;
        Ok(stacks)
    }

    /// The stacks of this folder, to be looked at: nothing is made and nothing is removed.
    pub fn at(folder: &Path) -> Self {
        Self {
            store: Store { folder: folder.to_owned() },
            machine: "/".into(),
            proofs: Proofs::default(),
        }
    }

    /// The same, remembering in `proofs` what was proven.
    #[must_use]
    pub fn with_proofs(self, proofs: Proofs) -> Self {
        Self { proofs, ..self }
    }

    /// The same, made of the packages of the machine whose root this is.
    #[must_use]
    pub fn of_machine(self, root: &Path) -> Self {
        Self { machine: root.to_owned(), ..self }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.store.folder
    }

    /// The newest version of a stack that is here, unproven.
    pub fn find(&self, name: &StackName) -> Option<Stack> {
        self.store.newest(name).map(|version| self.stack(version.id))
    }

    /// This version, proven to be what its digests say.
    ///
    /// # Errors
    ///
    /// [`Error::Stack`] where it is not here or has changed on the disk.
    pub fn get(&self, id: &StackId) -> Result<Stack, Error> {
        for layer in id.layers() {
            self.store.proven_kept(layer, &self.proofs)?.map_err(|what| bad(id, layer, &what))?;
        }
        Ok(self.stack(id.clone()))
    }

    /// Proves that what a process sees of this version is what its digests say.
    ///
    /// # Errors
    ///
    /// Those of [`Stacks::get`].
    pub(crate) fn prove_run(&self, id: &StackId) -> Result<(), Error> {
        for layer in id.layers().filter(|layer| **layer != id.build) {
            self.store.proven(layer, &self.proofs)?.map_err(|what| bad(id, layer, &what))?;
        }
        Ok(())
    }

    /// The folders of this version for a process, lowest first, unproven.
    pub(crate) fn at_run(&self, id: &StackId) -> Vec<PathBuf> {
        self.stack(id.clone()).run
    }

    fn stack(&self, id: StackId) -> Stack {
        let path = |layer: &Digest| self.store.path(layer);
        let packages: Vec<PathBuf> = id.packages.iter().map(path).collect();
        let join = |own: &[PathBuf]| own.iter().chain(&packages).cloned().collect();
        let (run, build) = (path(&id.run), path(&id.build));
        Stack { run: join(std::slice::from_ref(&run)), build: join(&[run.clone(), build]), id }
    }

    /// The newest version of a stack, proven; it is made where there is none, or where what is
    /// here has changed on the disk.
    ///
    /// # Errors
    ///
    /// Those of [`Stacks::make`].
    pub fn ensure(
        &self,
        name: &StackName,
        cancelled: &dyn Fn() -> bool,
        events: &mut dyn FnMut(Event),
    ) -> Result<Stack, Error> {
        if let Some(found) = self.find(name) {
            match self.get(&found.id) {
                Err(Error::Stack { .. }) => {
                    let id = &found.id;
                    let text = format!("the stack {id} has changed on the disk: it is made again");
                    events(Event::Warning(text));
                }
                got => return got,
            }
        }
        self.make(name, cancelled, events)
    }

    /// Makes a new version of a stack from what its source has now. Where that is what the newest
    /// version holds, it is this version.
    ///
    /// # Errors
    ///
    /// [`Error::Stack`] where there is no such stack or its source cannot give it,
    /// [`Error::PackagesChange`] where a package manager runs, [`Error::Cancelled`].
    pub fn make(
        &self,
        name: &StackName,
        cancelled: &dyn Fn() -> bool,
        events: &mut dyn FnMut(Event),
    ) -> Result<Stack, Error> {
        let list = lists::list(name).ok_or_else(|| Error::Stack {
            problem: format!("there is no stack `{name}`"),
            help: "the stacks are host, heroku-22 and heroku-24".to_owned(),
        })?;
        let newest = || self.store.newest(name);
        let (before, mut waited) = (newest(), false);
        let _held = Lock::take(&self.store.lock(), cancelled, &mut || {
            events(Event::Heading(format!("Stack {name}: waiting for another that is being made")));
            waited = true;
        })?;
        if waited && let Some(other) = newest().filter(|other| Some(other) != before.as_ref()) {
            return self.get(&other.id);
        }
        self.store.sweep_held()?;
        events(Event::Heading(format!("Making the stack {name} from this machine's packages")));
        let started = Instant::now();
        /// A package manager that runs meanwhile is waited for so often.
        const ATTEMPTS: u32 = 3;
        let mut attempt = 1;
        let made = loop {
            match self.make_once(name, &list, cancelled, events) {
                Err(Error::PackagesChange) if attempt < ATTEMPTS => attempt += 1,
                made => break made,
            }
        };
        if made.is_err() {
            // The first error is the one to tell; the remnant is removed by the next maker too.
            self.store.sweep_held().ok();
        }
        let version = made?;
        self.store.put_version(&version)?;
        for layer in [&version.id.run, &version.id.build] {
            let Some(record) = self.store.record(layer) else { continue };
            events(Event::line(format!(
                "{}: {} packages, {} files, {}",
                if *layer == version.id.run { "run" } else { "build, in addition" },
                record.packages.len(),
                record.files,
                bytes(record.size)
            )));
        }
        let seconds = started.elapsed().as_secs_f64();
        events(Event::line(format!("{} made in {seconds:.1} s", version.id)));
        Ok(self.stack(version.id))
    }

    fn make_once(
        &self,
        name: &StackName,
        list: &lists::List,
        cancelled: &dyn Fn() -> bool,
        events: &mut dyn FnMut(Event),
    ) -> Result<Version, Error> {
        let machine = Machine::read(&self.machine)?;
        let selection = select::select(&machine, list)?;
        let put = |view: &str, layer: &select::Layer| {
            let folder = self.store.making(view);
            files::remove(&folder)?;
            let entries = copy::write(&layer.items, &folder, cancelled)?;
            Ok::<_, Error>((folder, entries))
        };
        let run = put("run", &selection.run)?;
        let build = put("build", &selection.build)?;
        if machine.has_changed() {
            return Err(Error::PackagesChange);
        }
        for missing in &selection.missing {
            events(Event::Warning(format!(
                "`/{}` needs {}, which this machine does not have",
                shown(&missing.file),
                missing.library
            )));
        }
        let is_missed = |entry: &&&str| selection.not_installed.contains(entry);
        let missed: Vec<&str> = list.expected.iter().filter(is_missed).copied().collect();
        if !missed.is_empty() {
            events(Event::Warning(format!(
                "not installed on this machine, so not in the stack {name}: {}",
                missed.join(", ")
            )));
        }
        let take = |(folder, entries): (PathBuf, Vec<_>), layer: &select::Layer| {
            self.store.put(&folder, &layer.packages, &entries, &self.proofs)
        };
        let run = take(run, &selection.run)?;
        let build = take(build, &selection.build)?;
        let newest = self.store.versions()?.last().map_or(0, |version| version.made);
        Ok(Version {
            id: StackId { name: name.clone(), run, build, packages: Vec::new() },
            source: os_name(&self.machine),
            // The newest is the newest whatever the clock does.
            made: copy::now().max(newest + 1),
            left_out: selection.not_installed.iter().map(|&entry| entry.to_owned()).collect(),
        })
    }

    /// Every version that is here, oldest first.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub fn versions(&self) -> Result<Vec<Version>, Error> {
        match self.store.folder.is_dir() {
            true => self.store.versions(),
            false => Ok(Vec::new()),
        }
    }

    /// What a layer holds, as it was recorded.
    pub fn contents(&self, layer: &Digest) -> Option<Contents> {
        let store::Record { packages, files, size } = self.store.record(layer)?;
        Some(Contents { packages, files, size })
    }

    /// How the machine's packages differ from those of a version that was made of them: what a new
    /// version would bring. Nothing for a stack of another source.
    ///
    /// # Errors
    ///
    /// The machine's packages cannot be read.
    pub fn changes(&self, id: &StackId) -> Result<Vec<Change>, Error> {
        if lists::list(&id.name).is_none() {
            return Ok(Vec::new());
        }
        let machine = Machine::read(&self.machine)?;
        let mut changes = Vec::new();
        for layer in [&id.run, &id.build] {
            for had in self.contents(layer).map(|held| held.packages).unwrap_or_default() {
                let now = machine.packages.get(&had.name).map(|one| one.package.version.clone());
                if now.as_ref() != Some(&had.version) {
                    let from = Some(had.version);
                    changes.push(Change { package: had.name, from, to: now });
                }
            }
        }
        Ok(changes)
    }

    /// The installed packages of the machine that have a program of this name, where every process
    /// would find it: what a stack that lacks it could have. None for a name with a slash.
    ///
    /// # Errors
    ///
    /// The machine's packages cannot be read.
    pub fn packages_of(&self, program: &str) -> Result<Vec<String>, Error> {
        const FOLDERS: [&str; 3] = ["usr/bin/", "usr/sbin/", "usr/games/"];
        let paths = FOLDERS.map(|folder| format!("{folder}{program}").into_bytes());
        let machine = Machine::read(&self.machine)?;
        let mut found = Vec::new();
        if program.is_empty() || program.contains('/') {
            return Ok(found);
        }
        for (name, installed) in &machine.packages {
            let files = machine.files(&installed.package)?;
            if files.iter().any(|listed| paths.contains(&libraries::merged(&listed.path))) {
                found.push(name.clone());
            }
        }
        Ok(found)
    }

    /// Removes versions that are not in `keep`, except the newest of each name, and layers that no
    /// version has. What is younger than `young` stays: a build may be about to record it. Says how
    /// many layers went.
    ///
    /// # Errors
    ///
    /// Something cannot be removed; what was removed before stays so.
    pub fn collect(&self, keep: &BTreeSet<StackId>, young: Duration) -> Result<u32, Error> {
        if !self.store.folder.is_dir() {
            return Ok(0);
        }
        let Some(_held) = Lock::try_take(&self.store.lock())? else { return Ok(0) };
        let versions = self.store.versions()?;
        let mut kept: BTreeSet<Digest> = keep.iter().flat_map(StackId::layers).copied().collect();
        let oldest =
            copy::now().saturating_sub(u64::try_from(young.as_millis()).unwrap_or(u64::MAX));
        for version in &versions {
            let is_newest = self.store.newest(&version.id.name).as_ref() == Some(version);
            if is_newest || keep.contains(&version.id) || version.made > oldest {
                kept.extend(version.id.layers());
            } else {
                self.store.remove_version(&version.id)?;
            }
        }
        let mut removed = 0;
        for layer in self.store.layers()?.difference(&kept) {
            self.store.remove_layer(layer)?;
            removed += 1;
        }
        self.store.sweep_held()?;
        Ok(removed)
    }
}

/// A version that is not what its digests say.
fn bad(id: &StackId, layer: &Digest, what: &str) -> Error {
    let name = &id.name;
    Error::Stack {
        problem: format!(
            "the stack {id}: its layer {} {what} (tolv stack make {name} makes it again)",
            tolv_model::slug::short(layer)
        ),
        help: "where that gives another version, because the packages of this machine are others now, \
               build the commit again"
            .to_owned(),
    }
}

/// `Debian GNU/Linux 12 (bookworm)`.
fn os_name(root: &Path) -> String {
    let path = root.join("usr/lib/os-release");
    let text = files::read(&path).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "this machine".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests;
