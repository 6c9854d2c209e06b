//! A stack: the root file system that builds and processes see below their own layers, known by its
//! content.
//!
//! A stack is made of layers, lowest first. The *run* layer is what a process sees; a build sees an
//! additional layer with compiler, headers and the like. An app's own packages are further layers,
//! seen by both. A digest names each, so an id says the same on every machine.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::name::{NameError, check, name};
use crate::slug::{Digest, short};

name! {
    /// The name by which an app or an operator chooses a stack: `host`, `heroku-24`, `debian:12`.
    StackName, "stack", 255, "a-z, A-Z, 0-9 and `.`, `_`, `-`, `:`, `/`, `@`, a small letter first",
    |c: char| c.is_ascii_lowercase(), |c: char| c.is_ascii_alphanumeric() || "._-:/@".contains(c)
}

impl StackName {
    /// `host`: made of the machine's own packages by the short list.
    pub fn host() -> Self {
        Self("host".to_owned())
    }
}

/// One version of a stack, by content: equal ids show processes the same files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StackId {
    /// The name it was made under.
    pub name: StackName,
    /// The layer that builds and processes see.
    pub run: Digest,
    /// The layer that builds see in addition.
    pub build: Digest,
    /// Layers with an app's own packages, lowest first, seen by both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<Digest>,
}

impl StackId {
    /// One digest for all layers. The name is no part of it.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(b"tolv stack 1");
        for layer in self.layers() {
            hash.update(layer.0);
        }
        Digest(hash.finalize().into())
    }

    /// Every layer: run, build, and the app's packages.
    pub fn layers(&self) -> impl Iterator<Item = &Digest> {
        [&self.run, &self.build].into_iter().chain(&self.packages)
    }
}

impl fmt::Display for StackId {
    /// `host@3f9a1c0b42de`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, short(&self.digest()))
    }
}

/// A package that a layer has files of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Package {
    /// As its package manager names it: `libssl3`.
    pub name: String,
    /// As its package manager writes it: `3.0.16-1~deb12u1`.
    pub version: String,
    /// `amd64`, `all`.
    pub architecture: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(packages: Vec<Digest>) -> StackId {
        let (run, build) = (Digest::of(b"run"), Digest::of(b"build"));
        StackId { name: StackName::host(), run, build, packages }
    }

    #[test]
    fn names_of_every_source_and_no_other() {
        for good in ["host", "heroku-24", "debian:12", "oci:ghcr.io/acme/Base_1.2@sha256:ab"] {
            assert_eq!(good.parse::<StackName>().unwrap().as_str(), good);
        }
        for bad in ["", "Host", "a b", "../x", "a\nb", "-x", &"a".repeat(256)] {
            assert!(bad.parse::<StackName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_id_is_known_by_its_layers_and_their_order() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let same = StackId { name: "heroku-24".parse().unwrap(), ..id(vec![]) };
        assert_eq!(id(vec![]).digest(), same.digest());
        assert_ne!(id(vec![]).digest(), id(vec![one]).digest());
        assert_ne!(id(vec![one, two]).digest(), id(vec![two, one]).digest());
        let text = id(vec![]).to_string();
        assert_eq!(text, format!("host@{}", short(&id(vec![]).digest())));
        let json = serde_json::to_string(&id(vec![one])).unwrap();
        assert_eq!(serde_json::from_str::<StackId>(&json).unwrap(), id(vec![one]));
    }
}
