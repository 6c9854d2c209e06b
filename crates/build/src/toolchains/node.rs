//! Node.js and its package managers.
//!
//! A wish gets the newest that fits of what the machine has in `/usr`, `/usr/local`, or of nvm, fnm,
//! mise and asdf, and of what is kept; one that fits none is fetched from the npm registry (packages
//! `node-linux-<arch>`). It gets the same again from then on. Every wish must hold: `engines.node`
//! and `.nvmrc` that contradict each other are an error. Without a wish it is the newest long-term
//! version.
//!
//! The machine's is copied, with its headers and its npm. One that is in pieces all over the
//! machine, as distributions build it, is none. What was fetched is executed once: a version that
//! lacks a library of this machine is passed over, with a warning that names the library.
//!
//! npm is the version that belongs to Node.js's major version ([`npm_of`]), whatever the day and
//! whatever npm the machine has: a newer major may not run the scripts of packages.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nodejs_semver::{Range, Version};

use super::Toolchains;
use super::copy::Files;
use super::fetch::unavailable;
use super::npm::{Published, Registry};
use super::store::Kept;
use crate::plan::Toolchain;
use crate::{Error, Event, files};

/// Folders below the operator's home that have a folder for each version.
const IN_HOME: [&str; 4] = [
    ".nvm/versions/node",
    ".local/share/fnm/node-versions",
    ".local/share/mise/installs/node",
    ".asdf/installs/nodejs",
];

/// What a Node.js is asked: its version, and whether it is made of the machine's libraries.
const QUESTION: &str = "process.versions.node + (Object.entries(process.config.variables)\
    .some(([name, value]) => name.startsWith('node_shared') && value === true) ? ' shared' : '')";

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
    /// Pins its content.
    pub name: String,
    /// Where a process sees it.
    pub program: PathBuf,
    /// What has to be mounted for that.
    pub mount: Toolchain,
    /// Where it has libraries that it does not find by itself, as a process sees it.
    pub libraries: Option<PathBuf>,
    /// The prefix whose `include/node` has the headers, as a process sees it: with them, a package
    /// is compiled without a download.
    pub headers: Option<PathBuf>,
}

impl Node {
    /// The folder for `PATH`.
    pub(crate) fn bin(&self) -> PathBuf {
        self.mount.target.join("bin")
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
    /// The folder with its command, where that is not Node.js's.
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
        let mut wishes: Vec<&str> = wants.iter().map(|want| want.text.as_str()).collect();
        wishes.sort_unstable();
        let wish = format!("node {}", wishes.join(", "));
        let kept_fits =
            |kept: &Kept| Version::parse(&kept.version).is_ok_and(|version| fits(&version));
        if let Some(kept) = self.chosen(wish.trim(), kept_fits)? {
            return self.placed_node(kept);
        }
        let kept = self.best_node(wants, fits)?;
        self.store().choose(wish.trim(), &kept)?;
        self.placed_node(kept)
    }

    fn best_node(
        &mut self,
        wants: &[Want],
        fits: impl Fn(&Version) -> bool,
    ) -> Result<Kept, Error> {
        let machine = self.machine_nodes();
        let mut all: Vec<(Version, Source)> = Vec::new();
        let kept = self.kept("node").into_iter();
        all.extend(kept.map(|(version, kept)| (version, Source::Kept(kept))));
        // Of equal ones the machine's, and of those the first.
        let own = machine.iter().rev();
        all.extend(own.map(|(version, path)| (version.clone(), Source::Machine(path.clone()))));
        all.retain(|(version, _)| fits(version));
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let mut unfit: Vec<(Version, Unfit)> = Vec::new();
        while let Some((version, source)) = all.pop() {
            let usable = match source {
                Source::Kept(kept) => self.usable(kept)?,
                Source::Machine(host) => Some(self.copy_node(&version, &host)?),
            };
            let Some(kept) = usable else { continue };
            match self.executes(&version, &kept, false) {
                Ok(()) => {
                    self.pass_over(&unfit, &version);
                    return Ok(kept);
                }
                Err(why) => unfit.push((version, why)),
            }
        }
        let wanted = wants.iter().map(|want| format!("{} ({})", want.text, want.from));
        let wanted = wanted.collect::<Vec<_>>().join(" and ");
        let what = format!("Node.js {wanted}").trim_end().to_owned();
        let had = machine.iter().map(|(version, path)| format!("{version} ({})", path.display()));
        let found = match had.collect::<Vec<_>>().join(", ") {
            had if had.is_empty() => "this machine has none".to_owned(),
            had => format!("this machine has {had}"),
        };
        let help = "install such a version (nvm), connect to the network, or ask for another \
                    version in `engines.node` of package.json";
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
            let Some(best) = best_published(&published, wants) else {
                return Err(match unfit.first() {
                    Some((version, why)) => unavailable(
                        &what,
                        format!("Node.js {version} does not run on this machine: {}", why.text),
                        why.help(),
                    ),
                    None => failed(format!("the registry's `{package}` has no such version")),
                });
            };
            let (version, kept) = self.unpack(&registry, "node", &best)?;
            match self.executes(&version, &kept, true) {
                Ok(()) => {
                    self.pass_over(&unfit, &version);
                    return Ok(kept);
                }
                Err(why) => unfit.push((version, why)),
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
    fn executes(&self, version: &Version, kept: &Kept, is_new: bool) -> Result<(), Unfit> {
        let note = self.folder.join(format!(".node-{version}.unfit"));
        if !is_new && !note.exists() {
            return Ok(());
        }
        let program = kept.folder.join("bin/node");
        if !program.exists() {
            // Of some of the oldest versions the registry has other files.
            let text = "the registry's package of it has no program".to_owned();
            return Err(Unfit { text, library: None });
        }
        let ran = self.output_with(&program, &["--version"], &kept.folder.join("lib"));
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

    fn placed_node(&self, kept: Kept) -> Result<Node, Error> {
        let version = Version::parse(&kept.version).map_err(|bad| {
            unavailable("Node.js", format!("`{}`: {bad}", kept.version), "build again")
        })?;
        let target = self.place(&format!("node-{version}"), &kept.folder);
        // The registry's package has them beside its own `bin`.
        let prefixes =
            ["", "package"].map(|inside| (kept.folder.join(inside), target.join(inside)));
        let headers = prefixes.into_iter().find(|(prefix, _)| has_headers(prefix));
        Ok(Node {
            headers: headers.map(|(_, seen)| seen.components().collect()),
            program: target.join("bin/node"),
            libraries: kept.made.has_libraries.then(|| target.join("lib")),
            mount: Toolchain {
                version: format!("node {version}"),
                source: kept.folder,
                target,
                at_run: true,
            },
            name: kept.name,
            version,
        })
    }

    /// Those of the machine that are whole.
    fn machine_nodes(&self) -> Vec<(Version, PathBuf)> {
        let mut paths = self.installed("node");
        paths.extend(self.in_home(&IN_HOME, "bin/node"));
        paths.extend(self.in_home(&IN_HOME, "installation/bin/node"));
        let asked = paths.into_iter().filter_map(|path| {
            let said = self.output(&path, &["-p", QUESTION]).ok()?;
            let mut words = said.split_whitespace();
            let version = Version::parse(words.next()?).ok()?;
            (words.next() != Some("shared")).then_some((version, path))
        });
        asked.collect()
    }

    /// A copy of the program, its headers and its npm.
    fn copy_node(&mut self, version: &Version, host: &Path) -> Result<Kept, Error> {
        let mut files = Files::default();
        files.add(host, "bin/node");
        if let Some(prefix) = host.parent().and_then(Path::parent) {
            let include = Path::new("include/node");
            files.add_all(&prefix.join(include), include, &is_header_of_this)?;
            let npm = Path::new("lib/node_modules/npm");
            let leads_there = prefix.join(npm).canonicalize().is_ok_and(|real| {
                prefix.canonicalize().is_ok_and(|prefix| real == prefix.join(npm))
            });
            if leads_there {
                let wanted = |path: &str| !["docs", "man"].contains(&path);
                files.add_all(&prefix.join(npm), npm, &wanted)?;
            }
        }
        self.copied(("node", &version.to_string()), host, &files, |_, part| {
            for name in ["npm", "npx"] {
                let script = format!("lib/node_modules/npm/bin/{name}-cli.js");
                if part.join(&script).is_file() {
                    files::set_mode(&part.join(&script), 0o755)?;
                    let link = part.join("bin").join(name);
                    files::write_link(&link, &Path::new("..").join(script))?;
                }
            }
            Ok(())
        })
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

    /// The npm that was copied with a Node.js.
    fn npm_beside(&self, node: &Node) -> Option<Manager> {
        let folder = Path::new("lib/node_modules/npm");
        let document = std::fs::read(node.mount.source.join(folder).join("package.json")).ok()?;
        let document: serde_json::Value = serde_json::from_slice(&document).ok()?;
        let version = Version::parse(document.get("version")?.as_str()?).ok()?;
        let script = node.mount.target.join(folder).join("bin/npm-cli.js");
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
        let (version, kept) = self.package(name, package, range, &node.version)?;
        let target = self.place(&format!("{name}-{version}"), &kept.folder);
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
            version: format!("{name} {version}"),
            source: kept.folder,
            target: target.clone(),
            at_run: true,
        };
        Ok(Manager { name, version, argv, mount: Some(mount), bin: Some(target.join("bin")) })
    }
}

/// Whether a header is for this kind of machine: OpenSSL's are there for all.
fn is_header_of_this(path: &str) -> bool {
    let own = match std::env::consts::ARCH {
        "x86_64" => "linux-x86_64",
        "aarch64" => "linux-aarch64",
        _ => return true,
    };
    path.strip_prefix("openssl/archs/").is_none_or(|rest| rest.split('/').next() == Some(own))
}

/// Where a Node.js comes from.
enum Source {
    Kept(Kept),
    Machine(PathBuf),
}

/// The newest version that fulfils all wishes, one of an even (long-term) line before others.
fn best_published(published: &[Published], wants: &[Want]) -> Option<Published> {
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
