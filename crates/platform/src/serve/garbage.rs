//! What is kept and what is not: slugs, layers, logs of operations, git objects, and the disk.
//!
//! Kept are the slugs of each deploy's last releases, of what runs, and of what is under way, with
//! their layers and commits. The rest goes, after a deploy and not more often than now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustix::fs::statvfs;
use tolv_build::{collect, usage};

use super::error::{ServeError, chain};
use super::platform::{Platform, blocking};

/// What a build has just made and nobody has recorded yet is younger than this.
const YOUNG: Duration = Duration::from_secs(3600);

impl Platform {
    /// Refuses work that would fill the disk.
    pub(super) async fn room(&self) -> Result<(), ServeError> {
        let home = self.0.home.clone();
        let min = self.0.options.min_free;
        blocking(move || {
            let stat = statvfs(&home).map_err(|errno| ServeError::System {
                what: "ask how full the disk is",
                source: errno.into(),
            })?;
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            if free >= min {
                return Ok(());
            }
            let advice = match usage(&home) {
                Ok(usage) => format!(
                    "slugs have {} MiB, layers {} MiB, build caches {} MiB: destroy what is not \
                     needed, or keep fewer releases (TOLV_KEEP_RELEASES)",
                    usage.slugs >> 20,
                    usage.layers >> 20,
                    usage.caches >> 20
                ),
                Err(_) => "destroy what is not needed, or give the platform more disk".to_owned(),
            };
            Err(ServeError::DiskFull { free: free >> 20, min: min >> 20, advice })
        })
        .await
    }

    /// Collects beside everything else; a second call while one runs does nothing.
    pub(super) fn collect_soon(&self) {
        let platform = self.clone();
        self.0.tasks.spawn(async move {
            let Ok(_one) = platform.0.collecting.try_lock() else { return };
            if let Err(error) = platform.collect().await {
                platform.say(format!("Garbage is not collected: {}", chain(&error))).await;
            }
        });
    }

    async fn collect(&self) -> Result<(), ServeError> {
        let inner = &self.0;
        let kept = inner.store.kept(inner.options.keep_releases).await?;
        let gone: Vec<_> =
            inner.store.slugs().await?.into_iter().filter(|s| !kept.contains(&s.id)).collect();
        let (home, keep) = (inner.home.clone(), kept.clone());
        blocking(move || collect(&home, &keep, YOUNG)).await?;
        for slug in &gone {
            inner.store.remove_slug(&slug.id).await?;
        }
        if gone.is_empty() {
            return Ok(());
        }
        let mut commits = BTreeMap::<_, BTreeSet<String>>::new();
        for slug in inner.store.slugs().await? {
            commits.entry(slug.app).or_default().extend(slug.commit);
        }
        for deploy in inner.store.all_deploys().await? {
            let keep = commits.remove(&deploy.app).unwrap_or_default();
            let (repos, app) = (inner.repos.clone(), deploy.name.app.clone());
            blocking(move || repos.keep(&app, &keep)).await?;
        }
        Ok(())
    }
}
