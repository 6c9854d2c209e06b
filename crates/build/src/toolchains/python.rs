//! Python interpreters: those of the machine, and those that uv fetches.
//!
//! The newest that fits is taken of those on `PATH` and in the stack; where none of them fits, of
//! those that uv and pyenv keep. Of two equal ones it is that of the stack, which every sandbox has.
//! A launcher (pyenv's shim) is asked for the interpreter behind it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pep440_rs::{Version, VersionSpecifiers};

use super::fetch::unavailable;
use super::uv::Uv;
use super::{Toolchains, in_stack};
use crate::plan::Toolchain;
use crate::{Error, Event, files};

/// What an interpreter is asked; its answer is one line a field.
const QUESTION: &str = "import sys,os\n\
print('.'.join(map(str,sys.version_info[:3])))\n\
print(sys.version_info.releaselevel)\n\
print(sys.implementation.name)\n\
print(sys.base_prefix)\n\
print(os.path.realpath(getattr(sys,'_base_executable',None) or sys.executable))";

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
    /// What has to be mounted for that.
    pub mount: Option<Toolchain>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    version: Version,
    prefix: PathBuf,
    program: PathBuf,
}

impl Toolchains<'_> {
    /// An interpreter that fulfils all wishes.
    ///
    /// # Errors
    ///
    /// [`Error::Toolchain`] with what was wanted, what was found and what to do.
    pub(crate) fn python(&mut self, wants: &[Want], uv: &Uv) -> Result<Interpreter, Error> {
        let mut found = self.stack_pythons();
        found.extend(self.path_pythons());
        if let Some(best) = best_python(&found, wants) {
            return Ok(self.placed_python(best));
        }
        found.extend(self.other_pythons());
        if let Some(best) = best_python(&found, wants) {
            return Ok(self.placed_python(best));
        }
        let wanted = wants.iter().map(|want| format!("{} ({})", want.text, want.from));
        let wanted = wanted.collect::<Vec<_>>().join(" and ");
        let what = format!("Python {wanted}").trim_end().to_owned();
        let had = found.iter().map(|one| format!("{} ({})", one.version, one.program.display()));
        let had = match had.collect::<Vec<_>>().join(", ") {
            had if had.is_empty() => "this machine has none".to_owned(),
            had => format!("this machine has {had}"),
        };
        let help = "install such a version so that it is on PATH, connect to the network so that \
                    uv can fetch one, or ask for another version in `.python-version`";
        self.say(Event::line(format!("Fetching {what}")));
        if let Err(why) = self.fetch_python(wants, uv) {
            return Err(unavailable(&what, format!("{had}, and uv cannot fetch it: {why}"), help));
        }
        let found = self.kept_pythons();
        match best_python(&found, wants) {
            Some(best) => Ok(self.placed_python(best)),
            None => Err(unavailable(&what, format!("{had}, and uv fetched another one"), help)),
        }
    }

    fn placed_python(&self, found: Found) -> Interpreter {
        let Found { version, prefix, program } = found;
        if in_stack(&program) && in_stack(&prefix) {
            return Interpreter { version, program, mount: None };
        }
        // What uv fetched can be moved; other installations know their own path.
        let target = match prefix.starts_with(&self.folder) {
            true => self.place(&format!("python-{version}"), &prefix),
            false => prefix.clone(),
        };
        let program = match program.strip_prefix(&prefix) {
            Ok(inside) => target.join(inside),
            Err(_) => program,
        };
        let mount = Toolchain {
            version: format!("python {version}"),
            source: prefix,
            target,
            at_run: true,
        };
        Interpreter { version, program, mount: Some(mount) }
    }

    fn stack_pythons(&mut self) -> Vec<Found> {
        let folders = ["/usr/bin", "/usr/local/bin"].map(PathBuf::from);
        self.ask_all(folders.iter().flat_map(|folder| pythons_in(folder)).collect())
            .into_iter()
            .filter(|found| in_stack(&found.program))
            .collect()
    }

    fn path_pythons(&mut self) -> Vec<Found> {
        let folders: Vec<PathBuf> =
            self.search.iter().filter(|folder| !in_stack(folder)).cloned().collect();
        self.ask_all(folders.iter().flat_map(|folder| pythons_in(folder)).collect())
    }

    fn other_pythons(&mut self) -> Vec<Found> {
        let mut found = self.kept_pythons();
        let homes = [".pyenv/versions", ".local/share/uv/python"];
        let homes = self.user_home.iter().flat_map(|home| homes.map(|folder| home.join(folder)));
        let paths = homes.flat_map(|folder| below(&folder)).collect();
        found.extend(self.ask_all(paths));
        found
    }

    fn kept_pythons(&mut self) -> Vec<Found> {
        let paths = below(&self.folder.join("python"));
        self.ask_all(paths)
    }

    fn ask_all(&mut self, paths: Vec<PathBuf>) -> Vec<Found> {
        let mut seen = BTreeSet::new();
        let mut all: Vec<Found> = Vec::new();
        for path in paths {
            // Launchers are one file with many names: those are asked each.
            let real = path.canonicalize().unwrap_or_else(|_| path.clone());
            let launcher = path.parent().is_some_and(|folder| folder.ends_with("shims"));
            if !launcher && !seen.insert(real) {
                continue;
            }
            let Some(found) =
                self.probe(&path, &["-I", "-c", QUESTION]).ok().and_then(|said| understood(&said))
            else {
                continue;
            };
            if !all.contains(&found) {
                all.push(found);
            }
        }
        all
    }

    fn fetch_python(&mut self, wants: &[Want], uv: &Uv) -> Result<(), String> {
        let folder = self.folder.join("python");
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
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
        command.arg(&folder);
        if !all.is_empty() {
            command.arg(all.join(","));
        }
        command.current_dir("/").stdin(Stdio::null()).env_clear();
        let own: [(&str, OsString); 3] = [
            ("LANG", "C.UTF-8".into()),
            ("UV_CACHE_DIR", self.folder.join(".uv-cache").into()),
            ("HOME", self.folder.clone().into()),
        ];
        command.envs(own).envs(self.env.iter());
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return files::show(&folder).map_err(|error| error.to_string());
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

/// An answer to [`QUESTION`]; nothing for another implementation or a pre-release.
fn understood(said: &str) -> Option<Found> {
    let mut lines = said.lines();
    let version = lines.next()?.parse().ok()?;
    if lines.next()? != "final" || lines.next()? != "cpython" {
        return None;
    }
    let prefix = PathBuf::from(lines.next()?);
    let prefix = prefix.canonicalize().unwrap_or(prefix);
    let program = PathBuf::from(lines.next()?);
    (prefix.is_absolute() && program.is_absolute()).then_some(Found { version, prefix, program })
}

/// The newest that fulfils all wishes; of equal ones the first.
fn best_python(found: &[Found], wants: &[Want]) -> Option<Found> {
    let fits = |one: &&Found| wants.iter().all(|want| want.versions.contains(&one.version));
    found.iter().filter(fits).reduce(newer).cloned()
}

fn newer<'a>(best: &'a Found, one: &'a Found) -> &'a Found {
    if one.version > best.version { one } else { best }
}

#[cfg(test)]
mod tests;
