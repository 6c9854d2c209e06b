//! From a row of the ledger to what the engine runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tolv_build::Built;
use tolv_model::app_json::{CronJob, Variable};
use tolv_model::env::EnvName;
use tolv_model::formation::Formation;
use tolv_model::health::HealthCheck;
use tolv_model::id::AppId;
use tolv_model::ledger::Broken;
use tolv_model::name::ProcessType;
use tolv_model::release::ReleaseNumber;
use tolv_model::size::Sizes;
use tolv_model::slug::SlugId;
use tolv_run::Target;
use tolv_sandbox::Mount;
use tolv_store::{Deploy, Release};

use super::controller::Controller;
use super::error::Error;
use super::platform::{Platform, blocking};
use super::runs::Held;
use crate::routes::Web;

/// What a build said that the run stage needs: recorded with the slug, so that a start needs no
/// build.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Runtime {
    /// What processes see beside the stack.
    pub(super) mounts: Vec<Mount>,
    /// Environment that the slug gives.
    pub(super) slug_env: BTreeMap<String, String>,
    /// Folders in front of `PATH`.
    pub(super) slug_path: Vec<String>,
    pub(super) process_types: BTreeMap<ProcessType, String>,
    pub(super) checks: BTreeMap<ProcessType, Vec<HealthCheck>>,
    /// app.json's first quantities.
    pub(super) formation: Formation,
    /// app.json's sizes.
    #[serde(default)]
    pub(super) sizes: Sizes,
    /// Config that app.json declares.
    pub(super) env: BTreeMap<EnvName, Variable>,
    /// app.json's schedules.
    #[serde(default)]
    pub(super) cron: Vec<CronJob>,
}

impl Runtime {
    pub(super) fn of(built: &Built) -> Self {
        Self {
            mounts: built.mounts.clone(),
            slug_env: built.manifest.env.clone(),
            slug_path: built.manifest.path.clone(),
            process_types: built.manifest.process_types.clone(),
            checks: built.app_json.checks(),
            formation: built.app_json.formation(),
            sizes: built.app_json.sizes(),
            env: built.app_json.env.clone(),
            cron: built.app_json.cron.clone(),
        }
    }
}

/// How many of each type run: one each, app.json's word over that, the operator's over both;
/// none where the deploy is stopped.
pub(super) fn formation(
    types: &BTreeMap<ProcessType, String>,
    declared: &Formation,
    asked: &Formation,
    stopped: bool,
) -> Formation {
    let mut formation = Formation::first(types.keys()).with(declared).with(asked);
    formation.0.retain(|kind, _| types.contains_key(kind) && !kind.is_release());
    if stopped {
        formation.0.values_mut().for_each(|quantity| *quantity = 0);
    }
    formation
}

/// Refuses a row that is not what was recorded.
fn prove(deploy: &Deploy, release: &Release) -> Result<(), Error> {
    let number = release.row.number;
    match release.row.hash() == release.hash {
        true => Ok(()),
        false => {
            Err(Error::Ledger { deploy: deploy.name.clone(), source: Broken::Changed(number) })
        }
    }
}

impl Platform {
    /// A release to make another one of: its row is what was recorded.
    pub(super) async fn proven(
        &self,
        deploy: &Deploy,
        number: ReleaseNumber,
    ) -> Result<Release, Error> {
        let release = self.0.store.release(&deploy.id, number).await?;
        prove(deploy, &release)?;
        Ok(release)
    }

    /// What a release runs, after the row and the slug have proved that they are what was
    /// released. `asked` is the operator's formation, the recorded one without it.
    pub(super) async fn target(
        &self,
        deploy: &Deploy,
        release: &Release,
        asked: Option<&Formation>,
    ) -> Result<Target, Error> {
        self.prove(&deploy.app, release.row.slug).await?;
        self.trusted_target(deploy, release, asked).await
    }

    /// What a one-off of a release runs, and what keeps its slug meanwhile. The slug of the
    /// current release is proved once, and not again for each of its one-offs.
    pub(super) async fn one_off_target(
        &self,
        controller: &Controller,
        deploy: &Deploy,
        release: &Release,
    ) -> Result<(Target, Held), Error> {
        let (number, slug) = (release.row.number, release.row.slug);
        let held = self.0.runs.hold(slug);
        let is_current = deploy.current == Some(number);
        if !(is_current && controller.proved() == Some(slug)) {
            match self.prove(&deploy.app, slug).await {
                Ok(()) if is_current => controller.set_proved(slug),
                Ok(()) => {}
                Err(_) if self.0.store.slug(&deploy.app, &slug).await.is_err() => {
                    return Err(self.slug_gone(release.clone()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((self.trusted_target(deploy, release, None).await?, held))
    }

    /// The slug of a release was collected.
    pub(super) fn slug_gone(&self, release: Release) -> Error {
        // What `up` builds is of the folder, whatever was committed.
        let commit = release.row.commit.filter(|_| self.codebase().is_none());
        Error::SlugGone { number: release.row.number, commit }
    }

    /// As [`Platform::target`], of a slug that was proved before.
    async fn trusted_target(
        &self,
        deploy: &Deploy,
        release: &Release,
        asked: Option<&Formation>,
    ) -> Result<Target, Error> {
        let row = &release.row;
        prove(deploy, release)?;
        let store = &self.0.store;
        if store.config_digest(&deploy.id, row.config_version).await? != row.config_digest {
            return Err(Error::Ledger {
                deploy: deploy.name.clone(),
                source: Broken::Changed(row.number),
            });
        }
        let runtime = self.runtime(&deploy.app, &row.slug).await?;
        let config = store.config(&deploy.id, row.config_version).await?;
        let asked = asked.unwrap_or(&deploy.formation);
        let formation = formation(&row.process_types, &runtime.formation, asked, deploy.stopped);
        Ok(Target {
            release: Arc::new(tolv_model::release::Release {
                deploy: deploy.name.clone(),
                number: row.number,
                slug: row.slug,
                commit: row.commit.clone(),
                config: config.vars,
                process_types: row.process_types.clone(),
                formation,
            }),
            mounts: runtime.mounts,
            slug_env: runtime.slug_env,
            slug_path: runtime.slug_path,
            checks: runtime.checks,
            limits: self.0.shares.limits(&row.sizes),
        })
    }

    /// Makes sure that a slug is on this machine, whole: every byte is looked at. One that is gone
    /// is brought back where the operator attached a blob store.
    pub(super) async fn prove(&self, app: &AppId, slug: SlugId) -> Result<(), Error> {
        let home = self.folder_of(app);
        let Err(missing) = blocking(move || tolv_build::verify(&home, slug)).await else {
            return Ok(());
        };
        self.bring_back(app, slug, missing).await?;
        let home = self.folder_of(app);
        blocking(move || tolv_build::verify(&home, slug)).await.map(drop)
    }
}

impl Controller {
    /// Tells the router whether web processes are to be expected.
    pub(super) fn route(&self, target: &Target) {
        let web = target.release.formation.0.get(&ProcessType::web()).is_some_and(|&n| n > 0);
        self.routes.set_web(if web { Web::Wanted } else { Web::None });
    }
}

#[cfg(test)]
mod tests;
