//! What is kept of a deploy outside the database, and how it goes.

use std::fs;

use tolv_logs::Line;
use tolv_model::size::Sizes;
use tolv_run::Target;
use tolv_store::Deploy;

use super::{Controller, Error};
use crate::error::chain;
use crate::kept::Kept;
use crate::metrics::samples;
use crate::platform::{Platform, blocking, lock};
use crate::routes::Web;

impl Controller {
    /// Keeps what runs from here on, for a start without the database. What cannot be written is
    /// tried again.
    pub(in super::super) fn keep(&self, platform: &Platform, target: &Target, sizes: &Sizes) {
        self.samples.send_replace(samples::asks(&target.release.config));
        if let Err(error) = self.put_kept(platform, target, sizes) {
            let text = format!("{}; it is tried again", chain(&error));
            self.engine.say(&[Line::tolv("platform", text)]);
            *lock(&self.unkept) = Some((target.clone(), sizes.clone()));
        }
    }

    fn put_kept(&self, platform: &Platform, target: &Target, sizes: &Sizes) -> Result<(), Error> {
        let inner = &platform.0;
        Kept::put(&inner.home, &inner.store, self.place.clone(), target, sizes)?;
        *lock(&self.unkept) = None;
        Ok(())
    }

    /// Removes what is kept of what runs.
    pub(in super::super) fn forget_kept(&self, platform: &Platform) -> Result<(), Error> {
        *lock(&self.unkept) = None;
        Kept::remove(&platform.0.home, &self.place.id)
    }

    /// Whether what runs could not be kept.
    pub(super) fn has_unkept(&self) -> bool {
        lock(&self.unkept).is_some()
    }

    pub(super) fn keep_again(&self, platform: &Platform) {
        let unkept = lock(&self.unkept).clone();
        if let Some((target, sizes)) = unkept
            && self.put_kept(platform, &target, &sizes).is_ok()
        {
            let text = "What the deploy runs is kept again".to_owned();
            self.engine.say(&[Line::tolv("platform", text)]);
        }
    }

    /// Removes what the deploy has on this machine.
    pub(in super::super) async fn remove(
        &self,
        platform: &Platform,
        deploy: &Deploy,
    ) -> Result<(), Error> {
        self.engine.stop().await;
        self.drains.stop().await;
        self.cron.going.ended().await;
        platform.remove_runs(&deploy.id).await?;
        self.routes.set_web(Web::Gone);
        self.forget_kept(platform)?;
        let (logs, doors) = (platform.log_folder(&deploy.id), platform.doors_of(&deploy.id));
        let aside = platform.doors_aside_of(&deploy.id);
        blocking(move || {
            let failed = |what| move |source| Error::System { what, source };
            for doors in aside.iter().chain([&doors]) {
                let killed = tolv_run::kill_left(doors);
                killed.map_err(failed("remove a destroyed deploy's processes"))?;
            }
            match fs::remove_dir_all(&logs) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    Err(failed("remove a destroyed deploy's logs")(source))
                }
                _ => Ok(()),
            }
        })
        .await
    }
}
