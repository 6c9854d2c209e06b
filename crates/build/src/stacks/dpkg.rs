//! dpkg's database: `/var/lib/dpkg`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tolv_model::stack::Package;

use super::machine::{Alternative, Diversions, Installed, Listed, Machine, stamps};
use crate::source::as_path;
use crate::{Error, files};

/// The list of packages, below the root.
pub(crate) const STATUS: &str = "var/lib/dpkg/status";

/// Reads it.
pub(crate) fn read(root: &Path) -> Result<Machine, Error> {
    let folder = root.join("var/lib/dpkg");
    let status = root.join(STATUS);
    let watched = vec![status.clone(), folder.join("updates")];
    let stamp = stamps(&watched);
    if has_updates(&folder) {
        return Err(Error::PackagesChange);
    }
    let text = read_text(&status)?;
    let mut machine = Machine {
        root: root.to_owned(),
        packages: BTreeMap::new(),
        provided: BTreeMap::new(),
        alternatives: alternatives(&folder.join("alternatives")),
        info: folder.join("info"),
        diversions: diversions(&folder.join("diversions"))?,
        watched,
        stamp,
    };
    let all: Vec<Fields<'_>> = stanzas(&text).filter(|fields| is_installed(fields)).collect();
    let native = all
        .iter()
        .find(|fields| fields.get("Package") == Some(&"dpkg"))
        .and_then(|fields| fields.get("Architecture"))
        .copied();
    for fields in all {
        let (Some(name), Some(version), Some(architecture)) =
            (fields.get("Package"), fields.get("Version"), fields.get("Architecture"))
        else {
            continue;
        };
        // Packages of a foreign architecture stand beside the native ones under the same names.
        if *architecture != "all" && native.is_some_and(|native| native != *architecture) {
            continue;
        }
        let package = Package {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            architecture: (*architecture).to_owned(),
        };
        if package.name.contains('/') {
            return Err(unreadable(&status, &format!("the package name `{name}`")));
        }
        let depends =
            ["Pre-Depends", "Depends"].iter().filter_map(|field| fields.get(field)).copied();
        let depends = depends.flat_map(dependencies).collect();
        for provided in fields.get("Provides").copied().into_iter().flat_map(dependencies) {
            for other in provided {
                machine.provided.entry(other).or_default().insert(package.name.clone());
            }
        }
        machine.packages.insert(package.name.clone(), Installed { package, depends });
    }
    Ok(machine)
}

fn read_text(path: &Path) -> Result<String, Error> {
    let bytes = files::read(path).map_err(Error::io("read", path))?;
    String::from_utf8(bytes).map_err(|_| unreadable(path, "bytes that are not UTF-8"))
}

fn unreadable(path: &Path, what: &str) -> Error {
    Error::Stack {
        problem: format!("dpkg's `{}` has {what}", path.display()),
        help: "see what dpkg says: dpkg --audit".to_owned(),
    }
}

/// Whether dpkg has begun something that its list of packages does not say yet.
fn has_updates(folder: &Path) -> bool {
    let list = std::fs::read_dir(folder.join("updates"));
    list.into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
}

type Fields<'a> = BTreeMap<&'a str, &'a str>;

/// The paragraphs of a control file. Of a field with several lines, the first.
pub(crate) fn stanzas(text: &str) -> impl Iterator<Item = Fields<'_>> {
    text.split("\n\n").filter_map(|stanza| {
        let lines = stanza.lines().filter(|line| !line.starts_with([' ', '\t']));
        let fields: Fields<'_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name, value.trim()))
            .collect();
        (!fields.is_empty()).then_some(fields)
    })
}

fn is_installed(fields: &Fields<'_>) -> bool {
    fields.get("Status").is_some_and(|status| status.split(' ').next_back() == Some("installed"))
}

/// `a (>= 1), b:any | c [amd64]` → [[a], [b, c]].
pub(crate) fn dependencies(text: &str) -> impl Iterator<Item = Vec<String>> {
    let name = |one: &str| {
        let end = one.find([' ', '(', '[', ':', '<']).unwrap_or(one.len());
        one[..end].to_owned()
    };
    let all = move |group: &str| -> Vec<String> {
        group.split('|').map(|one| name(one.trim())).filter(|name| !name.is_empty()).collect()
    };
    text.split(',').map(all).filter(|group| !group.is_empty())
}

/// The files of a package, each at the place where it really is.
pub(crate) fn files(
    info: &Path,
    diversions: &Diversions,
    package: &Package,
) -> Result<Vec<Listed>, Error> {
    let names = [
        format!("{}.list", package.name),
        format!("{}:{}.list", package.name, package.architecture),
    ];
    let paths = names.map(|name| info.join(name));
    let path = paths.iter().find(|path| path.is_file()).unwrap_or(&paths[0]);
    let bytes = files::read(path).map_err(Error::io("read", path))?;
    let mut listed = Vec::new();
    for path in bytes.split(|&byte| byte == b'\n').filter(|path| !path.is_empty()) {
        let at = match diversions.get(path) {
            Some((at, by)) if *by != package.name => at,
            _ => path,
        };
        listed.push(Listed { path: path.to_vec(), at: at.to_vec() });
    }
    Ok(listed)
}

/// Three lines each: the path, where it was moved, and the package that wants the path.
fn diversions(path: &Path) -> Result<Diversions, Error> {
    let bytes = match files::read(path) {
        Err(error) if files::is_missing_or_link(&error) => return Ok(BTreeMap::new()),
        read => read.map_err(Error::io("read", path))?,
    };
    let lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    let entries = lines.chunks_exact(3).map(|three| {
        (three[0].to_vec(), (three[1].to_vec(), String::from_utf8_lossy(three[2]).into_owned()))
    });
    Ok(entries.collect())
}

/// The groups of `update-alternatives`; one that cannot be read is none.
fn alternatives(folder: &Path) -> Vec<Alternative> {
    let list = std::fs::read_dir(folder);
    let mut paths: Vec<PathBuf> =
        list.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let group = files::read(path).ok()?;
        let name = std::os::unix::ffi::OsStrExt::as_bytes(path.file_name()?);
        let mut one = alternative(name, &group)?;
        let chosen = folder.join("../../../../etc/alternatives").join(as_path(name));
        let chosen = std::fs::read_link(chosen).ok();
        one.chosen = chosen.map(|to| to.into_os_string().into_encoded_bytes());
        Some(one)
    };
    paths.iter().filter_map(read).collect()
}

/// A group: `auto` or `manual`; the path; a name and a path of each that follows, and an empty line;
/// then of each choice the path, the priority, and the path for each that follows.
fn alternative(name: &[u8], text: &[u8]) -> Option<Alternative> {
    let mut lines = text.split(|&byte| byte == b'\n');
    lines.next()?;
    let mut group = Alternative {
        names: vec![(name.to_vec(), lines.next()?.to_vec())],
        ..Alternative::default()
    };
    loop {
        let name = lines.next()?;
        if name.is_empty() {
            break;
        }
        group.names.push((name.to_vec(), lines.next()?.to_vec()));
    }
    loop {
        let Some(path) = lines.next().filter(|path| !path.is_empty()) else { return Some(group) };
        let priority = std::str::from_utf8(lines.next()?).ok()?.trim().parse().ok()?;
        let mut choice = vec![path.to_vec()];
        for _ in 1..group.names.len() {
            choice.push(lines.next()?.to_vec());
        }
        group.choices.push((priority, choice));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_has_fields_and_dependencies_have_alternatives() {
        let text =
            "Package: a\nStatus: install ok installed\nDescription: x\n more: y\n\nPackage: b\n";
        let all: Vec<_> = stanzas(text).collect();
        assert_eq!(all.len(), 2);
        assert!(is_installed(&all[0]) && !is_installed(&all[1]));
        assert_eq!(all[0].get("more"), None);
        let found: Vec<_> =
            dependencies("libc6 (>= 2.36), awk:any | mawk [amd64],, x<!y>").collect();
        assert_eq!(found, [vec!["libc6"], vec!["awk", "mawk"], vec!["x"]]);
    }

    #[test]
    fn a_group_of_alternatives_has_what_follows_it() {
        let text = b"auto\n/usr/bin/awk\nawk.1.gz\n/m/awk.1.gz\n\n/usr/bin/mawk\n5\n/m/mawk.1.gz\n\
                     /usr/bin/gawk\n10\n\n\n";
        let group = alternative(b"awk", text).unwrap();
        assert_eq!(group.names[0], (b"awk".to_vec(), b"/usr/bin/awk".to_vec()));
        assert_eq!(
            group.choices[0],
            (5, vec![b"/usr/bin/mawk".to_vec(), b"/m/mawk.1.gz".to_vec()])
        );
        assert_eq!(group.choices[1], (10, vec![b"/usr/bin/gawk".to_vec(), Vec::new()]));
        assert_eq!(alternative(b"awk", b"auto\n/usr/bin/awk"), None);
    }
}
