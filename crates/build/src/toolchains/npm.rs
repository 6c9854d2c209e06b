//! Programs that come as npm packages: Node.js itself, npm, pnpm and yarn.
//!
//! A package is unpacked into the folder `package` of a toolchain, and its commands are linked in its
//! `bin`. No install script is run and nothing it depends on is fetched: the packages used
//! here bring everything along.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path};

use nodejs_semver::{Range, Version};
use serde_json::Value;

use super::Toolchains;
use super::fetch::{Expected, unavailable, untar};
use super::http::{Client, Target};
use super::store::Kept;
use crate::{Error, Event};

/// The short form of a package's document: versions and where they are, no readmes.
const SHORT: &str = "application/vnd.npm.install-v1+json, application/json;q=0.5";
const HELP: &str = "connect to the network, or install it so that it is on PATH";

/// The npm settings of the operator that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Npmrc {
    values: BTreeMap<String, String>,
}

impl Npmrc {
    /// Reads `key = value` lines; `${NAME}` is taken from `env`, and a line with an unknown name
    /// is left out.
    pub(super) fn parse(text: &str, env: &BTreeMap<String, OsString>) -> Self {
        let mut values = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            if line.starts_with(['#', ';', '[']) {
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let value = value.trim().trim_matches(['"', '\'']);
            if let Some(value) = expand(value, env) {
                values.insert(key.trim().to_owned(), value);
            }
        }
        Self { values }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }
}

fn expand(value: &str, env: &BTreeMap<String, OsString>) -> Option<String> {
    let mut text = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}')?;
        text.push_str(before);
        text.push_str(env.get(name)?.to_str()?);
        rest = after;
    }
    text.push_str(rest);
    Some(text)
}

/// One version in a package's document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) version: Version,
    node: Option<Range>,
    tarball: String,
    integrity: Option<String>,
}

impl Published {
    pub(super) fn of(value: &Value) -> Option<Self> {
        let dist = value.get("dist")?;
        let node = value.pointer("/engines/node").and_then(Value::as_str);
        // More than one digest may stand there, the strongest is wanted.
        let sha512 = |text: &str| {
            text.split_whitespace().find_map(|part| part.strip_prefix("sha512-")).map(str::to_owned)
        };
        Some(Self {
            version: Version::parse(value.get("version")?.as_str()?).ok()?,
            node: node.and_then(|range| Range::parse(range).ok()),
            tarball: dist.get("tarball")?.as_str()?.to_owned(),
            integrity: dist.get("integrity").and_then(Value::as_str).and_then(sha512),
        })
    }

    /// Whether it says that it runs on this Node.js.
    pub(super) fn runs_on(&self, node: &Version) -> bool {
        self.node.as_ref().is_none_or(|range| range.satisfies(node))
    }
}

/// The operator's npm registry.
pub(super) struct Registry {
    client: Client,
    rc: Npmrc,
    base: String,
}

impl Registry {
    pub(super) fn open(toolchains: &Toolchains<'_>, what: &str) -> Result<Self, Error> {
        let rc = toolchains.npmrc();
        let mut client = Client::new(toolchains.env).map_err(|why| unavailable(what, why, HELP))?;
        for (key, value) in &rc.values {
            let Some(key) = key.strip_prefix("//") else { continue };
            let Some((place, field)) = key.rsplit_once(':') else { continue };
            let scheme = match field {
                "_authToken" => "Bearer",
                "_auth" => "Basic",
                _ => continue,
            };
            client.authorize(format!("https://{place}"), format!("{scheme} {value}"));
        }
        let base = toolchains.npm_registry();
        Ok(Self { client, rc, base })
    }

    fn address(&self, package: &str, version: Option<&str>) -> String {
        let scoped = package.split_once('/').map(|(scope, _)| format!("{scope}:registry"));
        let base = scoped.as_deref().and_then(|key| self.rc.get(key)).unwrap_or(&self.base);
        let mut url = format!("{}/{}", base.trim_end_matches('/'), package.replace('/', "%2f"));
        if let Some(version) = version {
            url.push('/');
            url.push_str(version);
        }
        url
    }

    /// All versions of a package.
    pub(super) fn versions(&self, package: &str) -> Result<Vec<Published>, String> {
        let url = self.address(package, None);
        let document = self.client.json(&url, SHORT)?;
        let versions = document
            .get("versions")
            .and_then(Value::as_object)
            .ok_or_else(|| format!("{} does not list versions", Target::new(&url).shown))?;
        Ok(versions.values().filter_map(Published::of).collect())
    }

    fn version(&self, package: &str, version: &Version) -> Result<Published, String> {
        let url = self.address(package, Some(&version.to_string()));
        let document = self.client.json(&url, "application/json")?;
        Published::of(&document)
            .ok_or_else(|| format!("{} is not a package's document", Target::new(&url).shown))
    }
}

impl Toolchains<'_> {
    /// The operator's own `.npmrc`.
    fn npmrc(&self) -> Npmrc {
        let path = self.user_home.as_ref().map(|home| home.join(".npmrc"));
        let text = path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        Npmrc::parse(&text, self.env)
    }

    /// The registry that the operator uses, without a last `/`.
    pub(crate) fn npm_registry(&self) -> String {
        let named = ["NPM_CONFIG_REGISTRY", "npm_config_registry"];
        let named = named.iter().find_map(|name| self.env.get(*name)?.to_str());
        let rc = self.npmrc();
        let base = named.filter(|url| !url.is_empty()).or(rc.get("registry"));
        base.unwrap_or("https://registry.npmjs.org").trim_end_matches('/').to_owned()
    }

    /// What was fetched or copied of this name, newest first.
    pub(super) fn kept(&self, name: &str) -> Vec<(Version, Kept)> {
        let kept = self.store().kept(name).into_iter();
        let mut kept: Vec<_> =
            kept.filter_map(|kept| Some((Version::parse(&kept.version).ok()?, kept))).collect();
        kept.sort_by(|a, b| b.0.cmp(&a.0));
        kept
    }

    /// A program from an npm package: the version that `range` names, or of several the lowest that
    /// runs on `node`. The lowest one stays the same whatever is published, and whatever another
    /// build has fetched.
    ///
    /// # Errors
    ///
    /// [`Error::Toolchain`] where it cannot be had.
    pub(crate) fn package(
        &mut self,
        name: &str,
        package: &str,
        range: &Range,
        node: &Version,
    ) -> Result<(Version, Kept), Error> {
        let fits = |version: &Version| range.satisfies(version);
        let exact = range.min_version().filter(|version| range.to_string() == version.to_string());
        let kept = |chains: &mut Self| -> Result<Option<(Version, Kept)>, Error> {
            let found = chains.kept(name).into_iter().find(|(version, _)| fits(version));
            let Some((version, kept)) = found else { return Ok(None) };
            Ok(chains.usable(kept)?.map(|kept| (version, kept)))
        };
        if exact.is_some()
            && let Some(kept) = kept(self)?
        {
            return Ok(kept);
        }
        let what = format!("{name} {range}");
        let registry = Registry::open(self, &what)?;
        let published = match &exact {
            Some(version) => registry.version(package, version).map(|found| vec![found]),
            None => registry.versions(package),
        };
        let published = match (published, kept(self)?) {
            (Ok(published), _) => published,
            (Err(_), Some(kept)) => return Ok(kept),
            (Err(why), None) => return Err(unavailable(&what, why, HELP)),
        };
        let best = published
            .into_iter()
            .filter(|found| fits(&found.version) && found.runs_on(node))
            .min_by(|a, b| a.version.cmp(&b.version));
        let best = best.ok_or_else(|| {
            unavailable(
                &what,
                format!("the registry has no version of it that runs on Node.js {node}"),
                "name another version in `packageManager` of package.json",
            )
        })?;
        self.unpack(&registry, name, &best)
    }

    /// Fetches and unpacks one version.
    pub(super) fn unpack(
        &mut self,
        registry: &Registry,
        name: &str,
        found: &Published,
    ) -> Result<(Version, Kept), Error> {
        let what = format!("{name} {}", found.version);
        let Some(integrity) = found.integrity.clone() else {
            let why = "the registry gives no SHA-512 for it";
            return Err(unavailable(&what, why, "use a registry that does"));
        };
        let kept = self.install((name, &found.version.to_string()), |chains, folder| {
            chains.say(Event::line(format!("Fetching {what}")));
            let expected = Expected::Sha512(integrity);
            let archive = chains.download(&registry.client, &found.tarball, &expected, &what)?;
            let inside = folder.join("package");
            untar(archive, &inside).map_err(Error::io("unpack", &inside))?;
            link_commands(folder)
        })?;
        Ok((found.version.clone(), kept))
    }
}

/// Links the commands that `package/package.json` names in `bin`, and makes them executable.
fn link_commands(folder: &Path) -> Result<(), Error> {
    let inside = folder.join("package");
    let path = inside.join("package.json");
    let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
    let document: Value =
        serde_json::from_slice(&bytes).map_err(|bad| Error::io("read", &path)(bad.into()))?;
    let own = document.get("name").and_then(Value::as_str).unwrap_or_default();
    let own = own.rsplit('/').next().unwrap_or(own);
    let commands: Vec<(&str, &str)> = match document.get("bin") {
        Some(Value::String(target)) => vec![(own, target)],
        Some(Value::Object(map)) => map
            .iter()
            .filter_map(|(name, target)| Some((name.as_str(), target.as_str()?)))
            .collect(),
        _ => Vec::new(),
    };
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).map_err(Error::io("create", &bin))?;
    for (name, target) in commands {
        let plain = |text: &str| {
            Path::new(text)
                .components()
                .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        };
        let file = inside.join(target);
        if name.is_empty()
            || name.contains('/')
            || !plain(name)
            || !plain(target)
            || !file.is_file()
        {
            continue;
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))
            .map_err(Error::io("change", &file))?;
        let target = target.strip_prefix("./").unwrap_or(target);
        symlink(format!("../package/{target}"), bin.join(name))
            .map_err(Error::io("create", bin.join(name)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
