//! uv, the program that installs Python packages.
//!
//! It is the release [`OWN`], so that every machine makes the same of the same lock: from the
//! machine where that has it, else from PyPI. Where it cannot be had, a later one will do.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use pep440_rs::Version;
use serde_json::Value;

use super::Toolchains;
use super::copy::Files;
use super::fetch::{Expected, unavailable, unzip_one};
use super::http::{Client, Target};
use super::store::Kept;
use crate::plan::Toolchain;
use crate::{Error, Event};

/// The oldest that has all options used here.
const OLDEST: [u64; 3] = [0, 9, 0];
/// The release that is taken where it can be had.
const OWN: [u64; 3] = [0, 13, 9];
pub(super) const SIMPLE: &str = "application/vnd.pypi.simple.v1+json";
const HELP: &str = "connect to the network, or install uv (https://docs.astral.sh/uv/getting-started/installation/)";

/// uv, ready to be run in a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uv {
    /// Its version.
    pub version: Version,
    /// Where it is on the host.
    pub host: PathBuf,
    /// Where a process of the build sees it.
    pub program: PathBuf,
    /// What has to be mounted for that.
    pub mount: Option<Toolchain>,
}

/// A file of PyPI's simple index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wheel {
    pub(super) version: Version,
    pub(super) url: String,
    pub(super) sha256: String,
}

/// The page of a package in the index that the operator names, or PyPI's.
pub(super) fn index_of(env: &BTreeMap<String, OsString>, package: &str) -> String {
    let index = ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"];
    let index = index.iter().find_map(|name| env.get(*name)?.to_str());
    let index = index.filter(|url| !url.is_empty()).unwrap_or("https://pypi.org/simple");
    format!("{}/{package}/", index.trim_end_matches('/'))
}

impl Toolchains<'_> {
    /// uv: what is kept, else [`OWN`], else one that is new enough.
    ///
    /// # Errors
    ///
    /// [`Error::Toolchain`] where none of them can be had.
    pub(crate) fn uv(&mut self) -> Result<Uv, Error> {
        let oldest = Version::new(OLDEST);
        let parsed = |kept: &Kept| kept.version.parse::<Version>().ok();
        let mut kept = self.store().kept("uv");
        kept.retain(|kept| parsed(kept).is_some_and(|version| version >= oldest));
        kept.sort_by_key(parsed);
        while let Some(newest) = kept.pop() {
            if let Some(kept) = self.usable(newest)? {
                return self.placed_uv(kept);
            }
        }
        let mut machine: Vec<(Version, PathBuf)> = Vec::new();
        for path in self.machine_uvs() {
            let Ok(said) = self.output(&path, &["--version"]) else { continue };
            let version = said.split_whitespace().nth(1).and_then(|text| text.parse().ok());
            machine.extend(version.filter(|version| *version >= oldest).map(|v| (v, path)));
        }
        let own = Version::new(OWN);
        if let Some((version, path)) = machine.iter().find(|(version, _)| *version == own) {
            return self.copy_uv(version, path);
        }
        match (self.fetch_uv(), machine.into_iter().max()) {
            (Ok(kept), _) => self.placed_uv(kept),
            (Err(Error::Cancelled), _) => Err(Error::Cancelled),
            (Err(_), Some((version, path))) => self.copy_uv(&version, &path),
            (Err(error), None) => Err(error),
        }
    }

    /// uv as it is run outside of a sandbox: one that was made in this folder.
    ///
    /// # Errors
    ///
    /// As [`Toolchains::uv`].
    pub(super) fn uv_of_own(&mut self) -> Result<Uv, Error> {
        loop {
            let uv = self.uv()?;
            let name = uv.host.parent().and_then(Path::file_name).and_then(|name| name.to_str());
            match name {
                Some(name) if !self.store().was_made_here(name) => self.store().forget(name)?,
                _ => return Ok(uv),
            }
        }
    }

    /// Those that the machine has.
    fn machine_uvs(&self) -> Vec<PathBuf> {
        let mut paths = self.installed("uv");
        let home = self.user_home.iter();
        let own =
            home.flat_map(|home| [".local/bin/uv", ".cargo/bin/uv"].map(|path| home.join(path)));
        paths.extend(own.filter(|path| path.is_file()));
        paths
    }

    fn copy_uv(&mut self, version: &Version, path: &Path) -> Result<Uv, Error> {
        let mut files = Files::default();
        files.add(path, "uv");
        let kept = self.copied(("uv", &version.to_string()), path, &files, |_, _| Ok(()))?;
        self.placed_uv(kept)
    }

    fn placed_uv(&self, kept: Kept) -> Result<Uv, Error> {
        let host = kept.folder.join("uv");
        let version: Version = kept.version.parse().map_err(|_| {
            unavailable("uv", format!("`{}` is no version of it", kept.version), HELP)
        })?;
        let program = self.place(&format!("uv-{version}"), &host);
        let mount = Toolchain {
            version: format!("uv {version}"),
            source: host.clone(),
            target: program.clone(),
            at_run: false,
        };
        Ok(Uv { version, host, program, mount: Some(mount) })
    }

    fn fetch_uv(&mut self) -> Result<Kept, Error> {
        let failed = |why: String| unavailable("uv", why, HELP);
        let client = Client::new(self.env).map_err(failed)?;
        let url = index_of(self.env, "uv");
        let shown = Target::new(&url).shown;
        let page = client.json(&url, SIMPLE).map_err(failed)?;
        let loader = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
        let glibc = loader.iter().any(|path| std::path::Path::new(path).exists());
        let wheel = preferred(&page, std::env::consts::ARCH, glibc).ok_or_else(|| {
            let arch = std::env::consts::ARCH;
            failed(format!("{shown} has no wheel of it for Linux on {arch}"))
        })?;
        let url = absolute(&url, &wheel.url);
        let what = format!("uv {}", wheel.version);
        self.install(("uv", &wheel.version.to_string()), |chains, folder| {
            chains.say(Event::line(format!("Fetching {what}")));
            let expected = Expected::Sha256(wheel.sha256.clone());
            let archive = chains.download(&client, &url, &expected, &what)?;
            let path = folder.join("uv");
            unzip_one(archive, ".data/scripts/uv", &path).map_err(Error::io("unpack", &path))
        })
    }
}

/// The wheel of [`OWN`] for a machine, or else of the newest release.
fn preferred(page: &Value, arch: &str, glibc: bool) -> Option<Wheel> {
    let own = Version::new(OWN);
    let all = wheels(page, arch, glibc).into_iter();
    all.max_by_key(|wheel| (wheel.version == own, wheel.version.clone()))
}

/// The stable, unyanked wheels for a machine.
pub(super) fn wheels(page: &Value, arch: &str, glibc: bool) -> Vec<Wheel> {
    let libc = if glibc { "manylinux" } else { "musllinux" };
    let wheel = |file: &Value| {
        let name = file.get("filename")?.as_str()?.strip_suffix(".whl")?;
        let version: Version = name.split('-').nth(1)?.parse().ok()?;
        let fits = name.rsplit('-').next()?.split('.').any(|tag| {
            // `manylinux_2_17_x86_64`, `manylinux2014_x86_64`
            tag.starts_with(libc) && tag.ends_with(&format!("_{arch}"))
        });
        let yanked = match file.get("yanked") {
            None | Some(Value::Bool(false) | Value::Null) => false,
            Some(_) => true,
        };
        let sha256 = file.pointer("/hashes/sha256")?.as_str()?.to_owned();
        let url = file.get("url")?.as_str()?.to_owned();
        (fits && !yanked && version.is_stable()).then_some(Wheel { version, url, sha256 })
    };
    let files = page.get("files").and_then(Value::as_array);
    files.into_iter().flatten().filter_map(wheel).collect()
}

/// `link` as found on the page at `base`: whole, from the root of the host, or relative.
pub(super) fn absolute(base: &str, link: &str) -> String {
    if link.contains("://") {
        return link.to_owned();
    }
    let start = base.find("://").map_or(0, |at| at + 3);
    let host = base[start..].find('/').map_or(base.len(), |at| start + at);
    if link.starts_with('/') {
        return format!("{}{link}", &base[..host]);
    }
    let mut path: Vec<&str> = base[host..].trim_end_matches('/').split('/').skip(1).collect();
    for part in link.split('/') {
        match part {
            ".." => {
                path.pop();
            }
            "." => {}
            part => path.push(part),
        }
    }
    format!("{}/{}", &base[..host], path.join("/"))
}

#[cfg(test)]
mod tests;
