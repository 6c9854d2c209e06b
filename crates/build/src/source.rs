//! The codebase as the build's input: a commit, or a snapshot of the working tree.
//!
//! A commit is [exported](export) into the build's own folder, with its submodules: of a developer's
//! own repository those that are there, of what was pushed those that can be [fetched](submodules). A working tree gives the files that git tracks or would track; outside a
//! repository, those that no `.gitignore` names. `.slugignore` takes away from all. `.git` and the
//! state folder `.tolv` never enter.
//!
//! Three kinds of trust: what was pushed is a stranger's, and git reads it in a sandbox. A
//! developer's own repository is read by their own git, with their rights, as `git status` does:
//! its commit's files are written by the same code, though, with the same checks. A working tree
//! is read as it is.
//!
//! What is not tracked and plainly not source stays out as well: `node_modules`, virtual
//! environments, `__pycache__`, and the root's `.env`, which is config.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use tolv_model::root_folder::RootFolder;
use tolv_sandbox::Cancel;

use crate::Error;
use crate::caps::Caps;
use crate::repository::Repository;
use export::{From, Within, export};
use reader::Reader;
use submodules::Submodules;

pub(crate) mod buildpacks;
pub(crate) mod export;
pub(crate) mod fetch;
pub(crate) mod git;
pub(crate) mod reader;
pub(crate) mod remote;
pub(crate) mod root;
pub(crate) mod submodules;

/// What to build.
#[derive(Clone, Debug)]
pub enum Source {
    /// A commit that somebody has pushed.
    Pushed {
        /// Where to.
        repository: Repository,
        /// The commit's id.
        commit: String,
        /// The folder of it that is the codebase; the whole of it without one.
        root: Option<RootFolder>,
    },
    /// A commit of the developer's own repository that `dir` is in; `dir` below the repository's
    /// root builds that subtree alone.
    Commit {
        /// A folder of the repository, or a bare repository.
        dir: PathBuf,
        /// Any name of a commit that git knows; never one that begins with `-`.
        commit: String,
    },
    /// The files as they are on disk now.
    WorkingTree {
        /// The codebase's root.
        dir: PathBuf,
    },
}

/// The files of a source, not yet looked into.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Where they are: the codebase itself, or the export.
    pub(crate) root: PathBuf,
    /// Paths of files and links, with whether git tracks them.
    pub(crate) paths: BTreeMap<Vec<u8>, bool>,
    /// `<hex>` or `<hex>+dirty`; nothing for a codebase without commits.
    pub(crate) commit: Option<String>,
    /// To be looked at.
    pub(crate) warnings: Vec<String>,
}

impl Source {
    /// Finds the files; a commit is exported into `export`, an empty folder, first.
    pub(crate) fn list(
        &self,
        git: &git::Git,
        export: &Path,
        caps: &Caps,
        cancel: &Cancel,
        submodules: Option<&mut Submodules<'_>>,
    ) -> Result<Listing, Error> {
        let mut listing = match self {
            Self::Pushed { repository, commit, root } => {
                let whole = format!("{commit}:").into_bytes();
                let folder = root.as_ref().map_or("", RootFolder::as_str).as_bytes();
                let tree = [&whole, folder].concat();
                let reader = Reader::Shut(repository);
                let within = root.as_ref().map(|_| Within { whole: &whole, folder });
                let from = From { reader, tree: &tree, within, checkout: None };
                let paths = self::export(from, export, caps, cancel, submodules)?;
                let commit = Some(commit.clone());
                Listing { root: export.to_owned(), paths, commit, warnings: Vec::new() }
            }
            Self::Commit { dir, commit } => {
                export_commit(git, &folder(dir)?, commit, (export, caps, cancel))?
            }
            Self::WorkingTree { dir } => {
                let mut listing = working_tree(git, &folder(dir)?)?;
                let ignored = read_slugignore(&listing)?;
                listing.paths.retain(|path, _| !is_ignored(&ignored, path));
                listing
            }
        };
        listing.paths.retain(|path, _| !is_private(path));
        Ok(listing)
    }
}

/// The absolute path of a folder that was given.
fn folder(dir: &Path) -> Result<PathBuf, Error> {
    match dir.metadata() {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(Error::Source(format!("`{}` is not a folder", dir.display()))),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Source(format!("there is no folder `{}`", dir.display())));
        }
        Err(source) => return Err(Error::io("look at", dir)(source)),
    }
    dir.canonicalize().map_err(Error::io("look at", dir))
}

pub(crate) fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// A path for messages: control bytes and invalid UTF-8 made visible.
pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string().replace("\\'", "'")
}

/// `.git` anywhere, `.tolv` in the root.
fn is_private(path: &[u8]) -> bool {
    let mut parts = path.split(|&byte| byte == b'/');
    parts.clone().next() == Some(b".tolv") || parts.any(|part| part == b".git")
}

/// Whether `.slugignore` takes a path away.
fn is_ignored(ignored: &Gitignore, path: &[u8]) -> bool {
    ignored.matched_path_or_any_parents(as_path(path), false).is_ignore()
}

fn read_slugignore(listing: &Listing) -> Result<Gitignore, Error> {
    if !listing.paths.contains_key(b".slugignore".as_slice()) {
        return Ok(Gitignore::empty());
    }
    // A link in its place could lead to any file, whose lines an error would then show.
    let bytes = crate::files::read(&listing.root.join(".slugignore"))
        .map_err(|bad| Error::Source(format!("cannot read `.slugignore`: {bad}")))?;
    slugignore(&bytes)
}

fn slugignore(bytes: &[u8]) -> Result<Gitignore, Error> {
    // Paths are matched as relative ones, so the builder's root must not be absolute.
    let mut builder = GitignoreBuilder::new("");
    for (place, line) in String::from_utf8_lossy(bytes).lines().enumerate() {
        builder.add_line(None, line).map_err(|bad| {
            Error::Source(format!("`.slugignore` line {}: not a pattern: {bad}", place + 1))
        })?;
    }
    builder.build().map_err(|bad| Error::Source(format!("`.slugignore`: {bad}")))
}

fn working_tree(git: &git::Git, dir: &Path) -> Result<Listing, Error> {
    let Some(repository) = git.find(dir)? else {
        return Ok(Listing {
            root: dir.to_owned(),
            paths: skip_untracked_clutter(walk(dir)?),
            commit: None,
            warnings: Vec::new(),
        });
    };
    let mut warnings = Vec::new();
    let mut paths = BTreeMap::new();
    list_tracked(git, dir, b"", &mut paths, &mut warnings)?;
    let mut paths = skip_untracked_clutter(paths);
    paths.retain(|path, _| !is_private(path));
    let dirty = paths.values().any(|tracked| !tracked) || git.is_changed(dir)?;
    let commit = repository.head.map(|head| if dirty { format!("{head}+dirty") } else { head });
    // In the index and not on disk: deleted, or outside a sparse checkout, or what leads there is
    // a link now.
    let mut folders = BTreeMap::new();
    paths.retain(|path, _| {
        is_plain(dir, parent(path), &mut folders)
            && dir.join(as_path(path)).symlink_metadata().is_ok()
    });
    if paths.contains_key(b".env".as_slice()) {
        warnings.push("`.env` is committed: config belongs outside the codebase".to_owned());
    }
    Ok(Listing { root: dir.to_owned(), paths, commit, warnings })
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&byte| byte == b'/').map_or(&[], |at| &path[..at])
}

/// Whether a folder below `dir` and those above it are folders and no links. `known` remembers.
fn is_plain(dir: &Path, folder: &[u8], known: &mut BTreeMap<Vec<u8>, bool>) -> bool {
    if folder.is_empty() {
        return true;
    }
    if let Some(known) = known.get(folder) {
        return *known;
    }
    let meta = dir.join(as_path(folder)).symlink_metadata();
    let plain = meta.is_ok_and(|meta| meta.is_dir()) && is_plain(dir, parent(folder), known);
    known.insert(folder.to_vec(), plain);
    plain
}

fn list_tracked(
    git: &git::Git,
    dir: &Path,
    prefix: &[u8],
    paths: &mut BTreeMap<Vec<u8>, bool>,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let join = |path: &[u8]| [prefix, path].concat();
    for (path, kind) in git.index(dir)? {
        match kind {
            git::Indexed::File => {
                paths.insert(join(&path), true);
            }
            git::Indexed::Submodule(_) => {
                let folder = dir.join(as_path(&path));
                if !git.is_root(&folder)? {
                    return Err(missing_submodule(&join(&path)));
                }
                list_tracked(git, &folder, &[&join(&path), &b"/"[..]].concat(), paths, warnings)?;
            }
        }
    }
    for path in git.untracked(dir)? {
        if path.ends_with(b"/") {
            warnings.push(format!(
                "`{}` is a git repository of its own and no submodule: it is not built",
                shown(&join(&path))
            ));
        } else {
            paths.entry(join(&path)).or_insert(false);
        }
    }
    Ok(())
}

fn missing_submodule(path: &[u8]) -> Error {
    Error::Source(format!(
        "the submodule `{}` is not checked out; run `git submodule update --init --recursive`",
        shown(path)
    ))
}

/// The file in `folder` that says what is ignored there, where it is none to read: a pipe is never at its
/// end, and what a link leads to may not be either. git follows no link there.
pub fn odd_ignore_file(folder: &Path) -> Option<PathBuf> {
    [".gitignore", ".ignore"].into_iter().map(|name| folder.join(name)).find(|path| {
        path.symlink_metadata().is_ok_and(|found| {
            !found.is_file() || found.len() > tolv_model::source::MAX_FILE as u64
        })
    })
}

/// Files of a folder that is no repository.
fn walk(dir: &Path) -> Result<BTreeMap<Vec<u8>, bool>, Error> {
    let refused = |path: &Path| {
        let path = shown(path.strip_prefix(dir).unwrap_or(path).as_os_str().as_bytes());
        Error::Source(format!("`{path}` is not a regular file of at most 512 KiB"))
    };
    if let Some(path) = odd_ignore_file(dir) {
        return Err(refused(&path));
    }
    let odd = Arc::new(OnceLock::new());
    let found = Arc::clone(&odd);
    let walk = ignore::WalkBuilder::new(dir)
        .hidden(false)
        .parents(false)
        .ignore(false)
        .git_global(false)
        .git_exclude(false)
        .require_git(false)
        .follow_links(false)
        .filter_entry(move |entry| {
            let is_skipped =
                entry.file_name() == ".git" || entry.depth() == 1 && entry.file_name() == ".tolv";
            let is_folder = entry.file_type().is_some_and(|kind| kind.is_dir());
            match odd_ignore_file(entry.path()).filter(|_| is_folder && !is_skipped) {
                Some(path) => {
                    // The first one is told.
                    found.set(path).ok();
                    false
                }
                None => !is_skipped,
            }
        })
        .build();
    let mut paths = BTreeMap::new();
    for entry in walk {
        let entry =
            entry.map_err(|bad| Error::Source(format!("cannot read the codebase: {bad}")))?;
        if entry.file_type().is_some_and(|kind| kind.is_dir()) {
            continue;
        }
        if let Ok(path) = entry.path().strip_prefix(dir) {
            paths.insert(path.as_os_str().as_bytes().to_vec(), false);
        }
    }
    odd.get().map_or(Ok(paths), |path| Err(refused(path)))
}

fn skip_untracked_clutter(mut paths: BTreeMap<Vec<u8>, bool>) -> BTreeMap<Vec<u8>, bool> {
    let environments: Vec<Vec<u8>> = paths
        .iter()
        .filter(|(path, tracked)| !**tracked && path.ends_with(b"/pyvenv.cfg"))
        .map(|(path, _)| path[..path.len() - b"pyvenv.cfg".len()].to_vec())
        .collect();
    paths.retain(|path, tracked| {
        *tracked
            || !(path == b".env"
                || path.split(|&b| b == b'/').any(|p| p == b"node_modules" || p == b"__pycache__")
                || environments.iter().any(|folder| path.starts_with(folder)))
    });
    paths
}

fn export_commit(
    git: &git::Git,
    dir: &Path,
    commit: &str,
    (to, caps, cancel): (&Path, &Caps, &Cancel),
) -> Result<Listing, Error> {
    let Some(repository) = git.find_any(dir)? else {
        return Err(Error::Source(format!("`{}` is not in a git repository", dir.display())));
    };
    let Some(hex) = git.commit(dir, commit)? else {
        return Err(Error::Source(format!(
            "`{commit}` names no commit of the repository `{}`",
            dir.display()
        )));
    };
    let whole = format!("{hex}:").into_bytes();
    let folder = repository.prefix.strip_suffix(b"/").unwrap_or(&repository.prefix);
    let tree = [&whole, folder].concat();
    let reader = Reader::Own(git, &repository.git_dir);
    let within = (!folder.is_empty()).then_some(Within { whole: &whole, folder });
    let from = From { reader, tree: &tree, within, checkout: Some(dir) };
    let paths = export(from, to, caps, cancel, None)?;
    Ok(Listing { root: to.to_owned(), paths, commit: Some(hex), warnings: Vec::new() })
}

#[cfg(test)]
mod tests;
