//! A slug: the immutable output of a build (factor V), known by its content.
//!
//! The id is the SHA-256 of a canonical manifest: every path with its mode and content digest,
//! sorted by path, then the layers, toolchains, process types, environment and what app.json
//! declares for the run stage: everything that decides what a release of it runs. No time, owner,
//! host or path of the host is in it, so the same input gives the same id. Dependencies stay
//! outside, in a layer the manifest names by content.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::app_json::{CronJob, Variable};
use crate::env::EnvName;
use crate::formation::Formation;
use crate::health::HealthCheck;
use crate::name::ProcessType;
use crate::size::Sizes;
use crate::stack::StackId;

/// A SHA-256, printed as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

/// Not 64 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a SHA-256: 64 hex digits")]
pub struct DigestError(String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Digest {
    type Err = DigestError;
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let bad = || DigestError(text.chars().take(80).collect());
        if text.len() != 64 || !text.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;
    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// A slug's identity. Prints as `sha256:…`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlugId(pub Digest);

impl fmt::Display for SlugId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// What stands at one path of a slug.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Entry {
    /// A folder.
    Directory,
    /// A regular file.
    File {
        /// SHA-256 of its bytes.
        digest: Digest,
        /// Length in bytes.
        size: u64,
        /// Whether it may be executed; the only mode bit that a slug keeps.
        executable: bool,
    },
    /// A symbolic link, relative and inside the tree, or into a layer.
    Symlink {
        /// Where it points, as bytes shown lossily never: kept as stored on disk.
        target: Vec<u8>,
    },
}

impl Entry {
    /// Gives the byte strings that decide about a path of a tree: the path, what stands there,
    /// and its contents.
    pub fn put(&self, path: &[u8], put: &mut dyn FnMut(&[u8])) {
        put(path);
        match self {
            Self::Directory => put(b"d"),
            Self::File { digest, executable, .. } => {
                put(if *executable { b"x" } else { b"f" });
                put(&digest.0);
            }
            Self::Symlink { target } => {
                put(b"l");
                put(target);
            }
        }
    }
}

/// A dependency layer that the slug refers to: seen by its processes at `/layers/<key>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Digest of what made it (lock, toolchain, builder): the folder's name.
    pub key: Digest,
    /// Digest of what is in it.
    pub content: Digest,
}

/// A toolchain that the slug's processes see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// Its name with its version: `node-22.11.0`. Where it is on a machine is looked up by this
    /// name when a release starts, and is not part of the slug.
    pub name: String,
    /// Where processes see it, in bytes.
    pub target: Vec<u8>,
}

impl Toolchain {
    /// The name of the platform's own program, which serves static sites.
    pub const PLATFORM: &str = "tolv";

    /// Whether it is the platform's own program.
    pub fn is_platform(&self) -> bool {
        self.name == Self::PLATFORM
    }

    /// Whether the name is a plain path below the folder of toolchains.
    pub fn is_plain(&self) -> bool {
        let part = |part: &str| !part.is_empty() && part != "." && part != "..";
        self.name.split('/').all(part) && !self.name.contains('\0')
    }
}

/// A buildpack that made a slug.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedBuildpack {
    /// As it was written: an https URL with `#ref`, a folder of the codebase.
    pub name: String,
    /// Its commit; nothing for a folder of the codebase.
    pub commit: Option<String>,
}

/// What app.json declares for the run stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Health checks by process type.
    pub checks: BTreeMap<ProcessType, Vec<HealthCheck>>,
    /// First quantities.
    pub formation: Formation,
    /// Sizes of process types.
    pub sizes: Sizes,
    /// Config variables.
    pub env: BTreeMap<EnvName, Variable>,
    /// Schedules.
    pub cron: Vec<CronJob>,
}

impl Declared {
    /// The bytes that stand for it in a digest: JSON, whose maps are sorted.
    fn canonical(&self) -> Vec<u8> {
        // Names and numbers: nothing in it that JSON cannot say.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// All that a slug is; [`Manifest::id`] is its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Path in the slug, in bytes, `/` between parts, no leading `/` → what stands there.
    pub entries: Vec<(Vec<u8>, Entry)>,
    /// Dependency layers, in the order of the build plan.
    pub layers: Vec<Layer>,
    /// Toolchains that its processes see.
    pub toolchains: Vec<Toolchain>,
    /// Process type → command line as in the Procfile.
    pub process_types: BTreeMap<ProcessType, String>,
    /// Environment that the builder gives its processes, below config: `PYTHONUNBUFFERED=1`.
    pub env: BTreeMap<String, String>,
    /// Folders put in front of `PATH`, as seen in the sandbox: `/app/.venv/bin`.
    pub path: Vec<String>,
    /// Scripts that are sourced before each process: `.profile`. They are among the entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profile: Vec<String>,
    /// What app.json says of its processes.
    pub declared: Declared,
    /// The config that its build got: name → a digest of the value, under the platform's key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub build_config: BTreeMap<EnvName, String>,
    /// The buildpacks that made it, in order; none where Tolv's builders alone did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buildpacks: Vec<UsedBuildpack>,
    /// The stack below its processes, which it was built on; none for the machine's own programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<StackId>,
}

impl Manifest {
    /// The slug's identity: equal manifests, and only those, have equal ids.
    ///
    /// The hashed text is versioned; each byte string is preceded by its length, so that no two
    /// manifests share a text.
    pub fn id(&self) -> SlugId {
        let mut hash = Sha256::new();
        let mut put = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        put(b"tolv slug 2");
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, entry) in entries {
            entry.put(path, &mut put);
        }
        put(b"layers");
        for layer in &self.layers {
            put(&layer.key.0);
            put(&layer.content.0);
        }
        put(b"toolchains");
        for toolchain in &self.toolchains {
            put(toolchain.name.as_bytes());
            put(&toolchain.target);
        }
        put(b"process types");
        for (kind, command) in &self.process_types {
            put(kind.as_str().as_bytes());
            put(command.as_bytes());
        }
        put(b"env");
        for (name, value) in &self.env {
            put(name.as_bytes());
            put(value.as_bytes());
        }
        put(b"path");
        for folder in &self.path {
            put(folder.as_bytes());
        }
        put(b"declared");
        put(&self.declared.canonical());
        if !self.profile.is_empty() {
            put(b"profile");
            self.profile.iter().for_each(|path| put(path.as_bytes()));
        }
        if !self.build_config.is_empty() {
            put(b"build config");
            for (name, digest) in &self.build_config {
                put(name.as_str().as_bytes());
                put(digest.as_bytes());
            }
        }
        if !self.buildpacks.is_empty() {
            put(b"buildpacks");
            for buildpack in &self.buildpacks {
                put(buildpack.name.as_bytes());
                put(buildpack.commit.as_deref().unwrap_or_default().as_bytes());
            }
        }
        if let Some(stack) = &self.stack {
            put(b"stack");
            put(stack.name.as_str().as_bytes());
            put(&stack.digest().0);
        }
        SlugId(Digest(hash.finalize().into()))
    }

    /// Bytes of all files, layers not counted.
    pub fn size(&self) -> u64 {
        let size = |entry: &Entry| match entry {
            Entry::File { size, .. } => *size,
            Entry::Directory | Entry::Symlink { .. } => 0,
        };
        self.entries.iter().map(|(_, entry)| size(entry)).sum()
    }

    /// How many regular files there are, layers not counted.
    pub fn files(&self) -> usize {
        self.entries.iter().filter(|(_, entry)| matches!(entry, Entry::File { .. })).count()
    }
}

/// The first digits of a digest, enough to tell two apart on a screen: `3f9a1c0b42de`.
pub fn short(digest: &Digest) -> String {
    digest.0[..6].iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").ok();
        text
    })
}

#[cfg(test)]
mod tests;
