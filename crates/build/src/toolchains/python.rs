//! Python interpreters: copies of those that the machine has in `/usr`, `/usr/local`, or of uv, pyenv,
//! mise and asdf, and those that uv fetches.
//!
//! A wish gets the newest that fits of what the machine has and what is kept, and gets it again from
//! then on; one that fits none is fetched. A copy has the interpreter, its standard library and its
//! headers: no packages that are installed beside it, nothing of the machine's own settings, and
//! its own path (`/toolchains/python-<version>`) where the machine's was written down.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pep440_rs::{Version, VersionSpecifiers};

use super::Toolchains;
use super::copy::Files;
use super::fetch::unavailable;
use super::store::Kept;
use super::uv::Uv;
use crate::plan::Toolchain;
use crate::{Error, Event, files};

/// What an interpreter is asked; its answer is one line a field.
const QUESTION: &str = "import sys,os\n\
print('.'.join(map(str,sys.version_info[:3])))\n\
print(sys.version_info.releaselevel)\n\
print(sys.implementation.name)\n\
print(sys.base_prefix)\n\
print(os.path.realpath(getattr(sys,'_base_executable',None) or sys.executable))\n\
print(os.path.dirname(os.__file__))";

/// Folders below the operator's home that have interpreters.
const IN_HOME: [&str; 4] = [
    ".local/share/uv/python",
    ".pyenv/versions",
    ".local/share/mise/installs/python",
    ".asdf/installs/python",
];

/// Parts of a standard library that no copy has: packages and settings of the machine, what
/// compiling made, tests, and windows on a screen.
const LEFT_OUT: [&str; 14] = [
    "EXTERNALLY-MANAGED",
    "__pycache__",
    "dist-packages",
    "idle_test",
    "idlelib",
    "lib-tk",
    "site-packages",
    "sitecustomize.py",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
    "usercustomize.py",
    "venv.pth",
];

/// Compiles the standard library, so that a file's time decides nothing.
const COMPILE: [&str; 7] =
    ["-I", "-m", "compileall", "-q", "-j0", "--invalidation-mode", "unchecked-hash"];

/// A wish for versions, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// As written: `3.13`.
    pub text: String,
    /// `.python-version`.
    pub from: String,
    /// What it means.
    pub versions: VersionSpecifiers,
}

impl Want {
    /// A wish as `requires-python` writes it.
    pub(crate) fn specifiers(text: &str, from: &str) -> Option<Self> {
        let text = text.trim();
        let versions = text.parse().ok()?;
        Some(Self { text: text.to_owned(), from: from.to_owned(), versions })
    }

    /// A wish as `.python-version` or `runtime.txt` write it: `3.13`, `3.13.2`, `python-3.13.2`,
    /// `cpython@3.13`.
    pub(crate) fn version(text: &str, from: &str) -> Option<Self> {
        let text = text.trim();
        let plain = ["cpython", "python"].iter().find_map(|name| text.strip_prefix(name));
        let plain = plain.map_or(text, |rest| rest.trim_start_matches(['-', '@', ' ']));
        if plain.is_empty() {
            return None;
        }
        let parts = plain.split('.').count();
        let numbers = plain.split('.').all(|part| {
            !part.is_empty() && part.len() < 6 && part.bytes().all(|byte| byte.is_ascii_digit())
        });
        if !numbers {
            return Self::specifiers(plain, from)
                .map(|want| Self { text: text.to_owned(), ..want });
        }
        let versions = if parts > 2 { format!("=={plain}") } else { format!("=={plain}.*") };
        Self::specifiers(&versions, from).map(|want| Self { text: text.to_owned(), ..want })
    }
}

/// An interpreter, ready to be run in a build and by the slug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interpreter {
    /// Its version.
    pub version: Version,
    /// Where a process sees it.
    pub program: PathBuf,
    /// Pins its content.
    pub name: String,
    /// What has to be mounted for that.
    pub mount: Toolchain,
    /// Where it has libraries that programs do not find by themselves, as a process sees it.
    pub libraries: Option<PathBuf>,
}

/// An interpreter of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    version: Version,
    prefix: PathBuf,
    program: PathBuf,
    /// The folder of its standard library.
    library: PathBuf,
}

impl Toolchains<'_> {
    /// An interpreter that fulfils all wishes.
    ///
    /// # Errors
    ///
    /// [`Error::Toolchain`] with what was wanted, what was found and what to do.
    pub(crate) fn python(&mut self, wants: &[Want]) -> Result<Interpreter, Error> {
        let fits = |version: &Version| wants.iter().all(|want| want.versions.contains(version));
        let mut wishes: Vec<String> = wants.iter().map(|want| want.versions.to_string()).collect();
        wishes.sort();
        let wish = format!("python {}", wishes.join(", "));
        let kept_fits = |kept: &Kept| kept.version.parse().is_ok_and(|version| fits(&version));
        if let Some(kept) = self.chosen(wish.trim(), kept_fits)? {
            return self.placed_python(kept);
        }
        let kept = match self.best_python(fits)? {
            Ok(kept) => kept,
            Err(had) => self.fetched_python(wants, &had)?,
        };
        self.store().choose(wish.trim(), &kept)?;
        self.placed_python(kept)
    }

    /// The newest that fits of what is kept and what the machine has; where there is none, what
    /// there is, in words.
    fn best_python(
        &mut self,
        fits: impl Fn(&Version) -> bool,
    ) -> Result<Result<Kept, String>, Error> {
        let found = self.machine_pythons();
        let mut all: Vec<(Version, Source)> = Vec::new();
        for kept in self.store().kept("python") {
            all.extend(kept.version.parse().ok().map(|version| (version, Source::Kept(kept))));
        }
        // Of equal ones the machine's, and of those the first.
        all.extend(
            found.iter().rev().map(|one| (one.version.clone(), Source::Machine(one.clone()))),
        );
        all.retain(|(version, _)| fits(version));
        all.sort_by(|a, b| a.0.cmp(&b.0));
        while let Some((version, source)) = all.pop() {
            let usable = match source {
                Source::Kept(kept) => self.usable(kept)?,
                Source::Machine(found) => match self.copy_python(&found) {
                    Ok(kept) => Some(kept),
                    Err(Error::Step { last, .. }) => {
                        self.say(Event::Warning(format!(
                            "Python {version} ({}) does not run as a copy: {}",
                            found.program.display(),
                            last.join("; ")
                        )));
                        None
                    }
                    Err(error) => return Err(error),
                },
            };
            if let Some(kept) = usable {
                return Ok(Ok(kept));
            }
        }
        let had = found.iter().map(|one| format!("{} ({})", one.version, one.program.display()));
        Ok(Err(match had.collect::<Vec<_>>().join(", ") {
            had if had.is_empty() => "this machine has none".to_owned(),
            had => format!("this machine has {had}"),
        }))
    }

    /// One that uv fetches.
    fn fetched_python(&mut self, wants: &[Want], had: &str) -> Result<Kept, Error> {
        let wanted = wants.iter().map(|want| format!("{} ({})", want.text, want.from));
        let wanted = wanted.collect::<Vec<_>>().join(" and ");
        let what = format!("Python {wanted}").trim_end().to_owned();
        let help = "install such a version (pyenv, uv), connect to the network so that uv can \
                    fetch one, or ask for another version in `.python-version`";
        self.say(Event::line(format!("Fetching {what}")));
        files::make_folder(&self.folder)?;
        let uv = &self.uv_of_own()?;
        let lock = self.folder.join(".python-fetch.lock");
        let _lock = files::Lock::take(&lock, &|| (self.cancelled)(), &mut || {})?;
        let folder = self.folder.join(".python-fetch.part");
        files::remove(&folder)?;
        files::make_folder(&folder)?;
        let fetched = self.fetch_python(&folder, wants, uv).map_err(|why| {
            unavailable(&what, format!("{had}, and uv cannot fetch it: {why}"), help)
        });
        let copied = fetched.and_then(|()| {
            let fits = |one: &Found| wants.iter().all(|want| want.versions.contains(&one.version));
            let found = self.ask_all(below(&folder)).into_iter().find(fits);
            let another = || unavailable(&what, format!("{had}, and uv fetched another one"), help);
            self.copy_python(&found.ok_or_else(another)?)
        });
        files::remove(&folder)?;
        copied
    }

    fn placed_python(&self, kept: Kept) -> Result<Interpreter, Error> {
        let version: Version = kept.version.parse().map_err(|_| {
            unavailable("Python", format!("`{}` is no version of it", kept.version), "build again")
        })?;
        let target = self.place(&format!("python-{version}"), &kept.folder);
        Ok(Interpreter {
            program: target.join("bin").join(plain_name(&version)),
            libraries: kept.made.has_libraries.then(|| target.join("lib")),
            mount: Toolchain {
                version: format!("python {version}"),
                source: kept.folder,
                target,
                at_run: true,
            },
            name: kept.name,
            version,
        })
    }

    /// A copy of an interpreter, without what is installed beside it.
    fn copy_python(&mut self, found: &Found) -> Result<Kept, Error> {
        let Found { version, prefix, program, library } = found;
        let name = plain_name(version);
        let Ok(inside) = library.strip_prefix(prefix) else {
            return Err(unavailable(
                &format!("Python {version}"),
                format!("its library `{}` is not below `{}`", library.display(), prefix.display()),
                "install another one",
            ));
        };
        let mut files = Files::default();
        files.add(program, format!("bin/{name}"));
        let wanted = |path: &str| {
            let part = |part: &str| {
                LEFT_OUT.contains(&part)
                    || part.starts_with("config-")
                    || part.starts_with("_tkinter.")
            };
            !path.split('/').any(part)
        };
        files.add_all(library, inside, &wanted)?;
        let include = Path::new("include").join(&name);
        files.add_all(&prefix.join(&include), &include, &|_| true)?;
        // Debian's own header is in a folder of the machine's kind.
        for entry in std::fs::read_dir(prefix.join("include")).into_iter().flatten().flatten() {
            files.add(&entry.path().join(&name).join("pyconfig.h"), include.join("pyconfig.h"));
        }
        // Of one that is a library: it lies beside, and is found from there.
        for entry in std::fs::read_dir(prefix.join("lib")).into_iter().flatten().flatten() {
            let file = entry.file_name();
            let file = file.to_string_lossy();
            if file.starts_with(&format!("lib{name}")) && file.contains(".so") {
                files.add(&entry.path(), format!("lib/{file}"));
            }
        }
        let target = format!("/toolchains/python-{version}");
        self.copied(("python", &version.to_string()), program, &files, |chains, part| {
            for link in ["bin/python3", "bin/python"] {
                files::write_link(&part.join(link), Path::new(&name))?;
            }
            let library = part.join(inside);
            rewrite(&library, prefix, &name, &target)?;
            let program = part.join("bin").join(&name);
            let lib = part.join("lib");
            let said = chains.output_with(&program, &["-I", "-c", QUESTION], &lib)?;
            if understood(&said).is_none_or(|copy| copy.version != *version || copy.prefix != *part)
            {
                return Err(Error::Step {
                    command: program.display().to_string(),
                    how: "found another library than its own".to_owned(),
                    last: said.lines().map(str::to_owned).collect(),
                    help: None,
                });
            }
            let mut words: Vec<OsString> = COMPILE.map(OsString::from).to_vec();
            words.extend(["-d".into(), Path::new(&target).join(inside).into(), library.into()]);
            // Of some versions a file of the library does not compile, and is never imported.
            chains.output_with(&program, &words, &lib).ok();
            Ok(())
        })
    }

    fn machine_pythons(&mut self) -> Vec<Found> {
        let bins = self.system.iter().map(|folder| folder.join("bin"));
        let mut paths: Vec<PathBuf> = bins.flat_map(|bin| pythons_in(&bin)).collect();
        paths.extend(self.in_home(&IN_HOME, "bin/python3"));
        self.ask_all(paths)
    }

    fn ask_all(&mut self, paths: Vec<PathBuf>) -> Vec<Found> {
        let mut seen = std::collections::BTreeSet::new();
        let mut all: Vec<Found> = Vec::new();
        for path in paths {
            if !seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())) {
                continue;
            }
            let said = self.output(&path, &["-I", "-c", QUESTION]).ok();
            let Some(found) = said.and_then(|said| understood(&said)) else { continue };
            if !all.iter().any(|known| known.program == found.program) {
                all.push(found);
            }
        }
        all
    }

    fn fetch_python(&self, folder: &Path, wants: &[Want], uv: &Uv) -> Result<(), String> {
        let all: Vec<String> = wants.iter().map(|want| want.versions.to_string()).collect();
        let mut command = Command::new(&uv.host);
        command.args([
            "python",
            "install",
            "--no-config",
            "--no-progress",
            "--no-bin",
            "--install-dir",
        ]);
        command.arg(folder);
        if !all.is_empty() {
            command.arg(all.join(","));
        }
        command.current_dir("/").stdin(Stdio::null()).env_clear();
        let own: [(&str, OsString); 3] = [
            ("LANG", "C.UTF-8".into()),
            ("UV_CACHE_DIR", folder.join(".cache").into()),
            ("HOME", folder.to_owned().into()),
        ];
        command.envs(own).envs(self.env.iter());
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lines = said.lines().map(|line| {
            line.trim().trim_start_matches("error: ").trim_start_matches("Caused by: ")
        });
        let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        Err(lines.join(": "))
    }
}

/// Programs named `python3` or `python3.<minor>` in a folder, sorted.
fn pythons_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let named = |name: &str| match name.strip_prefix("python3") {
        Some("") => true,
        Some(rest) => rest.strip_prefix('.').is_some_and(|minor| {
            !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit())
        }),
        None => false,
    };
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(named))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

/// `<folder>/*/bin/python3`, sorted.
fn below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path().join("bin/python3")).collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    paths
}

/// Where an interpreter comes from.
enum Source {
    Kept(Kept),
    Machine(Found),
}

/// `python3.13`
fn plain_name(version: &Version) -> String {
    let part = |place: usize| version.release().get(place).copied().unwrap_or_default();
    format!("python{}.{}", part(0), part(1))
}

/// Writes the copy's own path where the machine's was written down for those who compile
/// extensions.
fn rewrite(library: &Path, prefix: &Path, name: &str, target: &str) -> Result<(), Error> {
    let list = std::fs::read_dir(library).map_err(Error::io("read", library))?;
    for path in list.flatten().map(|entry| entry.path()) {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_told = file.starts_with("_sysconfig") || file == "build-details.json";
        if !is_told || path.is_symlink() || !path.is_file() {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let new = with_path(&text, &prefix.to_string_lossy(), name, target);
        if new != text {
            files::set_mode(&path, 0o644)?;
            std::fs::write(&path, new).map_err(Error::io("write", &path))?;
        }
    }
    Ok(())
}

/// A text with `target` in place of a prefix. Of a prefix that other things share, such as `/usr`,
/// only the interpreter's own folders are replaced.
fn with_path(text: &str, prefix: &str, name: &str, target: &str) -> String {
    if !["/usr", "/usr/local"].contains(&prefix) {
        return text.replace(prefix, target);
    }
    ["include", "lib", "lib64"].iter().fold(text.to_owned(), |text, folder| {
        text.replace(&format!("{prefix}/{folder}/{name}"), &format!("{target}/{folder}/{name}"))
    })
}

/// An answer to [`QUESTION`]; nothing for another implementation or a pre-release.
fn understood(said: &str) -> Option<Found> {
    let mut lines = said.lines();
    let version = lines.next()?.parse().ok()?;
    if lines.next()? != "final" || lines.next()? != "cpython" {
        return None;
    }
    let mut path = || lines.next().map(PathBuf::from).filter(|path| path.is_absolute());
    let (prefix, program, library) = (path()?, path()?, path()?);
    let prefix = prefix.canonicalize().unwrap_or(prefix);
    let library = library.canonicalize().unwrap_or(library);
    Some(Found { version, prefix, program, library })
}

#[cfg(test)]
mod tests;
