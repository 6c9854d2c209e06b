//! Slugs: `<home>/slugs/<hex>` with the manifest beside it as `<hex>.json`, written last.
//!
//! `<home>/slugs/known/<hex>` remembers which slug a build's whole input gave, so that building
//! the same again is a look-up.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tolv_model::slug::{Digest, Entry, Manifest, SlugId};

use crate::Error;
use crate::caps::Caps;
use crate::files::{self, Lock};
use crate::keep::digests;
use crate::links::{self, Leads};
use crate::plan::Plan;
use crate::proof::{Proofs, prove};
use crate::seal::{SLUG, seal_within};
use crate::source::{as_path, shown};
use crate::toolchains::Layout;

/// The slugs of one state folder.
#[derive(Clone, Debug)]
pub(crate) struct Slugs {
    folder: PathBuf,
}

impl Slugs {
    /// Those of `<home>`.
    pub(crate) fn open(home: &Path) -> Result<Self, Error> {
        let slugs = Self::at(home);
        files::make_folder(&slugs.folder.join("known"))?;
        Ok(slugs)
    }

    /// Those of `<home>`, to be looked at: nothing is made.
    pub(crate) fn at(home: &Path) -> Self {
        Self { folder: home.join("slugs") }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A slug's tree on the host.
    pub(crate) fn path(&self, id: SlugId) -> PathBuf {
        self.folder.join(id.0.to_string())
    }

    fn manifest_path(&self, id: SlugId) -> PathBuf {
        self.folder.join(format!("{}.json", id.0))
    }

    /// Proves that a slug's tree is the slug, and gives its manifest without its entries; layers are
    /// not looked at.
    ///
    /// # Errors
    ///
    /// The inner error says what is wrong with it.
    pub(crate) fn proven(
        &self,
        id: SlugId,
        proofs: &Proofs,
    ) -> Result<Result<Manifest, String>, Error> {
        let root = self.path(id);
        let Some(manifest) = proofs.manifest(self, id) else {
            return Ok(Err(match root.is_dir() {
                true => "has no manifest that is its own".to_owned(),
                false => "is not here".to_owned(),
            }));
        };
        let none = || "has no manifest that is its own".to_owned();
        let entries = || self.recorded(id).map(|manifest| manifest.entries).ok_or_else(none);
        Ok(prove(&root, SLUG, id.0, entries, proofs)?.map(|()| manifest))
    }

    /// A slug's manifest, whatever became of the slug.
    pub(crate) fn recorded(&self, id: SlugId) -> Option<Manifest> {
        let bytes = fs::read(self.manifest_path(id)).ok()?;
        let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
        (manifest.id() == id).then_some(manifest)
    }

    /// Every slug that has a folder or a manifest.
    pub(crate) fn all(&self) -> Result<BTreeSet<SlugId>, Error> {
        let mut all = digests(&self.folder, "")?;
        all.extend(digests(&self.folder, ".json")?);
        Ok(all.into_iter().map(SlugId).collect())
    }

    /// Removes a slug; its manifest first, for without it there is none.
    pub(crate) fn remove(&self, id: SlugId) -> Result<(), Error> {
        let lock = self.folder.join(format!("{}.lock", id.0));
        let _held = Lock::take(&lock, &|| false, &mut || {})?;
        files::remove(&self.manifest_path(id))?;
        files::remove(&self.path(id))?;
        files::remove(&lock)
    }

    /// Forgets inputs whose slug is gone.
    pub(crate) fn forget_unknown(&self) -> Result<(), Error> {
        for input in digests(&self.folder.join("known"), "")? {
            let path = self.known_path(&input);
            let id = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
            if id.is_none_or(|id| !self.manifest_path(SlugId(id)).exists()) {
                files::remove(&path)?;
            }
        }
        Ok(())
    }

    fn known_path(&self, input: &Digest) -> PathBuf {
        self.folder.join("known").join(input.to_string())
    }

    /// The slug that this input gave before, if it is still there and what it was.
    pub(crate) fn known(
        &self,
        input: &Digest,
        proofs: &Proofs,
    ) -> Result<Option<(SlugId, Manifest)>, Error> {
        let text = fs::read_to_string(self.known_path(input)).ok();
        let id = text.and_then(|text| text.trim().parse().ok()).map(SlugId);
        let Some(id) = id else { return Ok(None) };
        let is_proven = self.proven(id, proofs)?.is_ok();
        Ok(self.recorded(id).filter(|_| is_proven).map(|manifest| (id, manifest)))
    }

    /// Remembers what an input gave.
    pub(crate) fn remember(&self, input: &Digest, id: SlugId) -> Result<(), Error> {
        files::write_whole(&self.known_path(input), format!("{}\n", id.0).as_bytes())
    }

    /// Moves a packed tree to its name. Of two equal ones, the first stays; one that has changed
    /// since it was put there does not.
    pub(crate) fn put(
        &self,
        app: &Path,
        manifest: &Manifest,
        proofs: &Proofs,
    ) -> Result<SlugId, Error> {
        let id = manifest.id();
        let lock = self.folder.join(format!("{}.lock", id.0));
        let held = Lock::take(&lock, &|| false, &mut || {})?;
        if self.recorded(id).is_none() || self.proven(id, proofs)?.is_err() {
            let place = self.path(id);
            files::remove(&place)?;
            // Moving a folder writes its `..`, which takes write permission where root is not us.
            files::set_mode(app, 0o755)?;
            tolv_durable::move_folder(app, &place).map_err(Error::io("create", &place))?;
            let bytes = serde_json::to_vec(manifest).map_err(std::io::Error::other);
            let path = self.manifest_path(id);
            files::write_whole(&path, &bytes.map_err(Error::io("write", &path))?)?;
        }
        drop(held);
        Ok(id)
    }
}

/// Removes from the app what does not enter the slug, makes the rest fixed, and lists it.
pub(crate) fn pack(
    app: &Path,
    plan: &Plan,
    layout: &Layout,
    caps: &Caps,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<(Vec<u8>, Entry)>, Error> {
    let build_only: Vec<&str> = plan
        .layers
        .iter()
        .filter(|layer| !layer.at_run)
        .flat_map(|layer| layer.links.iter().map(|(path, _)| path.as_str()))
        .collect();
    let wanted = |path: &[u8]| is_wanted(path, plan, &build_only);
    let mut entries = seal_within(app, "the slug", SLUG, &wanted, caps, cancelled)?;
    drop_emptied(app, plan, &mut entries)?;
    check_links(app, plan, layout, &mut entries)?;
    Ok(entries)
}

fn is_below(path: &[u8], folder: &str) -> bool {
    path.strip_prefix(folder.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn is_wanted(path: &[u8], plan: &Plan, build_only: &[&str]) -> bool {
    let mut parts = path.split(|&byte| byte == b'/');
    if parts.clone().next() == Some(b".tolv") || parts.any(|part| part == b".git") {
        return false;
    }
    if build_only.iter().any(|link| is_below(path, link)) {
        return false;
    }
    let kept = |keep: &String| {
        is_below(path, keep)
            || keep.as_bytes().strip_prefix(path).is_some_and(|rest| rest.first() == Some(&b'/'))
    };
    !plan.prune.iter().any(|folder| is_below(path, folder)) || plan.keep.iter().any(kept)
}

/// A folder on the way to something kept that is not there after all leaves nothing behind.
fn drop_emptied(app: &Path, plan: &Plan, entries: &mut Vec<(Vec<u8>, Entry)>) -> Result<(), Error> {
    for place in (0..entries.len()).rev() {
        let (path, entry) = &entries[place];
        let pruned = plan.prune.iter().any(|folder| is_below(path, folder));
        let below = [path.as_slice(), b"/"].concat();
        let empty = !entries[place + 1..].iter().any(|(next, _)| next.starts_with(&below));
        if pruned && empty && *entry == Entry::Directory {
            let full = app.join(as_path(path));
            fs::remove_dir(&full).map_err(Error::io("remove", &full))?;
            entries.remove(place);
        }
    }
    Ok(())
}

/// Every link leads into the slug, its layers or a toolchain. An absolute one into the app, which
/// tools like to make, becomes relative.
fn check_links(
    app: &Path,
    plan: &Plan,
    layout: &Layout,
    entries: &mut [(Vec<u8>, Entry)],
) -> Result<(), Error> {
    use std::os::unix::ffi::OsStrExt as _;
    let layer_links: Vec<Vec<u8>> = plan
        .layers
        .iter()
        .flat_map(|layer| layer.links.iter().map(|(path, _)| path.clone().into_bytes()))
        .collect();
    for (path, entry) in entries.iter_mut() {
        let Entry::Symlink { target } = entry else { continue };
        let inside = as_path(target).strip_prefix(&layout.app).ok();
        if let Some(inside) = inside.map(|inside| inside.as_os_str().as_bytes().to_vec()) {
            let full = app.join(as_path(path));
            *target = links::relative(path, &inside);
            fs::remove_file(&full).map_err(Error::io("replace", &full))?;
            std::os::unix::fs::symlink(as_path(target), &full)
                .map_err(Error::io("replace", &full))?;
        }
    }
    let links: std::collections::BTreeMap<&[u8], &[u8]> = entries
        .iter()
        .filter(|(path, _)| !layer_links.contains(path))
        .filter_map(|(path, entry)| match entry {
            Entry::Symlink { target } => Some((path.as_slice(), target.as_slice())),
            Entry::Directory | Entry::File { .. } => None,
        })
        .collect();
    for (path, target) in &links {
        let known = as_path(target).is_absolute()
            && (plan.toolchains.iter().any(|t| t.at_run && as_path(target).starts_with(&t.target))
                || as_path(target).starts_with(&layout.layers));
        if !known && links::follow(path, target, &|at| links.get(at).copied()) == Leads::Outside {
            return Err(Error::Source(format!(
                "the build made the link `{}`, which leaves the slug: it points to `{}`",
                shown(path),
                shown(target)
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
