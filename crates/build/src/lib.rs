//! Codebase to slug: detect, plan, run the plan in a sandbox, pack, cache (factors II and V).
//!
//! ```text
//! Source ──► snapshot ──► detect ──► Plan ──► layers ──► steps ──► pack ──► Slug
//! ```
//!
//! [`build`] is the whole of it, blocking. It knows no deploy and no config: the same source gives
//! the same slug wherever it is deployed.
//!
//! # Invariants
//!
//! * What a step sees is its copy of the source, its layers, its cache and its toolchain: never
//!   the codebase itself, and nothing of the builder's own environment.
//! * A slug and a layer appear whole under their names or not at all.
//! * Whatever ends a build (error, time, size, cancel, SIGKILL), the next one starts clean.

#![warn(missing_docs)]

mod archive;
mod beneath;
mod builders;
mod caps;
mod declared;
mod error;
mod exec;
mod files;
mod keep;
mod layers;
mod links;
mod needs;
mod packs;
mod pipeline;
mod plan;
mod proof;
mod repository;
mod resolution;
mod scripts;
mod seal;
mod slots;
mod slugs;
mod snapshot;
mod source;
mod stacks;
mod state_folder;
mod toolchains;
mod tree;

pub use archive::{has_layer, layers_of, pack_layer, pack_slug, unpack_layer, unpack_slug};
pub use caps::{Caps, Room};
pub use declared::{Wanted, declared, wanted};
pub use error::Error;
pub use exec::passes;
pub use keep::{Collected, Usage, collect, manifest, remove, toolchains_usage, usage, verify};
pub use needs::Places;
pub use pipeline::{BuildConfig, Built, Host, Request, TOOLCHAINS, build, lock};
pub use proof::Proofs;
pub use repository::{GitAccess, GitAnswer, GitCommand, GitLimits, GitSandbox, Repository};
pub use resolution::LockFile;
pub use source::root::tree_at;
pub use source::{Source, odd_ignore_file};
pub use stacks::{Change, Contents, STACKS, Stack, Stacks, Version};
pub use state_folder::{StateFolder, StateFolderError};
pub use toolchains::renew_toolchains;

/// What a build says while it works. The texts are for people; nothing decides by them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A stage begins: `-----> Installing dependencies`.
    Heading(String),
    /// One line of the stage's output, without its line end; any bytes.
    Line(Vec<u8>),
    /// Something that works but should be looked at.
    Warning(String),
    /// How far a long step is.
    Progress {
        /// Units done.
        done: u64,
        /// Units in all; 0 where that is not known.
        total: u64,
        /// What is being worked on.
        what: String,
    },
}

impl Event {
    /// A line of text.
    pub fn line(text: impl Into<String>) -> Self {
        Self::Line(text.into().into_bytes())
    }

    /// As people read it: `-----> Heading`, seven spaces before a line, `!` before a warning; without
    /// a line end at its end. Nothing of what only moves a bar.
    pub fn text(&self) -> Vec<u8> {
        match self {
            Self::Heading(text) => format!("-----> {text}").into_bytes(),
            Self::Line(line) => [b"       ".as_slice(), line].concat(),
            Self::Warning(text) => {
                let lines: Vec<_> = text.lines().map(|line| format!(" !     {line}")).collect();
                lines.join("\n").into_bytes()
            }
            Self::Progress { .. } => Vec::new(),
        }
    }
}
