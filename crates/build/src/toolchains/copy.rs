//! Copying what the machine has into the folder of toolchains, once for each state of it.
//!
//! What runs is the copy: an upgrade or a removal on the machine changes no release and no build.
//! Libraries that programs need and that no stack has are copied into the toolchain's `lib`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};
use tolv_model::slug::Digest;

use super::Toolchains;
use super::store::{Kept, Made};
use crate::files::{self, Lock};
use crate::{Error, Event};

/// Libraries that the smallest stack has: beginnings of their names.
const STACK_LIBRARIES: [&str; 34] = [
    "ld-linux",
    "ld-musl",
    "libBrokenLocale.so",
    "libanl.so",
    "libbz2.so",
    "libc.musl",
    "libc.so",
    "libc_malloc_debug.so",
    "libcrypto.so",
    "libdl.so",
    "libexpat.so",
    "libffi.so",
    "libform",
    "libgcc_s.so",
    "liblzma.so",
    "libm.so",
    "libmariadb.so",
    "libmenu",
    "libmvec.so",
    "libncurses",
    "libnss_",
    "libpanel",
    "libpq.so",
    "libpthread.so",
    "libreadline.so",
    "libresolv.so",
    "librt.so",
    "libsqlite3.so",
    "libssl.so",
    "libstdc++.so",
    "libtinfo",
    "libutil.so",
    "libuuid.so",
    "libz.so",
];

/// Programs that one `ldd` looks at.
const MAX_PROGRAMS: usize = 500;

/// Files of the machine, and where they go in the copy.
#[derive(Debug, Default)]
pub(super) struct Files {
    found: BTreeMap<PathBuf, PathBuf>,
}

impl Files {
    /// Adds a regular file, or what a link leads to. A link to a name in the same folder stays one.
    /// Nothing where there is none.
    pub(super) fn add(&mut self, from: &Path, to: impl Into<PathBuf>) {
        let Some(real) = from.canonicalize().ok().filter(|real| real.is_file()) else { return };
        let is_alias = |target: PathBuf| target.components().count() == 1 && target.is_relative();
        let stays = fs::read_link(from).is_ok_and(is_alias);
        self.found.insert(to.into(), if stays { from.to_owned() } else { real });
    }

    /// Adds a folder with all below it that `wanted` says of its path there. A link that leads out
    /// of the folder is replaced by the file that it leads to; one to a folder elsewhere is left
    /// out.
    pub(super) fn add_all(
        &mut self,
        folder: &Path,
        to: &Path,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<(), Error> {
        let Ok(root) = folder.canonicalize() else { return Ok(()) };
        if !root.is_dir() {
            return Ok(());
        }
        let shown = |path: &[u8]| std::str::from_utf8(path).ok().map(str::to_owned);
        let found = files::walk(&root, files::MAX_COUNTED, &|| false, &mut |found| {
            Ok(shown(&found.path).is_some_and(|path| wanted(&path)))
        })?;
        for found in found {
            let Some(path) = shown(&found.path).filter(|path| wanted(path)) else { continue };
            if found.meta.is_symlink() {
                let Ok(real) = found.full.canonicalize() else { continue };
                let leads_inside = real.starts_with(&root)
                    && fs::read_link(&found.full).is_ok_and(|target| target.is_relative());
                match leads_inside || real.is_file() {
                    true if leads_inside => self.found.insert(to.join(&path), found.full),
                    true => self.found.insert(to.join(&path), real),
                    false => None,
                };
            } else if found.meta.is_file() {
                self.found.insert(to.join(&path), found.full);
            }
        }
        Ok(())
    }

    /// What the files look like to the kernel: another digest once one of them was replaced.
    fn stamp(&self) -> Result<Digest, Error> {
        let mut hash = Sha256::new();
        for (to, from) in &self.found {
            let meta = from.symlink_metadata().map_err(Error::io("look at", from))?;
            for path in [to, from] {
                hash.update((path.as_os_str().len() as u64).to_be_bytes());
                hash.update(path.as_os_str().as_bytes());
            }
            for number in [meta.dev(), meta.ino(), meta.size(), u64::from(meta.mode())] {
                hash.update(number.to_be_bytes());
            }
            hash.update(meta.ctime().to_be_bytes());
            hash.update(meta.ctime_nsec().to_be_bytes());
        }
        Ok(Digest(hash.finalize().into()))
    }

    fn copy(&self, part: &Path, cancelled: &dyn Fn() -> bool) -> Result<(), Error> {
        for (to, from) in &self.found {
            if cancelled() {
                return Err(Error::Cancelled);
            }
            let to = part.join(to);
            if let Some(folder) = to.parent() {
                files::make_folder(folder)?;
            }
            let meta = from.symlink_metadata().map_err(Error::io("look at", from))?;
            if meta.is_symlink() {
                let target = fs::read_link(from).map_err(Error::io("read", from))?;
                symlink(target, &to).map_err(Error::io("create", &to))?;
            } else {
                // Shares the blocks where the file system can.
                fs::copy(from, &to).map_err(Error::io("copy", from))?;
            }
        }
        Ok(())
    }
}

impl Toolchains<'_> {
    /// The copy of what `files` names; made where it is missing, or where one of the files has
    /// changed since.
    ///
    /// `finish` gets the copy before it is sealed, and says no to one that does not run.
    pub(super) fn copied(
        &mut self,
        (kind, version): (&str, &str),
        program: &Path,
        files: &Files,
        finish: impl FnOnce(&mut Self, &Path) -> Result<(), Error>,
    ) -> Result<Kept, Error> {
        let source = format!("{} {}", program.display(), files.stamp()?);
        let same = |kept: &Kept| kept.made.source.as_ref() == Some(&source);
        let find = |chains: &mut Self| -> Result<Option<Kept>, Error> {
            let found = chains.store().kept(kind).into_iter().find(same);
            Ok(found.map(|kept| chains.usable(kept)).transpose()?.flatten())
        };
        if let Some(kept) = find(self)? {
            return Ok(kept);
        }
        files::make_folder(&self.folder)?;
        let lock = self.folder.join(format!(".{kind}-{version}.lock"));
        let _lock = Lock::take(&lock, &|| (self.cancelled)(), &mut || {})?;
        if let Some(kept) = find(self)? {
            return Ok(kept);
        }
        self.say(Event::line(format!(
            "Copying {kind} {version} of this machine ({})",
            program.display()
        )));
        let part = self.folder.join(format!(".{kind}-{version}.part"));
        files::remove(&part)?;
        files::make_folder(&part)?;
        let made = files.copy(&part, &|| (self.cancelled)()).and_then(|()| {
            relocate(&part, program)?;
            let has_libraries = carry_libraries(&part)?;
            finish(self, &part)?;
            let made = Made { source: Some(source.clone()), has_libraries };
            self.store().put((kind, version), made, &part, (self.proofs, &|| (self.cancelled)()))
        });
        if made.is_err() {
            // The first error is the one to tell; the next copy begins with removing it too.
            files::remove(&part).ok();
        }
        made
    }

    /// A toolchain that is what it was when it was made; nothing for one that has changed, which is
    /// told and made again.
    pub(super) fn usable(&mut self, kept: Kept) -> Result<Option<Kept>, Error> {
        match self.store().proven_before(&kept.name, self.proofs)? {
            Ok(()) => Ok(Some(kept)),
            Err(why) => {
                let name = &kept.name;
                self.say(Event::Warning(format!("toolchain {name} {why}: it is made again")));
                self.store().forget(name)?;
                Ok(None)
            }
        }
    }

    /// What a wish got before, where it is as it was and still fits.
    pub(super) fn chosen(
        &mut self,
        wish: &str,
        fits: impl FnOnce(&Kept) -> bool,
    ) -> Result<Option<Kept>, Error> {
        match self.store().chosen(wish).filter(fits) {
            Some(kept) => self.usable(kept),
            None => Ok(None),
        }
    }
}

/// Lets the copy's programs look for libraries in the copy's `lib` where they would in the `lib`
/// beside the original, whose path was written into them.
fn relocate(part: &Path, program: &Path) -> Result<(), Error> {
    const OWN: &[u8] = b"$ORIGIN/../lib";
    let Some(prefix) = program.parent().and_then(Path::parent) else { return Ok(()) };
    let lib = prefix.join("lib");
    let written = lib.as_os_str().as_bytes();
    // A string that is shorter has no room for the other one.
    if prefix == Path::new("/usr") || written.len() < OWN.len() {
        return Ok(());
    }
    let needle = [b"\0", written, b"\0"].concat();
    for entry in fs::read_dir(part.join("bin")).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_symlink() || !is_elf(&path) {
            continue;
        }
        let mut bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let Some(at) = memchr::memmem::find(&bytes, &needle) else { continue };
        let place = &mut bytes[at + 1..at + 1 + written.len()];
        place.fill(0);
        place[..OWN.len()].copy_from_slice(OWN);
        let mode = files::is_executable(&path.metadata().map_err(Error::io("look at", &path))?);
        files::remove(&path)?;
        fs::write(&path, bytes).map_err(Error::io("write", &path))?;
        files::set_mode(&path, if mode { 0o755 } else { 0o644 })?;
    }
    Ok(())
}

/// Copies the libraries that the tree's programs need and that no stack has into its `lib`. Says
/// whether the programs have to be told to look there.
pub(super) fn carry_libraries(part: &Path) -> Result<bool, Error> {
    let mut has_libraries = false;
    let found = files::walk(part, files::MAX_COUNTED, &|| false, &mut |_| Ok(true))?;
    let programs = found.into_iter().filter(|found| found.meta.is_file()).map(|found| found.full);
    let programs: Vec<PathBuf> = programs.filter(|path| is_elf(path)).collect();
    let lib = part.join("lib");
    for programs in programs.chunks(MAX_PROGRAMS) {
        for (name, path) in needed(programs)? {
            if path.as_ref().is_some_and(|path| path.starts_with(part)) {
                continue;
            }
            let carried = lib.join(&name);
            match path {
                // Beside its programs already, which look elsewhere.
                _ if carried.is_file() => {}
                Some(path) => {
                    files::make_folder(&lib)?;
                    fs::copy(&path, &carried).map_err(Error::io("copy", &path))?;
                }
                None => continue,
            }
            has_libraries = true;
        }
    }
    Ok(has_libraries)
}

fn is_elf(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = files::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *b"\x7fELF"
}

/// Libraries that programs need beyond those of every stack: name, and where the machine has it.
fn needed(programs: &[PathBuf]) -> Result<BTreeSet<(String, Option<PathBuf>)>, Error> {
    let mut command = Command::new("ldd");
    command.args(programs).current_dir("/").stdin(Stdio::null()).env_clear();
    command.env("LANG", "C.UTF-8").env("PATH", super::PROGRAM_PATH);
    // It fails where one of them is no dynamic program; what it says of the others holds.
    let output = command.output().map_err(Error::io("run", "ldd"))?;
    Ok(listed(&String::from_utf8_lossy(&output.stdout)))
}

fn listed(said: &str) -> BTreeSet<(String, Option<PathBuf>)> {
    let mut all = BTreeSet::new();
    for line in said.lines() {
        let Some((name, rest)) = line.trim().split_once(" => ") else { continue };
        if name.contains('/') || STACK_LIBRARIES.iter().any(|known| name.starts_with(known)) {
            continue;
        }
        let path = rest.rsplit_once(" (0x").map(|(path, _)| PathBuf::from(path));
        all.insert((name.to_owned(), path.filter(|path| path.is_absolute())));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_no_stack_has_are_listed() {
        let said = "/x/_dbm.so:\n\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibdb-5.3.so => /usr/lib/libdb-5.3.so (0x00007f1c)\n\
                    \tlibc.so.6 => /lib/libc.so.6 (0x00007f1c)\n\
                    \tlibgone.so.1 => not found\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f1c)\n/x/a.so:\n\tstatically linked\n";
        let db = Some(PathBuf::from("/usr/lib/libdb-5.3.so"));
        assert_eq!(
            listed(said).into_iter().collect::<Vec<_>>(),
            [("libdb-5.3.so".to_owned(), db), ("libgone.so.1".to_owned(), None)]
        );
    }

    #[test]
    fn links_stay_inside_a_copy() {
        let home = tolv_testkit::Home::new();
        for (path, text) in [("from/a/x", "x"), ("from/skip/y", ""), ("outside", "o")] {
            home.write(path, text);
        }
        let from = home.path().join("from");
        for (to, name) in [("a/x", "inside"), ("../outside", "out"), ("/", "root"), ("no", "no")] {
            symlink(to, from.join(name)).unwrap();
        }
        let mut files = Files::default();
        files.add_all(&from, Path::new("lib"), &|path| !path.starts_with("skip")).unwrap();
        files.add(&from.join("missing"), "missing");
        let before = files.stamp().unwrap();
        let part = home.path().join("part");
        files.copy(&part, &|| false).unwrap();
        assert_eq!(fs::read_to_string(part.join("lib/inside")).unwrap(), "x");
        assert!(part.join("lib/inside").is_symlink() && !part.join("lib/out").is_symlink());
        assert_eq!(fs::read_to_string(part.join("lib/out")).unwrap(), "o");
        assert!(!part.join("lib/skip").exists() && !part.join("lib/root").exists());
        assert_eq!(files.found.len(), 3);
        fs::write(from.join("a/x"), "other").unwrap();
        assert_ne!(files.stamp().unwrap(), before);
    }
}
