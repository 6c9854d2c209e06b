//! The packages of a machine as its package manager knows them: versions, dependencies, files.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tolv_model::stack::Package;

use super::dpkg;
use crate::Error;

/// One installed package.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(crate) package: Package,
    /// Each is a list of alternatives.
    pub(crate) depends: Vec<Vec<String>>,
}

/// A name that several packages can stand behind (`/usr/bin/awk`), chosen by the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alternative {
    /// Name below `/etc/alternatives` → the name that programs use, of itself and of what follows it.
    pub(crate) names: Vec<(Vec<u8>, Vec<u8>)>,
    /// What the machine uses.
    pub(crate) chosen: Option<Vec<u8>>,
    /// Who could stand there: a priority, and a path for each of `names`, empty where it has none.
    pub(crate) choices: Vec<(i64, Vec<Vec<u8>>)>,
}

/// Paths that were moved aside: where to, and for the sake of which package.
pub(crate) type Diversions = BTreeMap<Vec<u8>, (Vec<u8>, String)>;

/// A machine's packages.
pub(crate) struct Machine {
    /// `/`.
    pub(crate) root: PathBuf,
    pub(crate) packages: BTreeMap<String, Installed>,
    /// A name that nothing has, and the packages that stand for it.
    pub(crate) provided: BTreeMap<String, BTreeSet<String>>,
    pub(crate) alternatives: Vec<Alternative>,
    /// Where the lists of files are.
    pub(crate) info: PathBuf,
    pub(crate) diversions: Diversions,
    /// Files whose change means that packages are being changed.
    pub(crate) watched: Vec<PathBuf>,
    /// What those files looked like before anything was read.
    pub(crate) stamp: Vec<Stamp>,
}

/// What a file looks like to the kernel.
pub(crate) type Stamp = Option<(u64, u64, i64, i64)>;

/// A file of a package: where it belongs, and where it is.
pub(crate) struct Listed {
    pub(crate) path: Vec<u8>,
    pub(crate) at: Vec<u8>,
}

impl Machine {
    /// Reads the packages of the machine whose root this is.
    pub(crate) fn read(root: &Path) -> Result<Self, Error> {
        if root.join(dpkg::STATUS).is_file() {
            return dpkg::read(root);
        }
        Err(Error::Stack {
            problem: "this machine's package manager is not dpkg, so that it is not known which \
                      files its stack is made of"
                .to_owned(),
            help: "choose a stack of another source (`stack` in app.json, or TOLV_STACK)"
                .to_owned(),
        })
    }

    /// Whether packages were changed since this was read, or are being changed.
    pub(crate) fn has_changed(&self) -> bool {
        stamps(&self.watched) != self.stamp
    }

    /// The files of a package.
    pub(crate) fn files(&self, package: &Package) -> Result<Vec<Listed>, Error> {
        dpkg::files(&self.info, &self.diversions, package)
    }

    /// The installed packages that a dependency's name stands for.
    pub(crate) fn named<'a>(&'a self, name: &str) -> Vec<&'a str> {
        match self.packages.get_key_value(name) {
            Some((name, _)) => vec![name],
            None => self.provided.get(name).into_iter().flatten().map(String::as_str).collect(),
        }
    }
}

/// What files look like now.
pub(crate) fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let meta = path.metadata().ok()?;
        Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
    };
    paths.iter().map(stamp).collect()
}
