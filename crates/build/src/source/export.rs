//! A commit's files, written into a folder.
//!
//! ```text
//!  git ls-tree ──▶ names, modes, sizes ──▶ checked, bounded ──▶ git cat-file ──▶ files
//! ```
//!
//! git only reads objects. There is no checkout and no index: names are checked here, once, all
//! bounds before the first byte is written, and every file is created below the folder without
//! following a link. Files are what the commit has, byte for byte: no filter, no conversion.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tolv_model::tree_path::TreePath;
use tolv_sandbox::Cancel;

use super::reader::{Reader, memory, strange};
use super::submodules::{Submodules, Urls};
use super::{is_ignored, is_private, missing_submodule, shown, slugignore};
use crate::Error;
use crate::beneath::Beneath;
use crate::caps::{Caps, bytes};
use crate::repository::Repository;

/// Most bytes of all names together: they are held in memory.
const MAX_NAMES: usize = 64 << 20;
/// Most bytes of a link's target: what Linux takes.
const MAX_TARGET: u64 = 4095;
/// Most bytes of `.slugignore`.
const MAX_IGNORE: u64 = 1 << 20;
/// Submodules in each other.
const MAX_SUBMODULES: usize = 16;

/// One name of a tree.
#[derive(Debug)]
struct Name {
    /// The object, or a submodule's commit.
    id: String,
    kind: Kind,
    size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File {
        executable: bool,
    },
    Link,
    Submodule,
    /// Counted, so that a tree of folders alone has an end too, and never kept.
    Folder,
}

/// What has been listed so far, submodules included.
#[derive(Debug, Default)]
struct Listed {
    files: u64,
    bytes: u64,
    names: usize,
}

/// Where a tree is and where it goes.
#[derive(Clone, Copy)]
pub(crate) struct From<'a> {
    pub(crate) reader: Reader<'a>,
    /// A name of the tree that cannot be taken for an option.
    pub(crate) tree: &'a [u8],
    /// What it is a folder of; nothing for a whole tree.
    pub(crate) within: Option<Within<'a>>,
    /// The folder that has the working tree, for submodules; nothing for a bare repository.
    pub(crate) checkout: Option<&'a Path>,
}

/// The tree that another one is a folder of: what it says of submodules is for all of its folders.
#[derive(Clone, Copy)]
pub(crate) struct Within<'a> {
    /// A name of the whole tree.
    pub(crate) whole: &'a [u8],
    /// The folder's path in it, without a `/` behind.
    pub(crate) folder: &'a [u8],
}

impl From<'_> {
    /// The URLs of the submodules in the tree, by their paths in it.
    fn urls(&self, repository: &Repository) -> Result<Urls, Error> {
        let Some(Within { whole, folder }) = self.within else {
            return Submodules::urls(repository, self.tree);
        };
        let prefix = [folder, b"/"].concat();
        let all = Submodules::urls(repository, whole)?.into_iter();
        Ok(all
            .filter_map(|(path, url)| Some((path.strip_prefix(&*prefix)?.to_vec(), url)))
            .collect())
    }
}

/// Writes a tree into `to`, an empty folder. Gives the paths. Submodules of what strangers push come
/// from `submodules`; without it they are refused.
pub(crate) fn export(
    from: From<'_>,
    to: &Path,
    caps: &Caps,
    cancel: &Cancel,
    submodules: Option<&mut Submodules<'_>>,
) -> Result<BTreeMap<Vec<u8>, bool>, Error> {
    let mut work = Export {
        to: Beneath::open(to).map_err(Error::io("open", to))?,
        folder: to,
        caps,
        cancel,
        submodules,
        listed: Listed::default(),
        paths: BTreeMap::new(),
    };
    work.tree(from, b"", 0)?;
    Ok(work.paths)
}

struct Export<'a, 's> {
    to: Beneath,
    folder: &'a Path,
    caps: &'a Caps,
    cancel: &'a Cancel,
    submodules: Option<&'a mut Submodules<'s>>,
    listed: Listed,
    paths: BTreeMap<Vec<u8>, bool>,
}

impl Export<'_, '_> {
    fn tree(&mut self, from: From<'_>, prefix: &[u8], depth: usize) -> Result<(), Error> {
        let mut names = self.list(&from, prefix)?;
        if prefix.is_empty()
            && let Some((_, ignore)) = names.iter().find(|(path, _)| is_slugignore(path))
        {
            let lines = match ignore.kind {
                Kind::File { .. } => from.reader.blob(&ignore.id, MAX_IGNORE, self.cancel)?,
                Kind::Link | Kind::Submodule | Kind::Folder => {
                    return Err(Error::Source("cannot read `.slugignore`: not a file".to_owned()));
                }
            };
            let ignored = slugignore(&lines)?;
            names.retain(|(path, _)| !is_ignored(&ignored, path.as_bytes()));
        }
        names.retain(|(path, _)| !is_private(path.as_bytes()));
        for (path, name) in &names {
            self.count(path, name)?;
        }
        let (submodules, files): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|(_, name)| name.kind == Kind::Submodule);
        self.write(&from, &files)?;
        self.paths.extend(files.into_iter().map(|(path, _)| (path.into_bytes(), true)));
        let urls = match from.reader {
            Reader::Shut(repository) if !submodules.is_empty() => from.urls(repository)?,
            Reader::Shut(_) | Reader::Own(..) => Urls::new(),
        };
        for (path, name) in submodules {
            if depth == MAX_SUBMODULES {
                return Err(Error::Source("submodules are more than 16 deep".to_owned()));
            }
            self.submodule((&from, &urls), prefix, &path, &name.id, depth)?;
        }
        Ok(())
    }

    fn submodule(
        &mut self,
        (from, urls): (&From<'_>, &Urls),
        prefix: &[u8],
        path: &TreePath,
        commit: &str,
        depth: usize,
    ) -> Result<(), Error> {
        let full = path.as_bytes();
        let here = &full[prefix.len()..];
        let tree = format!("{commit}:").into_bytes();
        let below_it = [full, b"/"].concat();
        let (git, git_dir) = match (from.reader, &mut self.submodules) {
            (Reader::Own(git, git_dir), _) => (git, git_dir),
            (Reader::Shut(repository), Some(submodules)) => {
                let found = submodules.get(repository, urls, (here, full), commit)?;
                let reader = Reader::Shut(&found);
                return self.tree(
                    From { reader, tree: &tree, within: None, checkout: None },
                    &below_it,
                    depth + 1,
                );
            }
            (Reader::Shut(_), None) => {
                let name = shown(full);
                let text = format!("`{name}` is a submodule, and no submodule is fetched here");
                return Err(Error::Source(text));
            }
        };
        let folder = from.checkout.map(|dir| dir.join(super::as_path(here)));
        let found = match &folder {
            Some(folder) if git.is_root(folder)? => git.find_any(folder)?,
            _ => None,
        };
        let folder_of = from.within.map_or(&b""[..], |within| within.folder);
        let git_dir: PathBuf = found.map_or_else(
            || git_dir.join("modules").join(super::as_path(folder_of)).join(super::as_path(here)),
            |repository| repository.git_dir,
        );
        if !git.has(&git_dir, commit) {
            return Err(missing_submodule(full));
        }
        let reader = Reader::Own(git, &git_dir);
        let below = From { reader, tree: &tree, within: None, checkout: folder.as_deref() };
        self.tree(below, &below_it, depth + 1)
    }

    /// Every name of a tree, checked; the listing is stopped at the limit.
    fn list(&mut self, from: &From<'_>, prefix: &[u8]) -> Result<Vec<(TreePath, Name)>, Error> {
        let mut names = Vec::new();
        let mut rest: Vec<u8> = Vec::new();
        let (listed, caps) = (&mut self.listed, self.caps);
        let mut take = |chunk: &[u8]| {
            rest.extend_from_slice(chunk);
            let mut begin = 0;
            while let Some(length) = rest[begin..].iter().position(|&byte| byte == 0) {
                let (path, name) = parse(&rest[begin..begin + length], prefix)?;
                begin += length + 1;
                listed.files += 1;
                listed.names += path.as_bytes().len();
                if listed.files > caps.files {
                    return Err(Error::Limit {
                        what: "the number of the commit's files".into(),
                        limit: format!("{} files (TOLV_BUILD_FILES)", caps.files),
                    });
                }
                if listed.names > MAX_NAMES {
                    return Err(Error::Limit {
                        what: "the length of all names of the commit's files".into(),
                        limit: bytes(MAX_NAMES as u64),
                    });
                }
                if name.kind != Kind::Folder {
                    names.push((path, name));
                }
            }
            rest.drain(..begin);
            // A line is a path and less than 200 bytes.
            if rest.len() > 2 * tolv_model::tree_path::MAX_PATH_BYTES {
                return Err(Error::Source("the commit has a name that is too long".to_owned()));
            }
            Ok(())
        };
        let args: [&[u8]; 7] =
            [b"ls-tree", b"-r", b"-t", b"-z", b"--long", b"--full-tree", from.tree];
        from.reader.stream(&args, None, &mut take, self.cancel)?;
        Ok(names)
    }

    /// Adds a file to what is to be written, before anything is.
    fn count(&mut self, path: &TreePath, name: &Name) -> Result<(), Error> {
        let over = |what: String, limit| Err(Error::Limit { what, limit: bytes(limit) });
        let shown = || shown(path.as_bytes());
        match name.kind {
            Kind::Link if name.size > MAX_TARGET => {
                return over(format!("the target of the link `{}`", shown()), MAX_TARGET);
            }
            Kind::File { .. } if name.size > self.caps.file => {
                let what = format!("the file `{}` with {}", shown(), bytes(name.size));
                return over(what, self.caps.file);
            }
            Kind::File { .. } | Kind::Link | Kind::Submodule | Kind::Folder => {}
        }
        self.listed.bytes = self.listed.bytes.saturating_add(name.size);
        if self.listed.bytes > self.caps.slug {
            return Err(Error::Limit {
                what: "the size of the commit's files together".into(),
                limit: format!("{} (TOLV_BUILD_MIB)", bytes(self.caps.slug)),
            });
        }
        Ok(())
    }

    fn write(&mut self, from: &From<'_>, files: &[(TreePath, Name)]) -> Result<(), Error> {
        if files.is_empty() {
            return Ok(());
        }
        let asked = asked(files).map_err(Error::io("write", "a list of objects"))?;
        let mut writer = Writer {
            to: &mut self.to,
            folder: self.folder,
            files: files.iter(),
            state: State::Head(Vec::new()),
        };
        let mut take = |chunk: &[u8]| writer.take(chunk);
        from.reader.stream(
            &[b"cat-file", b"--batch", b"--buffer"],
            Some(asked),
            &mut take,
            self.cancel,
        )?;
        writer.end()
    }
}

fn is_slugignore(path: &TreePath) -> bool {
    path.as_bytes() == b".slugignore"
}

/// The ids, a line each.
fn asked(files: &[(TreePath, Name)]) -> std::io::Result<OwnedFd> {
    let mut lines = String::new();
    for (_, name) in files {
        lines.push_str(&name.id);
        lines.push('\n');
    }
    memory(lines.as_bytes())
}

/// Reads `<mode> <type> <object> <size>\t<path>`.
fn parse(line: &[u8], prefix: &[u8]) -> Result<(TreePath, Name), Error> {
    let broken = || Error::Source("git lists a tree in a way that is not known".to_owned());
    let tab = line.iter().position(|&byte| byte == b'\t').ok_or_else(broken)?;
    let head = std::str::from_utf8(&line[..tab]).map_err(|_| broken())?;
    let full = [prefix, &line[tab + 1..]].concat();
    let mut words = head.split_ascii_whitespace();
    let mut next = || words.next().ok_or_else(broken);
    let (mode, _, id, size) = (next()?, next()?, next()?, next()?);
    let kind = match mode {
        // Old gits wrote 100664, which means the same.
        "100644" | "100664" => Kind::File { executable: false },
        "100755" | "100775" => Kind::File { executable: true },
        "120000" => Kind::Link,
        "160000" => Kind::Submodule,
        "040000" => Kind::Folder,
        other => {
            return Err(Error::Source(format!(
                "`{}` of the commit has the mode {other}, which is no file's",
                shown(&full)
            )));
        }
    };
    let size = match kind {
        Kind::Submodule | Kind::Folder => 0,
        Kind::File { .. } | Kind::Link => size.parse().map_err(|_| {
            Error::Source(format!("the object of `{}` is missing or broken", shown(&full)))
        })?,
    };
    if !matches!(id.len(), 40 | 64) || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(broken());
    }
    let path = TreePath::new(full.as_slice())
        .map_err(|bad| Error::Source(format!("the name `{}` of the commit {bad}", shown(&full))))?;
    Ok((path, Name { id: id.to_owned(), kind, size }))
}

/// Takes in what `cat-file --batch` says: per object `<id> <type> <size>\n<bytes>\n`.
struct Writer<'a> {
    to: &'a mut Beneath,
    folder: &'a Path,
    files: std::slice::Iter<'a, (TreePath, Name)>,
    state: State<'a>,
}

enum State<'a> {
    /// In the line before an object.
    Head(Vec<u8>),
    /// In a file's bytes, of which these are left.
    File(File, &'a TreePath, u64),
    /// In a link's target.
    Link(Vec<u8>, &'a TreePath, u64),
    /// Before the line end behind an object.
    Tail,
}

impl<'a> Writer<'a> {
    fn take(&mut self, mut chunk: &[u8]) -> Result<(), Error> {
        while !chunk.is_empty() {
            self.state = match std::mem::replace(&mut self.state, State::Tail) {
                State::Head(mut line) => match chunk.iter().position(|&byte| byte == b'\n') {
                    Some(end) => {
                        line.extend_from_slice(&chunk[..end]);
                        chunk = &chunk[end + 1..];
                        self.head(&line)?
                    }
                    None if line.len() + chunk.len() > 200 => return Err(strange()),
                    None => {
                        line.extend_from_slice(chunk);
                        self.state = State::Head(line);
                        return Ok(());
                    }
                },
                State::File(mut file, path, left) => {
                    let (mine, rest) = split(chunk, left);
                    file.write_all(mine).map_err(|error| self.failed(path, error))?;
                    chunk = rest;
                    match left - mine.len() as u64 {
                        0 => State::Tail,
                        left => State::File(file, path, left),
                    }
                }
                State::Link(mut target, path, left) => {
                    let (mine, rest) = split(chunk, left);
                    target.extend_from_slice(mine);
                    chunk = rest;
                    match left - mine.len() as u64 {
                        0 => {
                            self.link(path, &target)?;
                            State::Tail
                        }
                        left => State::Link(target, path, left),
                    }
                }
                State::Tail => {
                    if chunk[0] != b'\n' {
                        return Err(strange());
                    }
                    chunk = &chunk[1..];
                    State::Head(Vec::new())
                }
            };
        }
        Ok(())
    }

    fn end(self) -> Result<(), Error> {
        match (self.state, self.files.len()) {
            (State::Head(line), 0) if line.is_empty() => Ok(()),
            _ => Err(strange()),
        }
    }

    fn head(&mut self, line: &[u8]) -> Result<State<'a>, Error> {
        let (path, name) = self.files.next().ok_or_else(strange)?;
        // What was listed, or nothing: a size that was not counted is never written.
        if line != format!("{} blob {}", name.id, name.size).as_bytes() {
            return Err(Error::Source(format!(
                "the object of `{}` is missing or broken: {}",
                shown(path.as_bytes()),
                shown(line)
            )));
        }
        match name.kind {
            Kind::Link if name.size == 0 => {
                Err(Error::Source(format!("the link `{}` is empty", shown(path.as_bytes()))))
            }
            Kind::Link => Ok(State::Link(Vec::new(), path, name.size)),
            Kind::Submodule | Kind::Folder => Err(strange()),
            Kind::File { executable } => {
                let mode = if executable { 0o755 } else { 0o644 };
                let file = self.to.create(path, mode).map_err(|error| self.failed(path, error))?;
                Ok(match name.size {
                    0 => State::Tail,
                    size => State::File(file, path, size),
                })
            }
        }
    }

    fn link(&mut self, path: &TreePath, target: &[u8]) -> Result<(), Error> {
        if target.contains(&0) {
            return Err(Error::Source(format!(
                "the target of the link `{}` has a zero byte",
                shown(path.as_bytes())
            )));
        }
        self.to.link(path, target).map_err(|error| self.failed(path, error))
    }

    /// An error of a file. Names that stand in each other's way are the commit's fault.
    fn failed(&self, path: &TreePath, error: std::io::Error) -> Error {
        match Errno::from_io_error(&error) {
            Some(Errno::EXIST | Errno::NOTDIR | Errno::LOOP | Errno::ISDIR) => {
                Error::Source(format!("the commit has two things at `{}`", shown(path.as_bytes())))
            }
            _ => Error::io("create", self.folder.join(super::as_path(path.as_bytes())))(error),
        }
    }
}

fn split(chunk: &[u8], left: u64) -> (&[u8], &[u8]) {
    chunk.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len()))
}

#[cfg(test)]
mod tests;
