//! Which files of a machine make a stack: those of listed packages and of what they depend on, at
//! their places on a merged system.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use tolv_model::stack::Package;

use super::elf::{self, Dynamic};
use super::libraries::{Libraries, Missing, merged, plain, split};
use super::lists::{self, List};
use super::machine::Machine;
use crate::links::{self, Leads};
use crate::source::as_path;
use crate::{Error, files};

/// What stands at a path of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Folder,
    /// A file of the machine.
    File {
        from: PathBuf,
        size: u64,
    },
    /// A file that is written here.
    Text(Vec<u8>),
    /// A relative link.
    Link(Vec<u8>),
}

impl Item {
    pub(crate) fn may_be_library(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Link(_))
    }
}

/// A stack's paths, without a leading slash.
pub(crate) type Items = BTreeMap<Vec<u8>, Item>;

/// The files of one layer.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    pub(crate) items: Items,
    /// Sorted by name.
    pub(crate) packages: Vec<Package>,
}

/// The layers of a stack.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) run: Layer,
    /// What the build view has in addition.
    pub(crate) build: Layer,
    /// Entries of the list of which nothing is installed.
    pub(crate) not_installed: Vec<&'static str>,
    /// Libraries that the machine itself lacks.
    pub(crate) missing: Vec<Missing>,
}

/// Selects the files of a listed stack.
pub(crate) fn select(machine: &Machine, list: &List) -> Result<Selection, Error> {
    let mut selector = Selector { machine, dynamic: BTreeMap::new(), owners: None };
    let names = || machine.packages.keys().map(String::as_str);
    let mut not_installed = Vec::new();
    let mut roots = BTreeSet::new();
    for entry in list.required {
        let found = lists::matches(entry, names());
        if found.is_empty() {
            return Err(Error::Stack {
                problem: format!("the package {entry} is not installed on this machine"),
                help: "install it, or choose a stack of another source (TOLV_STACK)".to_owned(),
            });
        }
        roots.extend(found.into_iter().map(str::to_owned));
    }
    let mut add = |entries: &[&'static [&'static str]], roots: &mut BTreeSet<String>| {
        for entry in entries.iter().copied().flatten() {
            let found = lists::matches(entry, names());
            if found.is_empty() {
                not_installed.push(*entry);
            }
            roots.extend(found.into_iter().map(str::to_owned));
        }
    };
    add(list.run, &mut roots);
    let (run, missing) = selector.whole(&mut roots)?;
    let mut roots = roots.clone();
    add(list.build, &mut roots);
    let (mut build, more) = selector.whole(&mut roots)?;
    build.items.retain(|path, item| run.items.get(path) != Some(item));
    build.packages.retain(|package| run.packages.binary_search(package).is_err());
    with_parents(&mut build.items);
    let missing: BTreeSet<_> = missing.into_iter().chain(more).collect();
    not_installed.sort_unstable();
    not_installed.dedup();
    Ok(Selection { run, build, not_installed, missing: missing.into_iter().collect() })
}

/// Name of a library → its paths, and whose they are.
type Owners = BTreeMap<Vec<u8>, Vec<(Vec<u8>, String)>>;

struct Selector<'a> {
    machine: &'a Machine,
    /// What was read of programs and libraries, by their place on the machine.
    dynamic: BTreeMap<PathBuf, Option<Dynamic>>,
    /// Libraries of all packages.
    owners: Option<Owners>,
}

impl Selector<'_> {
    /// The files of these packages, of what they depend on, and of the packages that have libraries
    /// which those need; `roots` grows by the latter.
    fn whole(&mut self, roots: &mut BTreeSet<String>) -> Result<(Layer, BTreeSet<Missing>), Error> {
        loop {
            let names = closure(self.machine, roots);
            let mut items = Items::new();
            for name in &names {
                if let Some(installed) = self.machine.packages.get(name) {
                    self.add_files(&installed.package, &mut items)?;
                }
            }
            self.add_certificates(&mut items)?;
            add_alternatives(self.machine, &mut items);
            add_fixed(&mut items);
            with_parents(&mut items);
            let dynamic = self.read_dynamic(&items)?;
            add_sonames(&mut items, &dynamic);
            drop_dangling(&mut items);
            let libraries = Libraries::of(&items, &configured(&items)?);
            let mut missing = libraries.missing(dynamic.iter(), &items);
            let mut found = BTreeSet::new();
            for one in &missing {
                found.extend(self.owner(&one.library)?.filter(|owner| !names.contains(owner)));
            }
            if !found.is_empty() {
                roots.extend(found);
                continue;
            }
            // What the machine itself lacks cannot be taken from it.
            missing.retain(|one| !self.is_optional(one));
            if let Some(cache) = libraries.cache(&dynamic, &items) {
                items.insert(b"etc/ld.so.cache".to_vec(), Item::Text(cache));
            }
            let packages = names.iter().filter_map(|name| self.machine.packages.get(name));
            let packages = packages.map(|installed| installed.package.clone()).collect();
            return Ok((Layer { items, packages }, missing));
        }
    }

    /// A plug-in that is there for a program which is not is no loss.
    fn is_optional(&self, missing: &Missing) -> bool {
        let (folder, _) = split(&missing.file);
        !folder.ends_with(b"bin") && !missing.library.contains("ld-")
    }

    fn add_files(&self, package: &Package, items: &mut Items) -> Result<(), Error> {
        for listed in self.machine.files(package)? {
            let Some(path) = plain(&merged(&listed.path)) else { continue };
            if path.is_empty() || !lists::enters(&path) {
                continue;
            }
            let from = self
                .machine
                .root
                .join(as_path(&listed.at[usize::from(listed.at.starts_with(b"/"))..]));
            let Some(item) = self.item(&path, &from)? else { continue };
            match items.get(&path) {
                None | Some(Item::Link(_)) => drop(items.insert(path, item)),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// What stands at a place of the machine; nothing where it is gone or does not belong into a
    /// stack: what not everybody may read, what somebody else than root may change, and devices.
    fn item(&self, path: &[u8], from: &Path) -> Result<Option<Item>, Error> {
        let meta = match from.symlink_metadata() {
            Ok(meta) => meta,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Error::io("look at", from)(error)),
        };
        if meta.is_dir() {
            return Ok(Some(Item::Folder));
        }
        if meta.is_symlink() {
            let target = std::fs::read_link(from).map_err(Error::io("read", from))?;
            return Ok(link(path, target.as_os_str().as_bytes()));
        }
        let is_safe = meta.is_file() && meta.mode() & 0o004 != 0 && meta.mode() & 0o002 == 0;
        Ok(is_safe.then(|| Item::File { from: from.to_owned(), size: meta.len() }))
    }

    /// The certificates that the machine trusts, which no package has: `update-ca-certificates`
    /// makes them of its packages and of what the operator has added.
    fn add_certificates(&self, items: &mut Items) -> Result<(), Error> {
        let folder = self.machine.root.join("etc/ssl/certs");
        let Ok(list) = std::fs::read_dir(&folder) else { return Ok(()) };
        for entry in list {
            let entry = entry.map_err(Error::io("read", &folder))?;
            let path = [b"etc/ssl/certs/", entry.file_name().as_bytes()].concat();
            let from = entry.path();
            let item = self.item(&path, &from)?;
            // Operators put theirs into /usr/local, which is no part of a stack: the certificate
            // itself is taken.
            let item = match &item {
                Some(Item::Link(target)) if is_outside(&path, target) => {
                    match from.canonicalize() {
                        Ok(real) => self.item(&path, &real)?,
                        Err(_) => None,
                    }
                }
                _ => item,
            };
            if let Some(item) = item.filter(|item| *item != Item::Folder) {
                items.entry(path).or_insert(item);
            }
        }
        Ok(())
    }

    /// What every program and library of the stack needs, by its path there.
    fn read_dynamic(&mut self, items: &Items) -> Result<BTreeMap<Vec<u8>, Dynamic>, Error> {
        let mut all = BTreeMap::new();
        for (path, item) in items {
            let Item::File { from, .. } = item else { continue };
            if path.starts_with(b"usr/share/")
                || path.starts_with(b"usr/include/")
                || path.starts_with(b"etc/")
            {
                continue;
            }
            if !self.dynamic.contains_key(from) {
                let found = match elf::dynamic(from) {
                    Ok(found) => found,
                    // Gone meanwhile: the copy finds out why.
                    Err(error) if files::is_missing_or_link(&error) => None,
                    Err(error) => return Err(Error::io("read", from)(error)),
                };
                self.dynamic.insert(from.clone(), found);
            }
            if let Some(Some(found)) = self.dynamic.get(from) {
                all.insert(path.clone(), found.clone());
            }
        }
        Ok(all)
    }

    /// The package with a library of this name, in a folder that the loader looks in.
    fn owner(&mut self, library: &str) -> Result<Option<String>, Error> {
        if self.owners.is_none() {
            let mut owners = Owners::new();
            for (name, installed) in &self.machine.packages {
                for listed in self.machine.files(&installed.package)? {
                    let (_, file) = split(&listed.path);
                    if file.windows(3).any(|three| three == b".so") {
                        let owner = (merged(&listed.path), name.clone());
                        owners.entry(file.to_vec()).or_default().push(owner);
                    }
                }
            }
            self.owners = Some(owners);
        }
        let (_, name) = split(library.as_bytes());
        let found = self.owners.as_ref().and_then(|owners| owners.get(name));
        let is_system = |path: &[u8]| {
            let (folder, _) = split(path);
            let rest = folder.strip_prefix(b"usr/lib").unwrap_or(b"/no/");
            rest.iter().filter(|&&byte| byte == b'/').count() <= 1
        };
        let found = found.into_iter().flatten().find(|(path, _)| is_system(path));
        Ok(found.map(|(_, owner)| owner.clone()))
    }
}

/// These packages and what they depend on.
fn closure(machine: &Machine, roots: &BTreeSet<String>) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = roots.clone();
    let mut open: Vec<String> = roots.iter().cloned().collect();
    while let Some(name) = open.pop() {
        let Some(installed) = machine.packages.get(&name) else { continue };
        for group in &installed.depends {
            if group.iter().any(|name| lists::NOT_FOLLOWED.contains(&name.as_str())) {
                continue;
            }
            let candidates: Vec<&str> = group.iter().flat_map(|name| machine.named(name)).collect();
            let one = candidates.iter().find(|name| all.contains(**name)).or(candidates.first());
            if let Some(name) = one.filter(|name| !all.contains(**name)) {
                all.insert((*name).to_owned());
                open.push((*name).to_owned());
            }
        }
    }
    all
}

/// The same link, relative, at its place in the stack; nothing where it leads to itself, out of the
/// root or into what no stack has.
fn link(path: &[u8], target: &[u8]) -> Option<Item> {
    let (folder, _) = split(path);
    let whole = match target.starts_with(b"/") {
        true => merged(target),
        false => [folder, b"/", target].concat(),
    };
    let whole = merged(&plain(&whole)?);
    (whole != path).then(|| Item::Link(relative(path, &whole)))
}

/// The shortest way from a link to a path of the same tree.
fn relative(path: &[u8], to: &[u8]) -> Vec<u8> {
    let (folder, _) = split(path);
    let here: Vec<&[u8]> = folder.split(|&b| b == b'/').filter(|part| !part.is_empty()).collect();
    let there: Vec<&[u8]> = to.split(|&b| b == b'/').collect();
    let same = here.iter().zip(&there).take_while(|(a, b)| a == b).count();
    let mut parts = vec![&b".."[..]; here.len() - same];
    parts.extend(&there[same..]);
    match parts.is_empty() {
        true => b".".to_vec(),
        false => parts.join(&b'/'),
    }
}

fn is_outside(path: &[u8], target: &[u8]) -> bool {
    match links::follow(path, target, &|_| None) {
        Leads::Inside(to) => !lists::enters(&to),
        Leads::Outside => true,
    }
}

/// Names that several packages can stand behind lead to one that is in the stack: the machine's
/// choice, else the one with the highest priority.
fn add_alternatives(machine: &Machine, items: &mut Items) {
    let has = |items: &Items, path: &[u8]| items.contains_key(&merged(path));
    let mut chosen: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for group in &machine.alternatives {
        let stands = |(_, paths): &&(i64, Vec<Vec<u8>>)| has(items, &paths[0]);
        let own = group
            .choices
            .iter()
            .filter(stands)
            .find(|(_, paths)| Some(&paths[0]) == group.chosen.as_ref());
        let best = || group.choices.iter().filter(stands).max_by_key(|(priority, _)| *priority);
        let Some((_, paths)) = own.or_else(best) else { continue };
        for ((name, link), path) in group.names.iter().zip(paths) {
            if path.is_empty() || !has(items, path) {
                continue;
            }
            chosen.insert([b"etc/alternatives/", name.as_slice()].concat(), merged(path));
            let at = merged(link);
            if lists::enters(&at) && at != merged(path) {
                let target = relative(&at, &merged(path));
                items.entry(at).or_insert(Item::Link(target));
            }
        }
    }
    // Packages have links into /etc/alternatives of their own.
    for (path, item) in items.iter_mut() {
        let Item::Link(target) = item else { continue };
        if let Leads::Inside(to) = links::follow(path, target, &|_| None)
            && let Some(real) = chosen.get(&to)
        {
            *target = relative(path, real);
        }
    }
}

/// What is the same in every stack, whatever the machine's own says.
fn add_fixed(items: &mut Items) {
    const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n\
                            networks: files\nprotocols: files\nservices: files\nethers: files\n\
                            rpc: files\n";
    let mut put = |path: &str, item| drop(items.insert(path.as_bytes().to_vec(), item));
    put("etc/nsswitch.conf", Item::Text(NSSWITCH.as_bytes().to_vec()));
    put("etc/timezone", Item::Text(b"Etc/UTC\n".to_vec()));
    put("etc/localtime", Item::Link(b"../usr/share/zoneinfo/Etc/UTC".to_vec()));
}

/// What `ldconfig` does when a package is installed: a link with the library's own name.
fn add_sonames(items: &mut Items, dynamic: &BTreeMap<Vec<u8>, Dynamic>) {
    for (path, library) in dynamic {
        let (folder, name) = split(path);
        let Some(soname) = library.soname.as_ref().filter(|name| !name.contains('/')) else {
            continue;
        };
        let depth = folder.iter().filter(|&&byte| byte == b'/').count();
        if depth <= 2 && name.starts_with(b"lib") && name != soname.as_bytes() {
            let at = [folder, b"/", soname.as_bytes()].concat();
            items.entry(at).or_insert_with(|| Item::Link(name.to_vec()));
        }
    }
}

/// The folders of the stack's `/etc/ld.so.conf`.
fn configured(items: &Items) -> Result<Vec<Vec<u8>>, Error> {
    let mut folders = Vec::new();
    let wanted = |path: &[u8]| {
        path == b"etc/ld.so.conf"
            || path.starts_with(b"etc/ld.so.conf.d/") && path.ends_with(b".conf")
    };
    for item in items.iter().filter(|(path, _)| wanted(path)).map(|(_, item)| item) {
        let Item::File { from, .. } = item else { continue };
        let bytes = match files::read(from) {
            Err(error) if files::is_missing_or_link(&error) => continue,
            read => read.map_err(Error::io("read", from))?,
        };
        for line in bytes.split(|&byte| byte == b'\n') {
            let line = line.split(|&byte| byte == b'#').next().unwrap_or_default().trim_ascii();
            let folder = plain(&merged(line)).filter(|_| line.starts_with(b"/"));
            folders.extend(folder.filter(|folder| !folder.starts_with(b"usr/local")));
        }
    }
    Ok(folders)
}

/// Makes the folders above everything.
fn with_parents(items: &mut Items) {
    let mut folders = BTreeSet::new();
    for path in items.keys() {
        let mut rest = split(path).0;
        while !rest.is_empty() && folders.insert(rest.to_vec()) {
            rest = split(rest).0;
        }
    }
    for folder in folders {
        // A link here means that the machine has moved a folder; what is below it stays reachable
        // because the folder takes its place.
        match items.get(&folder) {
            Some(Item::Folder) => {}
            _ => drop(items.insert(folder, Item::Folder)),
        }
    }
}

/// The path that is not a link behind a path.
pub(crate) fn real(items: &Items, path: &[u8]) -> Option<Vec<u8>> {
    /// As many as the kernel follows.
    const MAX_LINKS: usize = 40;
    let followed = Cell::new(0);
    let target = |at: &[u8]| match items.get(at) {
        Some(Item::Link(target)) => {
            followed.set(followed.get() + 1);
            Some(target.as_slice())
        }
        _ => None,
    };
    match target(path) {
        None => items.contains_key(path).then(|| path.to_vec()),
        Some(to) => match links::follow(path, to, &target) {
            Leads::Inside(real) => {
                let ends = followed.get() <= MAX_LINKS && items.contains_key(&real);
                ends.then_some(real)
            }
            Leads::Outside => None,
        },
    }
}

/// Drops links that lead to nothing that the stack has.
fn drop_dangling(items: &mut Items) {
    let dangling: Vec<Vec<u8>> = items
        .iter()
        .filter(|(path, item)| matches!(item, Item::Link(_)) && real(items, path).is_none())
        .map(|(path, _)| path.clone())
        .collect();
    for path in dangling {
        items.remove(&path);
    }
}
