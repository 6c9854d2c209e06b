//! What is kept and what is not: slugs, layers, logs of operations, git objects, and the disk.
//!
//! Kept are the slugs of each deploy's last releases, of what runs, and of what is under way, with
//! their layers and commits. The rest goes, after a deploy and not more often than now and then.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tolv_build::{
    STACKS, Stacks, Usage, collect, has_layer, layers_of, pack_layer, pack_slug, toolchains_usage,
    unpack_layer, unpack_slug, usage,
};
use tolv_model::id::{AppId, DeployId};
use tolv_model::name::AppName;
use tolv_model::shortage::Shortage;
use tolv_model::slug::{Layer, SlugId};

use super::disk::{Room, is_read_only};
use super::error::{Error, chain};
use super::platform::{KEYS, Platform, blocking, output_key};

/// Operations of a deploy that are remembered, as its runs are.
const OPERATIONS: u32 = 200;
/// What a build has just made and nobody has recorded yet is younger than this.
const YOUNG: Duration = Duration::from_secs(3600);

/// In the state folder: where files of an attached blob store are on their way.
const ASIDE: &str = "blobs";

impl Platform {
    /// Refuses work that would fill the disk.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`].
    pub async fn check_disk_space(&self) -> Result<(), Error> {
        let home = self.0.home.clone();
        let min = self.0.options.min_free;
        if is_read_only(&home) {
            return Err(Error::DiskFault(Shortage::WritableDisk));
        }
        let room = Room::of(&home)?;
        room.require_file()?;
        let free = room.free;
        if free >= min {
            return Ok(());
        }
        let apps = self.apps().await?;
        let toolchains = self.0.options.host.toolchains(&home);
        blocking(move || {
            let mut all = Usage::default();
            // One that cannot be read is left out.
            for usage in apps.iter().filter_map(|app| usage(app).ok()) {
                all.slugs += usage.slugs;
                all.layers += usage.layers;
                all.caches += usage.caches;
            }
            let advice = format!(
                "slugs have {} MiB, layers {} MiB, build caches {} MiB, toolchains {} MiB: destroy \
                 what is not needed, or keep fewer releases (TOLV_KEEP_RELEASES)",
                all.slugs >> 20,
                all.layers >> 20,
                all.caches >> 20,
                toolchains_usage(&toolchains) >> 20
            );
            Err(Error::DiskFull { free: free >> 20, min: min >> 20, advice })
        })
        .await
    }

    /// Collects beside everything else, after an operation of a deploy; a second call while one runs
    /// collects nothing.
    pub(super) fn collect_soon(&self, deploy: &DeployId) {
        let (platform, deploy) = (self.clone(), deploy.clone());
        self.0.tasks.spawn(async move {
            let keep = platform.0.options.keep_releases;
            let forgotten = platform.forget_operations(&deploy, OPERATIONS, keep).await;
            let collected = match platform.0.collecting.try_lock() {
                Ok(_one) => platform.collect().await,
                // Whoever is at it collects this too.
                Err(_) => Ok(()),
            };
            if let Err(error) = forgotten.and(collected) {
                platform.say(format!("Garbage is not collected: {}", chain(&error))).await;
            }
        });
    }

    /// Forgets old operations of a deploy beside everything else.
    pub(super) fn forget_soon(&self, deploy: &DeployId) {
        let (platform, deploy) = (self.clone(), deploy.clone());
        self.0.tasks.spawn(async move {
            let keep = platform.0.options.keep_releases;
            // What stays now goes the next time.
            platform.forget_operations(&deploy, OPERATIONS, keep).await.ok();
        });
    }

    /// Forgets old operations of a deploy, with what they said.
    pub(super) async fn forget_operations(
        &self,
        deploy: &DeployId,
        last: u32,
        releases: u32,
    ) -> Result<(), Error> {
        for id in self.0.store.forget_operations(deploy, last, releases).await? {
            self.0.blobs.delete(&output_key(&id)).await?;
        }
        Ok(())
    }

    async fn collect(&self) -> Result<(), Error> {
        let inner = &self.0;
        inner.store.forget_idempotent(Timestamp::now() - KEYS, false).await?;
        let mut kept = inner.store.kept(inner.options.keep_releases).await?;
        kept.extend(inner.runs.slugs());
        let gone: Vec<_> =
            inner.store.slugs().await?.into_iter().filter(|s| !kept.contains(&s.id)).collect();
        let (apps, keep) = (self.apps().await?, kept.clone());
        blocking(move || apps.iter().try_for_each(|app| collect(app, &keep, YOUNG).map(drop)))
            .await?;
        for slug in &gone {
            if inner.options.blobs.is_some() {
                inner.blobs.delete(&slug_key(&slug.app, slug.id)).await?;
            }
            inner.store.remove_slug(&slug.app, &slug.id).await?;
        }
        self.collect_stacks().await?;
        if inner.options.blobs.is_some() {
            let folder = inner.home.join(ASIDE);
            let failed = |source| Error::System { what: "remove old files", source };
            blocking(move || remove_old_files(&folder, YOUNG).map_err(failed)).await?;
        }
        if inner.options.blobs.is_some() && !gone.is_empty() {
            self.collect_layers().await?;
        }
        if gone.is_empty() || self.codebase().is_some() {
            return Ok(());
        }
        let lost: BTreeSet<_> = gone.into_iter().map(|slug| slug.app).collect();
        let deploys = inner.store.all_deploys().await?;
        let apps = deploys.into_iter().filter(|deploy| lost.contains(&deploy.app));
        for app in apps.map(|deploy| deploy.name.app).collect::<BTreeSet<_>>() {
            self.tidy(&app).await?;
        }
        Ok(())
    }

    /// Removes what refused pushes have brought, as soon as no other push to the repository is under
    /// way; to the platform's end.
    pub(super) async fn tidy_up(self) {
        loop {
            let app = tokio::select! {
                app = self.0.repos.untidy() => app,
                () = self.0.ending.cancelled() => return,
            };
            if let Err(error) = self.tidy(&app).await {
                self.say(format!("The repository of {app} is not tidied: {}", chain(&error))).await;
            }
        }
    }

    /// Says which repositories were gone; to the platform's end.
    pub(super) async fn tell_of_lost_repositories(self) {
        while let Some(app) = self.0.ending.run_until_cancelled(self.0.repos.next_lost()).await {
            self.say(format!(
                "The repository of {app} is gone from the state folder; an empty one is made. What was \
                 released runs; the next push brings the commits"
            ))
            .await;
        }
    }

    /// Keeps of an app's repository what releases and operations need.
    async fn tidy(&self, app: &AppName) -> Result<(), Error> {
        let store = &self.0.store;
        let id = match store.app(app).await {
            Err(tolv_store::Error::NotFound { .. }) => return Ok(()),
            app => app?.id,
        };
        let mut keep = BTreeSet::new();
        for slug in store.slugs().await? {
            keep.extend(slug.commit.filter(|_| slug.app == id));
        }
        keep.extend(store.commits_under_way(&id).await?);
        let (repos, app) = (self.0.repos.clone(), app.clone());
        blocking(move || repos.keep(&app, &keep)).await
    }

    /// The folders of apps that were built.
    async fn apps(&self) -> Result<Vec<PathBuf>, Error> {
        let apps: BTreeSet<_> =
            self.0.store.all_deploys().await?.into_iter().map(|deploy| deploy.app).collect();
        Ok(apps.iter().map(|app| self.folder_of(app)).filter(|app| app.is_dir()).collect())
    }

    /// Removes the versions of stacks that no slug has, where their folder is this platform's alone.
    async fn collect_stacks(&self) -> Result<(), Error> {
        let folder = self.0.home.join(STACKS);
        if self.0.options.host.stacks.is_some() || !folder.is_dir() {
            return Ok(());
        }
        let slugs = self.0.store.slugs().await?.into_iter();
        let slugs: Vec<_> = slugs.map(|slug| (self.folder_of(&slug.app), slug.id)).collect();
        let proofs = self.0.prover.proofs().clone();
        blocking(move || {
            let manifests =
                slugs.iter().map(|(home, slug)| tolv_build::manifest(home, *slug, &proofs));
            let keep = manifests.filter_map(|manifest| manifest.ok()?.stack).collect();
            Stacks::at(&folder).collect(&keep, YOUNG).map(drop)
        })
        .await
    }

    /// Removes the copies of layers that no slug has.
    async fn collect_layers(&self) -> Result<(), Error> {
        let mut used = BTreeSet::new();
        for slug in self.0.store.slugs().await? {
            let home = self.folder_of(&slug.app);
            let layers = blocking(move || layers_of(&home, slug.id)).await?;
            used.extend(layers.iter().map(|layer| layer_key(&slug.app, layer)));
        }
        for key in self.0.blobs.list("layers").await? {
            if !used.contains(&key) {
                self.0.blobs.delete(&key).await?;
            }
        }
        Ok(())
    }

    /// Copies a slug and its layers to the blob store, where the operator attached one.
    pub(super) async fn copy_slug(&self, app: &AppId, slug: SlugId) -> Result<(), Error> {
        let inner = &self.0;
        if inner.options.blobs.is_none() {
            return Ok(());
        }
        let home = self.folder_of(app);
        for layer in blocking(move || layers_of(&home, slug)).await? {
            let proofs = inner.prover.proofs().clone();
            let pack = move |home: &Path, file: &Path| pack_layer(home, &layer, file, &proofs);
            self.copy(app, &layer_key(app, &layer), pack).await?;
        }
        let proofs = inner.prover.proofs().clone();
        let pack = move |home: &Path, file: &Path| pack_slug(home, slug, file, &proofs);
        self.copy(app, &slug_key(app, slug), pack).await
    }

    async fn copy(
        &self,
        app: &AppId,
        key: &str,
        pack: impl FnOnce(&Path, &Path) -> Result<(), tolv_build::Error> + Send + 'static,
    ) -> Result<(), Error> {
        if self.0.blobs.has(key).await? {
            return Ok(());
        }
        let (home, file) = (self.folder_of(app), self.aside(key)?);
        let path = file.clone();
        blocking(move || pack(&home, &path)).await?;
        let put = self.0.blobs.put_file(key, &file).await;
        // Left behind, it is written over the next time.
        fs::remove_file(&file).ok();
        Ok(put?)
    }

    /// Brings a slug and its layers back from the blob store; `missing` is why they are wanted.
    pub(super) async fn bring_back(
        &self,
        app: &AppId,
        slug: SlugId,
        missing: Error,
    ) -> Result<(), Error> {
        if self.0.options.blobs.is_none() {
            return Err(missing);
        }
        let proofs = self.0.prover.proofs().clone();
        let unpack = move |home: &Path, file: &Path| unpack_slug(home, slug, file, &proofs);
        if !self.bring(app, &slug_key(app, slug), unpack).await? {
            return Err(missing);
        }
        let home = self.folder_of(app);
        for layer in blocking(move || layers_of(&home, slug)).await? {
            let (home, proofs) = (self.folder_of(app), self.0.prover.proofs().clone());
            if !blocking(move || has_layer(&home, &layer, &proofs)).await? {
                let proofs = self.0.prover.proofs().clone();
                let unpack =
                    move |home: &Path, file: &Path| unpack_layer(home, &layer, file, &proofs);
                self.bring(app, &layer_key(app, &layer), unpack).await?;
            }
        }
        Ok(())
    }

    async fn bring(
        &self,
        app: &AppId,
        key: &str,
        unpack: impl FnOnce(&Path, &Path) -> Result<(), tolv_build::Error> + Send + 'static,
    ) -> Result<bool, Error> {
        let file = self.aside(key)?;
        if !self.0.blobs.get_file(key, &file).await? {
            return Ok(false);
        }
        let (home, path) = (self.folder_of(app), file.clone());
        let done = blocking(move || unpack(&home, &path)).await;
        fs::remove_file(&file).ok();
        done.map(|()| true)
    }

    /// A file for a blob on its way.
    fn aside(&self, key: &str) -> Result<PathBuf, Error> {
        let folder = self.0.home.join(ASIDE);
        let made = fs::create_dir_all(&folder);
        made.map_err(|source| Error::System { what: "make the folder of blobs", source })?;
        Ok(folder.join(key.replace('/', "-")))
    }
}

/// Removes files that killed platforms left: nobody has written to them for so long. What is in
/// folders, as of a store that is a folder, stays.
fn remove_old_files(folder: &Path, age: Duration) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let of = match entry.metadata() {
            Ok(of) => of,
            // It has arrived meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // One from the future is young.
        if of.is_file() && of.modified()?.elapsed().is_ok_and(|now| now > age) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn slug_key(app: &AppId, slug: SlugId) -> String {
    format!("slugs/{app}/{}.tar.zst", slug.0)
}

fn layer_key(app: &AppId, layer: &Layer) -> String {
    // By content: a layer that was made again may differ, and both are somebody's.
    format!("layers/{app}/{}.tar.zst", layer.content)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn files_that_were_on_their_way_long_ago_are_removed() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir(at("slugs")).unwrap();
        let files = [("layers-old", 2), ("layers-new", 0), ("slugs/old", 2)];
        for (name, hours) in files {
            let file = fs::File::create(at(name)).unwrap();
            file.set_modified(SystemTime::now() - YOUNG * hours).unwrap();
        }
        remove_old_files(home.path(), YOUNG).unwrap();
        remove_old_files(&at("nowhere"), YOUNG).unwrap();
        let there = files.map(|(name, _)| at(name).exists());
        assert_eq!(there, [false, true, true]);
    }
}
