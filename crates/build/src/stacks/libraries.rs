//! The dynamic loader's view of a stack: which library every program finds, and the loader's cache.

use std::collections::{BTreeMap, BTreeSet};

use super::elf::Dynamic;
use super::select::Items;

/// A library that a file asks for and that is nowhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Missing {
    pub(crate) library: String,
    /// Who asks.
    pub(crate) file: Vec<u8>,
}

/// The libraries by name.
pub(crate) struct Libraries {
    /// Name of a file → the folders that have one.
    folders: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
    /// Folders that the loader looks in, in its order.
    system: Vec<Vec<u8>>,
}

/// Folder and name of a path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// The path on a merged system without a leading slash: `/lib/x` is `usr/lib/x`.
pub(crate) fn merged(path: &[u8]) -> Vec<u8> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let first = path.split(|&byte| byte == b'/').next().unwrap_or_default();
    match first {
        b"bin" | b"sbin" | b"lib" | b"lib32" | b"lib64" | b"libx32" => [b"usr/", path].concat(),
        _ => path.to_vec(),
    }
}

/// A path without `.`, `..` and double slashes; nothing where it leaves the root.
pub(crate) fn plain(path: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

impl Libraries {
    /// Those of a stack; `configured` are the folders of its `/etc/ld.so.conf`.
    pub(crate) fn of(items: &Items, configured: &[Vec<u8>]) -> Self {
        let mut folders: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for (path, item) in items {
            let (folder, name) = split(path);
            if item.may_be_library() && is_library(name) {
                folders.entry(name.to_vec()).or_default().insert(folder.to_vec());
            }
        }
        let mut system: Vec<Vec<u8>> = Vec::new();
        // The C library's own folders come last: Debian's have the architecture in their name.
        let multiarch = folders.get(b"libc.so.6".as_slice()).into_iter().flatten();
        let fixed = [b"usr/lib64".to_vec(), b"usr/lib".to_vec()];
        for folder in configured.iter().chain(multiarch).cloned().chain(fixed) {
            if !system.contains(&folder) {
                system.push(folder);
            }
        }
        Self { folders, system }
    }

    /// What is asked for by these files and is not there.
    pub(crate) fn missing<'a>(
        &self,
        files: impl Iterator<Item = (&'a Vec<u8>, &'a Dynamic)>,
        items: &Items,
    ) -> BTreeSet<Missing> {
        let mut missing = BTreeSet::new();
        for (path, dynamic) in files {
            let mut tell = |library: &str| {
                missing.insert(Missing { library: library.to_owned(), file: path.clone() });
            };
            if let Some(loader) = &dynamic.interpreter
                && !items.contains_key(&merged(loader.as_bytes()))
            {
                tell(loader);
            }
            for library in &dynamic.needed {
                if !self.finds(path, dynamic, library, items) {
                    tell(library);
                }
            }
        }
        missing
    }

    fn finds(&self, path: &[u8], dynamic: &Dynamic, library: &str, items: &Items) -> bool {
        if library.contains('/') {
            return items.contains_key(&merged(library.as_bytes()));
        }
        let Some(folders) = self.folders.get(library.as_bytes()) else { return false };
        let (own, _) = split(path);
        let own_text = String::from_utf8_lossy(own);
        let mut search = dynamic.search.iter().filter_map(|folder| {
            let origin = format!("/{own_text}");
            let folder = folder.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin);
            plain(&merged(folder.as_bytes()))
        });
        search.any(|folder| folders.contains(&folder))
            || self.system.iter().any(|folder| folders.contains(folder))
            // A plug-in finds what the program that loads it has loaded or searches.
            || dynamic.interpreter.is_none()
    }

    /// The loader's cache of these libraries, where its format is known for this processor.
    pub(crate) fn cache(
        &self,
        dynamic: &BTreeMap<Vec<u8>, Dynamic>,
        items: &Items,
    ) -> Option<Vec<u8>> {
        /// The C library of this processor: `ldconfig -p` shows it as `libc6,x86-64`.
        const LIBC6: i32 = 3;
        let flags = LIBC6
            | match std::env::consts::ARCH {
                "x86_64" => 0x0300,
                "aarch64" => 0x0a00,
                "riscv64" => 0x1000,
                "x86" => 0,
                _ => return None,
            };
        let mut entries: Vec<(&[u8], Vec<u8>)> = Vec::new();
        for (name, folders) in &self.folders {
            if !name.starts_with(b"lib") && !name.starts_with(b"ld-") {
                continue;
            }
            for folder in self.system.iter().filter(|folder| folders.contains(*folder)) {
                let path = [folder, &b"/"[..], name].concat();
                let real = super::select::real(items, &path).unwrap_or_else(|| path.clone());
                let Some(library) = dynamic.get(&real) else { continue };
                let soname = library.soname.as_ref().map(String::as_bytes);
                if soname == Some(name) || (soname.is_none() || name.ends_with(b".so")) {
                    entries.push((name, [b"/", path.as_slice()].concat()));
                }
            }
        }
        // Of one name, the folder that the loader prefers comes first.
        entries.sort_by(|a, b| compare(b.0, a.0));
        Some(write(flags, &entries))
    }
}

/// A name that a library has: `libz.so.1`, `ld-linux.so.2`, `_ssl.so`.
fn is_library(name: &[u8]) -> bool {
    name.ends_with(b".so") || name.windows(4).any(|four| four == b".so.")
}

/// The loader's order of names: digits as numbers.
fn compare(one: &[u8], two: &[u8]) -> std::cmp::Ordering {
    use std::cmp::Ordering;
    let (mut a, mut b) = (one, two);
    let number = |text: &mut &[u8]| {
        let mut value = 0_u64;
        while let Some(digit) = text.first().filter(|byte| byte.is_ascii_digit()) {
            value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            *text = &text[1..];
        }
        value
    };
    loop {
        let order = match (a.first(), b.first()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) => match (x.is_ascii_digit(), y.is_ascii_digit()) {
                (true, true) => number(&mut a).cmp(&number(&mut b)),
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => {
                    let order = x.cmp(y);
                    (a, b) = (&a[1..], &b[1..]);
                    order
                }
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// The file that glibc 2.32 and later reads: a header, an entry for each name, their texts.
fn write(flags: i32, entries: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
    const HEADER: usize = 48;
    const ENTRY: usize = 24;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_ne_bytes();
    let mut texts = Vec::new();
    let start = HEADER + ENTRY * entries.len();
    let mut table = Vec::new();
    for (name, path) in entries {
        let name_at = start + texts.len();
        texts.extend_from_slice(name);
        texts.push(0);
        let path_at = start + texts.len();
        texts.extend_from_slice(path);
        texts.push(0);
        table.extend_from_slice(&flags.to_ne_bytes());
        table.extend_from_slice(&count(name_at));
        table.extend_from_slice(&count(path_at));
        // No version of the system, no special processor.
        table.extend_from_slice(&[0; 12]);
    }
    let endian = if cfg!(target_endian = "little") { 2 } else { 3 };
    let mut file = b"glibc-ld.so.cache1.1".to_vec();
    file.extend_from_slice(&count(entries.len()));
    file.extend_from_slice(&count(texts.len()));
    file.extend_from_slice(&[endian, 0, 0, 0]);
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&table);
    file.extend_from_slice(&texts);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_loaders_order() {
        let mut names = ["libz.so.1", "libz.so.10", "libz.so.9", "liba.so", "libz.so"];
        names.sort_by(|a, b| compare(a.as_bytes(), b.as_bytes()));
        assert_eq!(names, ["liba.so", "libz.so", "libz.so.1", "libz.so.9", "libz.so.10"]);
    }

    #[test]
    fn paths_are_those_of_a_merged_system() {
        assert_eq!(merged(b"/lib64/ld.so"), b"usr/lib64/ld.so");
        assert_eq!(merged(b"/usr/bin/sh"), b"usr/bin/sh");
        assert_eq!(merged(b"/library/x"), b"library/x");
        assert_eq!(plain(b"usr/./lib//x/../y").unwrap(), b"usr/lib/y");
        assert_eq!(plain(b"usr/../.."), None);
    }
}
