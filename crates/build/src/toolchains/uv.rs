//! uv, the program that installs Python packages: the operator's own, or one from PyPI.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use pep440_rs::Version;
use serde_json::Value;

use super::fetch::{Expected, unavailable, unzip_one};
use super::http::{Client, Target};
use super::{Toolchains, in_stack};
use crate::plan::Toolchain;
use crate::{Error, Event};

/// The oldest that has all options used here.
const OLDEST: [u64; 3] = [0, 9, 0];
pub(super) const SIMPLE: &str = "application/vnd.pypi.simple.v1+json";
const HELP: &str = "connect to the network, or install uv so that it is on PATH (https://docs.astral.sh/uv/getting-started/installation/)";

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
    /// uv from `PATH` where it is new enough, else the one in the toolchain folder, else the
    /// newest of the package index.
    ///
    /// # Errors
    ///
    /// [`Error::Toolchain`] where none of them can be had.
    pub(crate) fn uv(&mut self) -> Result<Uv, Error> {
        let oldest = Version::new(OLDEST);
        for path in self.find_all("uv") {
            let Ok(said) = self.probe(&path, &["--version"]) else { continue };
            let version = said.split_whitespace().nth(1).and_then(|text| text.parse().ok());
            let Some(version) = version.filter(|version| *version >= oldest) else { continue };
            let host = path.canonicalize().unwrap_or(path);
            return Ok(self.placed_uv(version, host));
        }
        let kept = self.kept_uv();
        if let Some((version, path)) = kept.into_iter().filter(|(v, _)| *v >= oldest).max() {
            return Ok(self.placed_uv(version, path));
        }
        let (version, path) = self.fetch_uv()?;
        Ok(self.placed_uv(version, path))
    }

    fn placed_uv(&self, version: Version, host: PathBuf) -> Uv {
        if in_stack(&host) {
            return Uv { version, program: host.clone(), host, mount: None };
        }
        let program = self.place(&format!("uv-{version}"), &host);
        let mount = Toolchain {
            version: format!("uv {version}"),
            source: host.clone(),
            target: program.clone(),
            at_run: false,
        };
        Uv { version, host, program, mount: Some(mount) }
    }

    fn kept_uv(&self) -> Vec<(Version, PathBuf)> {
        let Ok(folder) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let uv = |entry: std::fs::DirEntry| {
            let version = entry.file_name().to_str()?.strip_prefix("uv-")?.parse().ok()?;
            Some((version, entry.path().join("uv")))
        };
        folder.flatten().filter_map(uv).filter(|(_, path)| path.is_file()).collect()
    }

    fn fetch_uv(&mut self) -> Result<(Version, PathBuf), Error> {
        let failed = |why: String| unavailable("uv", why, HELP);
        let client = Client::new(self.env).map_err(failed)?;
        let url = index_of(self.env, "uv");
        let shown = Target::new(&url).shown;
        let page = client.json(&url, SIMPLE).map_err(failed)?;
        let loader = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
        let glibc = loader.iter().any(|path| std::path::Path::new(path).exists());
        let wheel = newest(&page, std::env::consts::ARCH, glibc).ok_or_else(|| {
            let arch = std::env::consts::ARCH;
            failed(format!("{shown} has no wheel of it for Linux on {arch}"))
        })?;
        let url = absolute(&url, &wheel.url);
        let what = format!("uv {}", wheel.version);
        let folder = self.install(&format!("uv-{}", wheel.version), |chains, folder| {
            chains.say(Event::line(format!("Fetching {what}")));
            let expected = Expected::Sha256(wheel.sha256.clone());
            let archive = chains.download(&client, &url, &expected, &what)?;
            let path = folder.join("uv");
            unzip_one(archive, ".data/scripts/uv", &path).map_err(Error::io("unpack", &path))
        })?;
        Ok((wheel.version, folder.join("uv")))
    }
}

/// The newest stable, unyanked wheel for a machine.
fn newest(page: &Value, arch: &str, glibc: bool) -> Option<Wheel> {
    wheels(page, arch, glibc).into_iter().max_by(|a, b| a.version.cmp(&b.version))
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
