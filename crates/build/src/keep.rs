//! What stays in a state folder and what goes: proof of slugs, and garbage.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tolv_model::slug::{Digest, Manifest, SlugId, Toolchain};

use crate::Error;
use crate::files;
use crate::layers::Layers;
use crate::needs::{AGAIN, INSTALLED, Places};
use crate::proof::Proofs;
use crate::resolution::Resolutions;
use crate::slugs::Slugs;
use crate::source::{buildpacks, submodules};
use crate::stacks::Stacks;
use crate::toolchains::Store;

/// Proves that a slug is what its id says, and its layers, toolchains and stack what the slug says: every
/// path, mode, link and byte, and nothing else. What was proven before and has not changed since is
/// not read again.
///
/// # Errors
///
/// [`Error::Slug`], [`Error::Layer`], [`Error::Toolchain`], [`Error::Stack`] name the first path that differs.
pub fn verify(places: &Places, id: SlugId, proofs: &Proofs) -> Result<(), Error> {
    let slugs = Slugs::at(&places.home);
    let manifest = slugs.proven(id, proofs)?.map_err(|what| Error::Slug { id, what })?;
    let layers = Layers::at(slugs.folder());
    for layer in &manifest.layers {
        layers.proven(layer, proofs)?.map_err(|what| Error::Layer { key: layer.key, what })?;
    }
    let store = Store::at(&places.toolchains);
    let is_kept =
        |one: &&Toolchain| one.name != Toolchain::PLATFORM && !one.name.starts_with(INSTALLED);
    for toolchain in manifest.toolchains.iter().filter(is_kept) {
        let changed = |why: String| Error::Toolchain {
            what: toolchain.name.clone(),
            why: format!("it {why}"),
            help: AGAIN.to_owned(),
        };
        store.proven(&toolchain.name, proofs)?.map_err(changed)?;
    }
    if let Some(stack) = &manifest.stack {
        Stacks::at(&places.stacks).with_proofs(proofs.clone()).prove_run(stack)?;
    }
    Ok(())
}

/// A slug's manifest, which proves itself, whatever became of the slug; its entries are left out.
///
/// # Errors
///
/// [`Error::Slug`] where there is none.
pub fn manifest(home: &Path, id: SlugId, proofs: &Proofs) -> Result<Manifest, Error> {
    let what = || "has no manifest that is its own".to_owned();
    proofs.manifest(&Slugs::at(home), id).ok_or_else(|| Error::Slug { id, what: what() })
}

/// Removes an app's folder, with whatever its builds left there.
///
/// # Errors
///
/// Something of it cannot be removed.
pub fn remove(home: &Path) -> Result<(), Error> {
    files::remove(home)
}

/// What a folder of toolchains takes on the disk, in bytes.
pub fn toolchains_usage(folder: &Path) -> u64 {
    files::disk_use(folder)
}

/// Bytes on the disk, by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Slugs and their manifests.
    pub slugs: u64,
    /// Dependency layers.
    pub layers: u64,
    /// What builds keep for the next.
    pub caches: u64,
}

/// What an app's folder takes on the disk.
///
/// # Errors
///
/// The folder cannot be opened.
pub fn usage(home: &Path) -> Result<Usage, Error> {
    let slugs = Slugs::open(home)?;
    let layers = Layers::open(slugs.folder())?;
    let below = files::disk_use(layers.folder());
    Ok(Usage {
        slugs: files::disk_use(slugs.folder()).saturating_sub(below),
        layers: below,
        caches: files::disk_use(&home.join("cache"))
            .saturating_add(files::disk_use(Resolutions::at(home).folder()))
            .saturating_add(files::disk_use(&home.join(submodules::FOLDER)))
            .saturating_add(files::disk_use(&home.join(buildpacks::FOLDER))),
    })
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Slugs.
    pub slugs: u32,
    /// Layers.
    pub layers: u32,
}

/// Removes slugs that are not in `keep`, and layers that none of the kept ones has. What is
/// younger than `young` stays: a build has made it and nobody has recorded it yet.
///
/// A slug's manifest goes first: interrupted, the rest is no slug any more, and goes next time.
///
/// # Errors
///
/// A folder cannot be read or removed; what was removed before stays so.
pub fn collect(home: &Path, keep: &BTreeSet<SlugId>, young: Duration) -> Result<Collected, Error> {
    let slugs = Slugs::open(home)?;
    let layers = Layers::open(slugs.folder())?;
    let mut collected = Collected::default();
    let mut used = BTreeSet::new();
    for id in slugs.all()? {
        if keep.contains(&id) || is_young(&slugs.path(id), young) {
            let manifest = slugs.recorded(id);
            used.extend(manifest.iter().flat_map(|m| m.layers.iter().map(|layer| layer.key)));
        } else {
            slugs.remove(id)?;
            collected.slugs += 1;
        }
    }
    for key in layers.all()? {
        if !used.contains(&key) && !is_young(&layers.path(&key), young) {
            layers.remove(&key)?;
            collected.layers += 1;
        }
    }
    slugs.forget_unknown()?;
    Ok(collected)
}

fn is_young(path: &Path, young: Duration) -> bool {
    // A slug's own times are fixed; when its folder came to its place is what the system noted.
    let changed = fs::symlink_metadata(path).map(|meta| {
        use std::os::unix::fs::MetadataExt as _;
        let seconds = u64::try_from(meta.ctime()).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    });
    let age = changed.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    age.is_none_or(|age| age < young)
}

/// The names in a folder that are digests, with this ending.
pub(crate) fn digests(folder: &Path, ending: &str) -> Result<BTreeSet<Digest>, Error> {
    let list = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let name = |entry: fs::DirEntry| {
        let name = entry.file_name();
        name.to_str()?.strip_suffix(ending)?.parse().ok()
    };
    Ok(list.flatten().filter_map(name).collect())
}

#[cfg(test)]
mod tests;
