//! Node.js and its package managers.
//!
//! A version that the codebase asks for is looked for on `PATH`, then in the toolchain folder, then
//! in the npm registry (packages `node-linux-<arch>`). Every wish must hold: `engines.node` and
//! `.nvmrc` that contradict each other are an error.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nodejs_semver::{Range, Version};

use super::fetch::unavailable;
use super::npm::{Package, Published, Registry};
use super::{Toolchains, in_stack};
use crate::Error;
use crate::plan::Toolchain;

/// A wish for versions, and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    /// As written: `^20`, `lts/*`.
    pub text: String,
    /// `engines.node in package.json`.
    pub from: String,
    /// What it means.
    pub range: Range,
}

impl Want {
    /// A wish as `engines.node`, `.nvmrc` or `.node-version` write it; nothing where it is none.
    pub(crate) fn parse(text: &str, from: &str) -> Option<Self> {
        let text = text.trim();
        let range = match text.to_ascii_lowercase().as_str() {
            "node" | "stable" | "latest" | "current" | "" => Range::any(),
            "lts" | "lts/*" | "lts/-1" => {
                let majors: Vec<String> = (9..50).map(|half| format!("{}.x", 2 * half)).collect();
                Range::parse(majors.join(" || ")).ok()?
            }
            lower => match lower.strip_prefix("lts/") {
                Some(name) => Range::parse(format!("{}.x", long_term(name)?)).ok()?,
                None => Range::parse(text.strip_prefix('v').unwrap_or(text)).ok()?,
            },
        };
        Some(Self { text: text.to_owned(), from: from.to_owned(), range })
    }
}

/// The major version of a long-term line.
fn long_term(name: &str) -> Option<u8> {
    let names = [
        "argon", "boron", "carbon", "dubnium", "erbium", "fermium", "gallium", "hydrogen", "iron",
        "jod", "krypton",
    ];
    let place = names.iter().position(|known| *known == name)?;
    u8::try_from(4 + 2 * place).ok()
}

/// Node.js, ready to be run in a build and by the slug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its version.
    pub version: Version,
    /// Where it is on the host.
    pub host: PathBuf,
    /// Where a process sees it.
    pub program: PathBuf,
    /// What has to be mounted for that.
    pub mount: Option<Toolchain>,
}

impl Node {
    /// The folder for `PATH`, where it is not one of the stack's.
    pub(crate) fn bin(&self) -> Option<&Path> {
        self.mount.as_ref().and_then(|_| self.program.parent())
    }
}

/// npm, pnpm or yarn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manager {
    /// `npm`.
    pub name: &'static str,
    /// Its version.
    pub version: Version,
    /// Program and first arguments, as a process sees them.
    pub argv: Vec<OsString>,
    /// What has to be mounted.
    pub mount: Option<Toolchain>,
    /// The folder with its command, where that is not one of the stack's.
    pub bin: Option<PathBuf>,
}

impl Toolchains<'_> {
    /// A Node.js that fulfils all wishes.
    ///
    /// # Errors
    ///
    /// [`Error::Toolchain`] with what was wanted, what was found and what to do.
    pub(crate) fn node(&mut self, wants: &[Want]) -> Result<Node, Error> {
        let fits = |version: &Version| wants.iter().all(|want| want.range.satisfies(version));
        let mut found = Vec::new();
        for path in self.find_all("node") {
            let script = "process.versions.node + ' ' + process.execPath";
            let Ok(said) = self.probe(&path, &["-p", script]) else { continue };
            let Some((version, program)) = said.split_once(' ') else { continue };
            let Ok(version) = Version::parse(version) else { continue };
            let host = Path::new(program).canonicalize().unwrap_or_else(|_| program.into());
            if fits(&version) {
                return Ok(self.placed_node(version, host));
            }
            found.push(format!("{version} ({})", path.display()));
        }
        if let Some(kept) = self.kept("node").into_iter().find(|kept| fits(&kept.version)) {
            return Ok(self.kept_node(kept));
        }
        let wanted = wants.iter().map(|want| format!("{} ({})", want.text, want.from));
        let wanted = wanted.collect::<Vec<_>>().join(" and ");
        let what = format!("Node.js {wanted}").trim_end().to_owned();
        let found = match found.as_slice() {
            [] => "there is none on PATH".to_owned(),
            found => format!("PATH has {}", found.join(", ")),
        };
        let help = "install such a version so that it is on PATH, connect to the network, or ask \
                    for another version in `engines.node` of package.json";
        let failed = |why: String| unavailable(&what, format!("{found}, and {why}"), help);
        let arch = match std::env::consts::ARCH {
            "x86_64" => "x64",
            "aarch64" => "arm64",
            other => return Err(failed(format!("the registry has none for {other}"))),
        };
        let package = format!("node-linux-{arch}");
        let registry = Registry::open(self, &what)?;
        let published = registry.versions(&package).map_err(failed)?;
        let best = best_node(published, wants)
            .ok_or_else(|| failed(format!("the registry's `{package}` has no such version")))?;
        let kept = self.unpack(&registry, "node", &best)?;
        Ok(self.kept_node(kept))
    }

    fn kept_node(&self, kept: Package) -> Node {
        let target = self.place(&format!("node-{}", kept.version), &kept.folder);
        Node {
            host: kept.folder.join("bin/node"),
            program: target.join("bin/node"),
            mount: Some(Toolchain {
                version: format!("node {}", kept.version),
                source: kept.folder,
                target,
                at_run: true,
            }),
            version: kept.version,
        }
    }

    fn placed_node(&self, version: Version, host: PathBuf) -> Node {
        if in_stack(&host) {
            return Node { version, program: host.clone(), host, mount: None };
        }
        // `<prefix>/bin/node` brings npm along; a lone program is mounted alone, so that no
        // folder with other things in it (the operator's home) comes into view.
        let target = self.place(&format!("node-{version}"), &host);
        let prefix = host.parent().filter(|bin| bin.ends_with("bin")).and_then(Path::parent);
        let prefix = prefix.filter(|prefix| prefix.join("include/node/node_version.h").is_file());
        let (source, target, program) = match prefix {
            Some(prefix) => {
                let target = self.place(&format!("node-{version}"), prefix);
                let program = target.join("bin/node");
                (prefix.to_owned(), target, program)
            }
            None if target == host => (host.clone(), host.clone(), host.clone()),
            None => (host.clone(), target.join("bin/node"), target.join("bin/node")),
        };
        let mount = Toolchain { version: format!("node {version}"), source, target, at_run: true };
        Node { version, host, program, mount: Some(mount) }
    }

    /// npm: the one that came with `node` where `range` allows it, else from the registry.
    ///
    /// # Errors
    ///
    /// [`Error::Toolchain`] where it cannot be had.
    pub(crate) fn npm(&mut self, node: &Node, range: Option<&Range>) -> Result<Manager, Error> {
        let any = Range::any();
        let range = range.unwrap_or(&any);
        if let Some((version, script)) = beside(&node.host).filter(|(v, _)| range.satisfies(v)) {
            let script = match &node.mount {
                // Seen below the same mount as the program.
                Some(mount) => match script.strip_prefix(&mount.source) {
                    Ok(inside) => Some(mount.target.join(inside)),
                    Err(_) => None,
                },
                None => in_stack(&script).then_some(script),
            };
            if let Some(script) = script {
                let argv = vec![node.program.clone().into(), script.into()];
                return Ok(Manager { name: "npm", version, argv, mount: None, bin: None });
            }
        }
        self.manager("npm", "npm", range, node)
    }

    /// A package manager from the registry.
    ///
    /// # Errors
    ///
    /// [`Error::Toolchain`] where it cannot be had.
    pub(crate) fn manager(
        &mut self,
        name: &'static str,
        package: &str,
        range: &Range,
        node: &Node,
    ) -> Result<Manager, Error> {
        let kept = self.package(name, package, range, &node.version)?;
        let target = self.place(&format!("{name}-{}", kept.version), &kept.folder);
        let bin = kept.folder.join("bin").join(name);
        let script = std::fs::read_link(&bin).map_err(Error::io("read", &bin))?;
        let seen = target.join("bin").join(&script);
        let is_script =
            script.extension().is_some_and(|end| end == "js" || end == "cjs" || end == "mjs");
        let argv = if is_script {
            vec![node.program.clone().into(), seen.into()]
        } else {
            vec![seen.into()]
        };
        let mount = Toolchain {
            version: format!("{name} {}", kept.version),
            source: kept.folder,
            target: target.clone(),
            at_run: true,
        };
        Ok(Manager {
            name,
            version: kept.version,
            argv,
            mount: Some(mount),
            bin: Some(target.join("bin")),
        })
    }
}

/// The npm that is installed beside a Node.js: its version and its script.
fn beside(node: &Path) -> Option<(Version, PathBuf)> {
    let bin = node.parent()?;
    let script = bin.join("npm").canonicalize().ok()?;
    let script = match script.file_name()?.to_str()? {
        "npm-cli.js" => script,
        _ => bin.parent()?.join("lib/node_modules/npm/bin/npm-cli.js").canonicalize().ok()?,
    };
    let document = std::fs::read(script.parent()?.parent()?.join("package.json")).ok()?;
    let document: serde_json::Value = serde_json::from_slice(&document).ok()?;
    let version = Version::parse(document.get("version")?.as_str()?).ok()?;
    Some((version, script))
}

/// The newest version that fulfils all wishes, one of an even (long-term) line before others.
fn best_node(published: Vec<Published>, wants: &[Want]) -> Option<Published> {
    published
        .into_iter()
        .filter(|found| !found.version.is_prerelease())
        .filter(|found| wants.iter().all(|want| want.range.satisfies(&found.version)))
        .max_by_key(|found| (found.version.major() % 2 == 0, found.version.clone()))
}

#[cfg(test)]
mod tests;
