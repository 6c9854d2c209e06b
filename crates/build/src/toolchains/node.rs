//! Node.js and its package managers.
//!
//! A version that the codebase asks for is looked for on `PATH`, then in the toolchain folder, then
//! in the npm registry (packages `node-linux-<arch>`). Every wish must hold: `engines.node` and
//! `.nvmrc` that contradict each other are an error. Without a wish it is the newest long-term
//! version. What was fetched is executed once: a version that lacks a library of this machine is
//! passed over, with a warning that names the library.
//!
//! npm is the version that belongs to Node.js's major version ([`npm_of`]), whatever the day and
//! whatever npm the machine has: a newer major may not run the scripts of packages.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nodejs_semver::{Range, Version};

use super::fetch::unavailable;
use super::npm::{Package, Published, Registry};
use super::{Toolchains, in_stack};
use crate::plan::Toolchain;
use crate::{Error, Event};

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
    /// The prefix whose `include/node` has the headers, as a process sees it: with them, a package
    /// is compiled without a download.
    pub headers: Option<PathBuf>,
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
        let fits = |version: &Version| match wants {
            [] => is_long_term(version),
            wants => wants.iter().all(|want| want.range.satisfies(version)),
        };
        let (mut found, mut fitting) = (Vec::new(), Vec::new());
        for path in self.find_all("node") {
            let script = "process.versions.node + ' ' + process.execPath";
            let Ok(said) = self.probe(&path, &["-p", script]) else { continue };
            let Some((version, program)) = said.split_once(' ') else { continue };
            let Ok(version) = Version::parse(version) else { continue };
            let host = Path::new(program).canonicalize().unwrap_or_else(|_| program.into());
            match fits(&version) {
                true => fitting.push((version, host)),
                false => found.push(format!("{version} ({})", path.display())),
            }
        }
        // Of those that a wish allows the first on `PATH`, as a shell would; else the newest.
        let newest = |fitting: Vec<(Version, PathBuf)>| {
            fitting.into_iter().reduce(|best, next| if next.0 > best.0 { next } else { best })
        };
        let chosen = if wants.is_empty() { newest(fitting) } else { fitting.into_iter().next() };
        if let Some((version, host)) = chosen {
            return Ok(self.placed_node(version, host));
        }
        let mut unfit = Vec::new();
        for kept in self.kept("node").into_iter().filter(|kept| fits(&kept.version)) {
            match self.executes(&kept, false) {
                Ok(()) => {
                    self.pass_over(&unfit, &kept.version);
                    return Ok(self.kept_node(kept));
                }
                Err(why) => unfit.push((kept.version, why)),
            }
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
        let mut published = registry.versions(&package).map_err(failed)?;
        loop {
            // A library that one version lacks, all of its major version lack.
            let major =
                |version: &Version| unfit.iter().any(|(bad, _)| bad.major() == version.major());
            published.retain(|found| !major(&found.version));
            let Some(best) = best_node(&published, wants) else {
                return Err(match unfit.first() {
                    Some((version, why)) => unavailable(
                        &what,
                        format!("Node.js {version} does not run on this machine: {}", why.text),
                        why.help(),
                    ),
                    None => failed(format!("the registry's `{package}` has no such version")),
                });
            };
            let kept = self.unpack(&registry, "node", &best)?;
            match self.executes(&kept, true) {
                Ok(()) => {
                    self.pass_over(&unfit, &kept.version);
                    return Ok(self.kept_node(kept));
                }
                Err(why) => unfit.push((kept.version, why)),
            }
        }
    }

    /// Says which versions do not run here, and which one is taken instead.
    fn pass_over(&mut self, unfit: &[(Version, Unfit)], taken: &Version) {
        for (version, why) in unfit {
            self.say(Event::Warning(format!(
                "Node.js {version} does not run on this machine: {}; {taken} is taken\n{}",
                why.text,
                why.help()
            )));
        }
    }

    /// Whether a fetched Node.js runs on this machine. One that did not is noted beside it, and is
    /// tried again by each build: the library may be there by now.
    fn executes(&self, kept: &Package, is_new: bool) -> Result<(), Unfit> {
        let note = self.folder.join(format!(".node-{}.unfit", kept.version));
        if !is_new && !note.exists() {
            return Ok(());
        }
        let program = kept.folder.join("bin/node");
        if !program.exists() {
            // Of some of the oldest versions the registry has other files.
            let text = "the registry's package of it has no program".to_owned();
            return Err(Unfit { text, library: None });
        }
        let ran = self.output(&program, &["--version"]);
        match ran {
            Ok(_) => {
                // It runs whether or not the note is there.
                std::fs::remove_file(&note).ok();
                Ok(())
            }
            Err(error) => {
                let why = Unfit::of(&error);
                // Without the note, the next build meets the same error later.
                std::fs::write(&note, &why.text).ok();
                Err(why)
            }
        }
    }

    fn kept_node(&self, kept: Package) -> Node {
        let target = self.place(&format!("node-{}", kept.version), &kept.folder);
        Node {
            headers: has_headers(&kept.folder).then(|| target.clone()),
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
            let prefix = host.parent().and_then(Path::parent);
            let headers = prefix.filter(|prefix| has_headers(prefix)).map(Path::to_owned);
            return Node { version, program: host.clone(), host, mount: None, headers };
        }
        // `<prefix>/bin/node` brings npm along; a lone program is mounted alone, so that no
        // folder with other things in it (the operator's home) comes into view.
        let target = self.place(&format!("node-{version}"), &host);
        let prefix = host.parent().filter(|bin| bin.ends_with("bin")).and_then(Path::parent);
        let prefix = prefix.filter(|prefix| has_headers(prefix));
        let headers = |prefix: &Path| self.place(&format!("node-{version}"), prefix);
        let headers = prefix.map(headers);
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
        Node { version, host, program, mount: Some(mount), headers }
    }

    /// npm to install packages with: the version that belongs to `node`, or the one nearest to it
    /// that `range` allows.
    ///
    /// # Errors
    ///
    /// [`Error::Toolchain`] where it cannot be had.
    pub(crate) fn npm(&mut self, node: &Node, range: Option<&Range>) -> Result<Manager, Error> {
        let range = match range {
            None => exactly(npm_of(&node.version)),
            Some(range) => pinned_npm(&node.version, range).unwrap_or_else(|| range.clone()),
        };
        let beside = self.npm_beside(node);
        match beside {
            Some(npm) if range.satisfies(&npm.version) => Ok(npm),
            Some(_) | None => self.manager("npm", "npm", &range, node),
        }
    }

    /// npm to run scripts with, where there are no packages to install: whichever came with
    /// `node`, for they all do it alike.
    ///
    /// # Errors
    ///
    /// As [`Toolchains::npm`].
    pub(crate) fn npm_for_scripts(&mut self, node: &Node) -> Result<Manager, Error> {
        match self.npm_beside(node) {
            Some(npm) => Ok(npm),
            None => self.npm(node, None),
        }
    }

    /// The npm that is installed beside a Node.js, if a process that sees the one sees the other.
    fn npm_beside(&self, node: &Node) -> Option<Manager> {
        let (version, script) = beside(&node.host)?;
        let script = match &node.mount {
            // Seen below the same mount as the program.
            Some(mount) => mount.target.join(script.strip_prefix(&mount.source).ok()?),
            None => Some(script).filter(|script| in_stack(script))?,
        };
        let argv = vec![node.program.clone().into(), script.into()];
        Some(Manager { name: "npm", version, argv, mount: None, bin: None })
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
fn best_node(published: &[Published], wants: &[Want]) -> Option<Published> {
    published
        .iter()
        .filter(|found| !found.version.is_prerelease())
        .filter(|found| wants.iter().all(|want| want.range.satisfies(&found.version)))
        .max_by_key(|found| (is_long_term(&found.version), found.version.clone()))
        .cloned()
}

/// Even major versions of Node.js become long-term ones.
fn is_long_term(version: &Version) -> bool {
    version.major().is_multiple_of(2)
}

/// Whether a prefix has the headers of Node.js.
fn has_headers(prefix: &Path) -> bool {
    prefix.join("include/node/node_version.h").is_file()
}

/// The last npm of each major version that is taken. npm 12 and later are taken only where the
/// codebase asks for them: they install packages without running their scripts.
const NPMS: [&str; 6] = ["6.14.18", "7.24.2", "8.19.4", "9.9.4", "10.9.9", "11.21.2"];

/// The npm that belongs to a Node.js: of the major version that its line came with, where that one
/// runs on it.
fn npm_of(node: &Version) -> &'static str {
    match (node.major(), node.minor()) {
        (..15, _) => NPMS[0],
        (15, _) => NPMS[1],
        (16 | 17, _) => NPMS[2],
        (18, ..17) | (19, _) | (20, ..5) => NPMS[3],
        (18..24, _) => NPMS[4],
        (24.., _) => NPMS[5],
    }
}

/// The npm of the list that a range allows: the one that belongs to this Node.js, or else the
/// nearest older one, or else the nearest newer one.
fn pinned_npm(node: &Version, range: &Range) -> Option<Range> {
    let own = NPMS.iter().position(|npm| *npm == npm_of(node)).unwrap_or_default();
    let (older, newer) = NPMS.split_at(own + 1);
    let mut all = older.iter().rev().chain(newer);
    all.find(|npm| Version::parse(npm).is_ok_and(|npm| range.satisfies(&npm)))
        .map(|npm| exactly(npm))
}

/// A range of one version.
pub(crate) fn exactly(version: &str) -> Range {
    Range::parse(version).unwrap_or_else(|_| Range::any())
}

/// Why a program does not run on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Unfit {
    text: String,
    /// The library that it lacks.
    library: Option<String>,
}

impl Unfit {
    fn of(error: &Error) -> Self {
        let said = match error {
            Error::Step { last, .. } => last.join("; "),
            other => {
                let source = std::error::Error::source(other).map(ToString::to_string);
                source.unwrap_or_else(|| other.to_string())
            }
        };
        let missing = said.split("error while loading shared libraries: ").nth(1);
        let library = missing.and_then(|rest| rest.split(':').next()).map(str::to_owned);
        let text = match &library {
            Some(library) => format!("it needs the library `{library}`"),
            None => said,
        };
        Self { text, library }
    }

    fn help(&self) -> String {
        let package = match self.library.as_deref() {
            Some("libatomic.so.1") => "libatomic1",
            Some("libstdc++.so.6") => "libstdc++6",
            Some("libgcc_s.so.1") => "libgcc-s1",
            Some(_) | None => {
                return "ask for another version in `engines.node` of package.json".to_owned();
            }
        };
        format!(
            "`apt-get install {package}`, or ask for another version in `engines.node` of package.json"
        )
    }
}

#[cfg(test)]
mod tests;
