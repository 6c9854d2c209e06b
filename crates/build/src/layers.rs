//! Dependency layers: one folder per key under `<home>/slugs/layers`, shared by slugs.
//!
//! Beside `<key>/` stand `<key>.entries`, what is in it, and `<key>.json`, its record with the
//! content's digest. The record is written last, so a layer without one is the remnant of a build
//! that was ended, and the next build removes it. A slug names its layers by key and content, and
//! a layer that is not that content is none of the slug's.
//! With a root of its own a layer is built as `<key>.new` and renamed; without, its tools bake the
//! path in, so it is built at its place.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tolv_model::slug::{Digest, Entry, Layer};
use tolv_model::tree_path::TreePath;
use tolv_sandbox::Mount;

use crate::beneath::Beneath;
use crate::exec::Executor;
use crate::files::{self, Lock};
use crate::keep::digests;
use crate::plan::{LayerPlan, Plan};
use crate::proof::{Proofs, prove};
use crate::seal::{self, LAYER, seal_within};
use crate::source::as_path;
use crate::tree::Tree;
use crate::{Error, Event};

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    name: String,
    content: Digest,
    size: u64,
    files: u64,
}

/// The layers of one state folder.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    folder: PathBuf,
}

/// What a layer's steps run in.
pub(crate) struct Workshop<'a> {
    pub(crate) executor: &'a Executor<'a>,
    pub(crate) tree: &'a Tree,
    /// The source on the host.
    pub(crate) app: &'a Path,
    /// An empty folder on the host, shown in place of the source to the steps that do not see it.
    pub(crate) empty: &'a Path,
    /// Toolchains, caches, earlier layers.
    pub(crate) mounts: Vec<Mount>,
    /// What was proven.
    pub(crate) proofs: &'a Proofs,
}

impl Layers {
    /// The layers of `<home>/slugs`, rid of what killed builds left.
    pub(crate) fn open(slugs: &Path) -> Result<Self, Error> {
        let layers = Self::at(slugs);
        files::make_folder(&layers.folder)?;
        layers.sweep()?;
        Ok(layers)
    }

    /// The layers of `<home>/slugs`, to be looked at: nothing is made and nothing is removed.
    pub(crate) fn at(slugs: &Path) -> Self {
        Self { folder: slugs.join("layers") }
    }

    /// Removes folders without a record that nobody is filling.
    fn sweep(&self) -> Result<(), Error> {
        let list = fs::read_dir(&self.folder).map_err(Error::io("read", &self.folder))?;
        for entry in list.flatten() {
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            let Ok(key) = name.strip_suffix(".new").unwrap_or(name).parse() else { continue };
            let whole = || !name.ends_with(".new") && self.find(&key).is_some();
            if whole() {
                continue;
            }
            // Looked at again under the lock: it may have been finished meanwhile.
            let lock = Lock::try_take(&self.lock(&key))?;
            if lock.is_some() && !whole() {
                files::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn lock(&self, key: &Digest) -> PathBuf {
        self.folder.join(format!("{key}.lock"))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a layer is on the host.
    pub(crate) fn path(&self, key: &Digest) -> PathBuf {
        self.folder.join(key.to_string())
    }

    fn record(&self, key: &Digest) -> PathBuf {
        self.folder.join(format!("{key}.json"))
    }

    fn entries(&self, key: &Digest) -> PathBuf {
        self.folder.join(format!("{key}.entries"))
    }

    /// Proves that a layer is what its content's digest says.
    ///
    /// # Errors
    ///
    /// The inner error says what is wrong with it.
    pub(crate) fn proven(
        &self,
        layer: &Layer,
        proofs: &Proofs,
    ) -> Result<Result<(), String>, Error> {
        let entries = || {
            let none = || "has no list of files that is its own".to_owned();
            self.listed(layer).ok_or_else(none)
        };
        prove(&self.path(&layer.key), LAYER, layer.content, entries, proofs)
    }

    /// What is in a layer, as it was when it was made; the list proves itself.
    pub(crate) fn listed(&self, layer: &Layer) -> Option<Vec<(Vec<u8>, Entry)>> {
        let bytes = fs::read(self.entries(&layer.key)).ok()?;
        let entries: Vec<(Vec<u8>, Entry)> = serde_json::from_slice(&bytes).ok()?;
        let content = seal::content(entries.iter().map(|(path, entry)| (path, entry)));
        (content == layer.content).then_some(entries)
    }

    /// Writes what is in a layer, then its record.
    fn note(&self, name: &str, layer: &Layer, entries: &[(Vec<u8>, Entry)]) -> Result<(), Error> {
        let (files, size) = seal::count(entries);
        let record = Record { name: name.to_owned(), content: layer.content, size, files };
        let text = |bytes: serde_json::Result<Vec<u8>>, path: &Path| {
            bytes.map_err(std::io::Error::other).map_err(Error::io("write", path))
        };
        let path = self.entries(&layer.key);
        files::write_whole(&path, &text(serde_json::to_vec(entries), &path)?)?;
        let path = self.record(&layer.key);
        files::write_whole(&path, &text(serde_json::to_vec(&record), &path)?)
    }

    /// The layer of this key, if it is there and what it was when it was made.
    fn whole(&self, key: &Digest, proofs: &Proofs) -> Result<Option<Layer>, Error> {
        let Some(layer) = self.find(key) else { return Ok(None) };
        Ok(self.proven(&layer, proofs)?.is_ok().then_some(layer))
    }

    /// The layer of this key, if it is there.
    pub(crate) fn find(&self, key: &Digest) -> Option<Layer> {
        let record: Record = serde_json::from_slice(&fs::read(self.record(key)).ok()?).ok()?;
        self.path(key).is_dir().then_some(Layer { key: *key, content: record.content })
    }

    /// The layer, built where it is missing. Of two builds at once, one builds and one waits.
    pub(crate) fn get(
        &self,
        plan: &Plan,
        layer: &LayerPlan,
        shop: &Workshop<'_>,
        events: &mut dyn FnMut(Event),
    ) -> Result<Layer, Error> {
        if let Some(found) = self.whole(&layer.key, shop.proofs)? {
            events(Event::Heading(format!("{}: unchanged", layer.name)));
            return Ok(found);
        }
        let cancelled = || (shop.executor.cancelled)();
        let _lock = Lock::take(&self.lock(&layer.key), &cancelled, &mut || {
            events(Event::Heading(format!("{}: waiting for another build of them", layer.name)));
        })?;
        if let Some(found) = self.whole(&layer.key, shop.proofs)? {
            return Ok(found);
        }
        if self.find(&layer.key).is_some() {
            let text = format!("{}: changed on the disk, made again", layer.name);
            events(Event::Warning(text));
            files::remove(&self.record(&layer.key))?;
        }
        let place = self.path(&layer.key);
        let building = if shop.executor.level.has_own_root() {
            self.folder.join(format!("{}.new", layer.key))
        } else {
            place.clone()
        };
        files::remove(&place)?;
        files::remove(&building)?;
        let built = self.build(plan, layer, shop, &building, &place, events);
        if built.is_err() {
            // The first error is the one to tell; the remnant is removed by the next build too.
            files::remove(&building).ok();
        }
        built
    }

    /// Moves a layer that was made elsewhere to its place.
    pub(crate) fn put(
        &self,
        layer: &Layer,
        folder: &Path,
        entries: &[(Vec<u8>, Entry)],
        proofs: &Proofs,
    ) -> Result<(), Error> {
        let _held = Lock::take(&self.lock(&layer.key), &|| false, &mut || {})?;
        if self.proven(layer, proofs)?.is_ok() && self.find(&layer.key) == Some(*layer) {
            return Ok(());
        }
        files::remove(&self.record(&layer.key))?;
        let place = self.path(&layer.key);
        files::remove(&place)?;
        files::set_mode(folder, 0o755)?;
        tolv_durable::move_folder(folder, &place).map_err(Error::io("create", &place))?;
        seal::fix(&place, LAYER)?;
        self.note("from the blob store", layer, entries)
    }

    /// Every layer that has a folder or a record.
    pub(crate) fn all(&self) -> Result<BTreeSet<Digest>, Error> {
        let mut all = digests(&self.folder, "")?;
        all.extend(digests(&self.folder, ".json")?);
        Ok(all)
    }

    /// Removes a layer; its record first, for without it there is none.
    pub(crate) fn remove(&self, key: &Digest) -> Result<(), Error> {
        let _held = Lock::take(&self.lock(key), &|| false, &mut || {})?;
        files::remove(&self.record(key))?;
        files::remove(&self.entries(key))?;
        files::remove(&self.path(key))?;
        files::remove(&self.lock(key))
    }

    fn build(
        &self,
        plan: &Plan,
        layer: &LayerPlan,
        shop: &Workshop<'_>,
        building: &Path,
        place: &Path,
        events: &mut dyn FnMut(Event),
    ) -> Result<Layer, Error> {
        files::make_folder(building)?;
        let put = |path: &str, bytes: &[u8]| {
            let to = building.join(path);
            if let Some(folder) = to.parent() {
                files::make_folder(folder)?;
            }
            fs::write(&to, bytes).map_err(Error::io("write", &to))
        };
        for (from, to) in &layer.copies {
            let bytes = shop.tree.read(from)?.ok_or_else(|| Error::Plan {
                builder: plan.builder,
                problem: format!("`{from}` is not a regular file"),
                help: format!("make `{from}` a regular file"),
            })?;
            put(to, &bytes)?;
        }
        for (to, bytes) in &layer.files {
            put(to, bytes)?;
        }
        let mut mounts = shop.mounts.clone();
        let app = if layer.sees_app { shop.app } else { shop.empty };
        mounts.push(Mount::read_write(app, &shop.executor.layout.app));
        mounts.push(Mount::read_write(building, &layer.path));
        for step in &layer.steps {
            let grows = [(layer.name.as_str(), building)];
            shop.executor.run(plan, step, &mounts, &grows, events)?;
        }
        let wanted = |path: &[u8]| !layer.remove.iter().any(|gone| gone.as_bytes() == path);
        let cancelled = || (shop.executor.cancelled)();
        let (name, caps) = (layer.name.as_str(), &shop.executor.caps);
        let entries = seal_within(building, name, LAYER, &wanted, caps, &cancelled)?;
        let content = seal::content(entries.iter().map(|(path, entry)| (path, entry)));
        if building != place {
            tolv_durable::move_folder(building, place).map_err(Error::io("create", place))?;
        }
        let made = Layer { key: layer.key, content };
        self.note(&layer.name, &made, &entries)?;
        Ok(made)
    }
}

/// Puts a layer's links into the app, in place of what stands there.
pub(crate) fn link(app: &Path, layer: &LayerPlan) -> Result<(), Error> {
    // A step of a layer before may have put a link there that leads out of the app.
    let mut folder = Beneath::open(app).map_err(Error::io("open", app))?;
    for (path, inside) in &layer.links {
        let full = app.join(as_path(path.as_bytes()));
        if let Some((parent, _)) = path.rsplit_once('/') {
            let parent = TreePath::new(parent)
                .map_err(|bad| Error::Source(format!("the layer's link `{path}` {bad}")))?;
            folder.make(&parent).map_err(Error::io("create", &full))?;
        }
        files::remove(&full)?;
        let up = "../".repeat(1 + path.matches('/').count());
        let target = format!("{up}layers/{}/{inside}", layer.key);
        std::os::unix::fs::symlink(target.trim_end_matches('/'), &full)
            .map_err(Error::io("create", &full))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
