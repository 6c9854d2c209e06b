//! What each deploy runs, kept on this machine: a start needs neither a build, nor the network, nor
//! the database. Sealed with the secret key, for config is in it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tolv_model::env::{Env, EnvName};
use tolv_model::formation::Formation;
use tolv_model::id::{AppId, DeployId};
use tolv_model::name::{Deploy as DeployPath, ProcessType};
use tolv_model::release::{Release, ReleaseNumber};
use tolv_model::size::Sizes;
use tolv_model::slug::SlugId;
use tolv_run::Target;
use tolv_store::{Deploy, Store};

use super::error::Error;

/// Whose it is, and where it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) id: DeployId,
    pub(super) app: AppId,
    pub(super) path: DeployPath,
    pub(super) host: String,
}

impl Place {
    pub(super) fn of(deploy: &Deploy) -> Self {
        Self {
            id: deploy.id.clone(),
            app: deploy.app.clone(),
            path: deploy.name.clone(),
            host: deploy.host.clone(),
        }
    }
}

/// What a deploy runs, as it is kept.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    place: Place,
    number: ReleaseNumber,
    slug: SlugId,
    commit: Option<String>,
    config: BTreeMap<EnvName, Vec<u8>>,
    process_types: BTreeMap<ProcessType, String>,
    formation: Formation,
    sizes: Sizes,
}

fn folder(home: &Path) -> PathBuf {
    home.join("running")
}

fn file(home: &Path, id: &DeployId) -> PathBuf {
    folder(home).join(id.as_str())
}

fn owner(id: &str) -> String {
    format!("running {id}")
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { what, source }
}

impl Kept {
    /// Keeps what a deploy runs from here on. Nothing is written where that is kept already.
    pub(super) fn put(
        home: &Path,
        store: &Store,
        place: Place,
        target: &Target,
        sizes: &Sizes,
    ) -> Result<(), Error> {
        let release = &target.release;
        let path = file(home, &place.id);
        let known = Self::read(&path, store);
        let sealed_for = owner(place.id.as_str());
        let config = release.config.iter();
        let kept = Self {
            place,
            number: release.number,
            slug: release.slug,
            commit: release.commit.clone(),
            config: config.map(|(name, value)| (name.clone(), value.as_bytes().to_vec())).collect(),
            process_types: release.process_types.clone(),
            formation: release.formation.clone(),
            sizes: sizes.clone(),
        };
        if known.is_some_and(|known| known == kept) {
            return Ok(());
        }
        let write = |text: &str| {
            fs::create_dir_all(folder(home))?;
            tolv_durable::write(&path, text.as_bytes(), 0o600)
        };
        let bytes = serde_json::to_vec(&kept).map_err(io::Error::other);
        let bytes = bytes.map_err(failed("keep what a deploy runs"))?;
        let sealed = store.seal(&sealed_for, &bytes)?;
        write(&sealed).map_err(failed("keep what a deploy runs"))
    }

    /// The release that a deploy ran when this was kept, with its sizes; nothing where nothing was, or
    /// it cannot be read. What its slug says is in the slug.
    pub(super) fn get(home: &Path, store: &Store, id: &DeployId) -> Option<(Release, Sizes)> {
        let kept = Self::read(&file(home, id), store)?;
        let mut config = Env::default();
        for (name, value) in kept.config {
            config.set(name, value).ok()?;
        }
        let release = Release {
            deploy: kept.place.path,
            number: kept.number,
            slug: kept.slug,
            commit: kept.commit,
            config,
            process_types: kept.process_types,
            formation: kept.formation,
        };
        Some((release, kept.sizes))
    }

    fn read(path: &Path, store: &Store) -> Option<Self> {
        let sealed = String::from_utf8(tolv_durable::read(path).ok()?).ok()?;
        let name = path.file_name()?.to_str()?;
        serde_json::from_slice(&store.unseal(&owner(name), &sealed)?).ok()
    }

    /// The deploys that something is kept of, and how many files cannot be read.
    pub(super) fn all(home: &Path, store: &Store) -> Result<(Vec<Place>, usize), Error> {
        let list = match fs::read_dir(folder(home)) {
            Ok(list) => list,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
            Err(error) => return Err(failed("read what deploys ran")(error)),
        };
        let (mut places, mut unreadable) = (Vec::new(), 0);
        // Others are halves of files that a kill left.
        let is_own = |entry: &fs::DirEntry| {
            entry.file_name().to_str().is_some_and(|name| name.parse::<DeployId>().is_ok())
        };
        for entry in list.flatten().filter(is_own) {
            match Self::read(&entry.path(), store) {
                Some(kept) => places.push(kept.place),
                None => unreadable += 1,
            }
        }
        Ok((places, unreadable))
    }

    /// Forgets a deploy.
    pub(super) fn remove(home: &Path, id: &DeployId) -> Result<(), Error> {
        match fs::remove_file(file(home, id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("forget what a deploy ran")(error))
            }
            _ => Ok(()),
        }
    }
}
