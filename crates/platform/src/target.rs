//! From a row of the ledger to what the engine runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tolv_model::app_json::{CronJob, Variable};
use tolv_model::env::EnvName;
use tolv_model::formation::{First, Formation};
use tolv_model::health::HealthCheck;
use tolv_model::ledger::Broken;
use tolv_model::name::ProcessType;
use tolv_model::release::ReleaseNumber;
use tolv_model::size::Sizes;
use tolv_model::slug::{Declared, Manifest};
use tolv_run::Target;
use tolv_sandbox::Mount;
use tolv_store::{Deploy, Ledger, Release, Store};

use super::controller::Controller;
use super::error::Error;
use super::platform::Platform;
use super::runs::Held;
use crate::routes::Web;

/// What the run stage needs to know of a slug. All of it is under the slug's id.
#[derive(Clone, Debug)]
pub(super) struct Runtime {
    /// Folders of its stack on this machine, lowest first.
    pub(super) stack: Vec<PathBuf>,
    /// What processes see beside the stack, on this machine.
    pub(super) mounts: Vec<Mount>,
    /// Environment that the slug gives.
    pub(super) slug_env: BTreeMap<String, String>,
    /// Folders in front of `PATH`.
    pub(super) slug_path: Vec<String>,
    /// Scripts that are sourced before each process.
    pub(super) profile: Vec<String>,
    pub(super) process_types: BTreeMap<ProcessType, String>,
    pub(super) checks: BTreeMap<ProcessType, Vec<HealthCheck>>,
    /// app.json's first quantities.
    pub(super) formation: Formation,
    /// app.json's sizes.
    pub(super) sizes: Sizes,
    /// Config that app.json declares.
    pub(super) env: BTreeMap<EnvName, Variable>,
    /// What its build got of the config: name → digest.
    pub(super) build_config: BTreeMap<EnvName, String>,
    /// app.json's schedules.
    pub(super) cron: Vec<CronJob>,
}

impl Runtime {
    pub(super) fn of(manifest: Manifest, stack: Vec<PathBuf>, mounts: Vec<Mount>) -> Self {
        let Declared { checks, formation, sizes, env, cron } = manifest.declared;
        Self {
            stack,
            mounts,
            slug_env: manifest.env,
            slug_path: manifest.path,
            profile: manifest.profile,
            build_config: manifest.build_config,
            process_types: manifest.process_types,
            checks,
            formation,
            sizes,
            env,
            cron,
        }
    }
}

/// How many of each type run: what is first, app.json's word over that, the operator's over both;
/// none where the deploy is stopped.
pub(super) fn formation(
    types: &BTreeMap<ProcessType, String>,
    first: First,
    declared: &Formation,
    asked: &Formation,
    stopped: bool,
) -> Formation {
    let mut formation = Formation::first(types.keys(), first).with(declared).with(asked);
    formation.0.retain(|kind, _| types.contains_key(kind) && !kind.is_release());
    if stopped {
        formation.0.values_mut().for_each(|quantity| *quantity = 0);
    }
    formation
}

/// Refuses a row that is not what was recorded.
fn prove(store: &Store, deploy: &Deploy, release: &Release) -> Result<(), Error> {
    let number = release.row.number;
    match store.is_genuine(release) {
        true => Ok(()),
        false => {
            Err(Error::Ledger { deploy: deploy.name.clone(), source: Broken::Changed(number) })
        }
    }
}

/// Whether a row that does not hold was accepted as it is stored now.
fn is_accepted(ledger: &Ledger, number: ReleaseNumber) -> bool {
    ledger.accepted.iter().any(|broken| broken.release() == number)
}

impl Platform {
    /// What runs of types for which nobody has given a quantity.
    pub(super) fn first(&self) -> First {
        if self.codebase().is_some() { First::Each } else { First::Web }
    }

    /// A release to make another one of: its row is what was recorded, or what an operator accepted.
    pub(super) async fn proven(
        &self,
        deploy: &Deploy,
        number: ReleaseNumber,
    ) -> Result<Release, Error> {
        let release = self.0.store.release(&deploy.id, number).await?;
        if !self.0.store.is_genuine(&release) {
            let ledger = self.prove_ledger(deploy, number).await?;
            if !is_accepted(&ledger, number) {
                prove(&self.0.store, deploy, &release)?;
            }
        }
        Ok(release)
    }

    /// What a release runs, after the ledger and the slug have proved that they are what was
    /// released. `asked` is the operator's formation, the recorded one without it.
    pub(super) async fn target(
        &self,
        deploy: &Deploy,
        release: &Release,
        asked: Option<&Formation>,
    ) -> Result<Target, Error> {
        let number = release.row.number;
        let ledger = self.prove_ledger(deploy, number).await?;
        self.prove(&deploy.app, release.row.slug).await?;
        self.proven_target(deploy, release, asked, &ledger).await
    }

    /// What a one-off of a release runs, and what keeps its slug meanwhile.
    pub(super) async fn one_off_target(
        &self,
        deploy: &Deploy,
        release: &Release,
    ) -> Result<(Target, Held), Error> {
        let slug = release.row.slug;
        let held = self.0.runs.hold(slug);
        match self.target(deploy, release, None).await {
            Err(Error::Build(_)) if self.0.store.slug(&deploy.app, &slug).await.is_err() => {
                Err(self.slug_gone(release.clone()))
            }
            target => Ok((target?, held)),
        }
    }

    /// The slug of a release was collected.
    pub(super) fn slug_gone(&self, release: Release) -> Error {
        // What `up` builds is of the folder, whatever was committed.
        let commit = release.row.commit.filter(|_| self.codebase().is_none());
        Error::SlugGone { number: release.row.number, commit }
    }

    async fn proven_target(
        &self,
        deploy: &Deploy,
        release: &Release,
        asked: Option<&Formation>,
        ledger: &Ledger,
    ) -> Result<Target, Error> {
        let row = &release.row;
        let store = &self.0.store;
        let digest = store.config_digest(&deploy.id, row.config_version).await?;
        if !is_accepted(ledger, row.number) {
            prove(store, deploy, release)?;
        }
        if digest != row.config_digest && !ledger.has_accepted_config(row.number, digest) {
            return Err(Error::Ledger {
                deploy: deploy.name.clone(),
                source: Broken::Config(row.number),
            });
        }
        let runtime = self.runtime(&deploy.app, &row.slug).await?;
        let config = store.config(&deploy.id, row.config_version).await?;
        let asked = asked.unwrap_or(&deploy.formation);
        let (types, declared) = (&row.process_types, &runtime.formation);
        let formation = formation(types, self.first(), declared, asked, deploy.stopped);
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
            stack: runtime.stack,
            mounts: runtime.mounts,
            slug_env: runtime.slug_env,
            slug_path: runtime.slug_path,
            profile: runtime.profile,
            checks: runtime.checks,
            limits: self.0.shares.limits(&row.sizes),
        })
    }
}

impl Controller {
    /// Tells the router whether web processes are to be expected, now that it is known what runs.
    pub(super) fn route(&self, target: &Target) {
        let web = target.release.formation.0.get(&ProcessType::web()).is_some_and(|&n| n > 0);
        self.routes.set_web(if web { Web::Wanted } else { Web::None });
        self.set_not_started(None);
    }
}

#[cfg(test)]
mod tests;
