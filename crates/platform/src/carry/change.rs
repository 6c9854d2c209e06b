//! What makes no slug: config, quantities, restarts, the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use tolv_model::env::Env;
use tolv_model::formation::Formation;
use tolv_model::ledger::{Broken, GENESIS, Reason};
use tolv_model::name::{Deploy as DeployPath, ProcessName, ProcessType};
use tolv_model::operation::{Selection, State};
use tolv_model::release::{Release, ReleaseNumber};
use tolv_model::size::Sizes;
use tolv_model::slug::SlugId;
use tolv_run::{Outcome, Target, TypeLimits};

use super::{Carry, Next, Wanted, listed};
use crate::controller::{After, is_passing};
use crate::error::{Error, chain};
use crate::platform::blocking;
use crate::requests::known_types;
use crate::target::formation;

impl Carry<'_> {
    pub(super) async fn config(
        &self,
        version: u32,
        set: &[String],
        unset: &[String],
    ) -> Result<Option<After>, Error> {
        let Some(current) = self.deploy.current else { return Ok(None) };
        let reason = Reason::Config { set: set.to_vec(), unset: unset.to_vec() };
        self.tell(format!("{reason} config vars"));
        let row = self.platform.proven(&self.deploy, current).await?.row;
        let next = Next {
            slug: row.slug,
            commit: row.commit,
            config_version: version,
            reason,
            branch: None,
            sizes: row.sizes,
            wanted: Wanted::default(),
        };
        self.release(next).await
    }

    pub(super) async fn scale(
        &self,
        formation: &Formation,
        sizes: &Sizes,
    ) -> Result<Option<After>, Error> {
        let store = &self.platform.0.store;
        let wanted = self.deploy.formation.clone().with(formation);
        if let Some(next) = self.resized(sizes, &[]).await? {
            // Before there is a release of it: what is refused changes nothing.
            self.check_quota(&next, &wanted).await?;
            let wanted = Wanted { formation: Some(wanted), ..next.wanted };
            self.tell(format!("Scaled to {formation}"));
            return self.release(Next { wanted, ..next }).await;
        }
        if let Some(current) = self.deploy.current {
            let release = store.release(&self.deploy.id, current).await?;
            known_types(&release.row.process_types, formation, &self.deploy.name)?;
            let target = self.platform.target(&self.deploy, &release, Some(&wanted)).await?;
            self.platform.0.quota.check_target(&self.deploy.id, &target)?;
            self.converge(target, &release.row.sizes).await?;
        }
        store.set_formation(&self.deploy.id, &wanted).await?;
        self.tell(format!("Scaled to {formation}"));
        self.until_ended(|kind| formation.0.get(kind) == Some(&0)).await?;
        Ok(None)
    }

    pub(super) async fn limits(
        &self,
        sizes: &Sizes,
        reset: &[ProcessType],
    ) -> Result<Option<After>, Error> {
        match self.resized(sizes, reset).await? {
            Some(next) => {
                self.check_quota(&next, &self.deploy.formation).await?;
                self.release(next).await
            }
            None => Ok(None),
        }
    }

    /// Refuses sizes with which the formation would take more than a deploy may.
    async fn check_quota(&self, next: &Next, asked: &Formation) -> Result<(), Error> {
        let inner = &self.platform.0;
        let runtime = self.platform.runtime(&self.deploy.app, &next.slug).await?;
        let stopped = self.deploy.stopped;
        let (types, first) = (&runtime.process_types, self.platform.first());
        let wanted = formation(types, first, &runtime.formation, asked, stopped);
        let limits = inner.shares.limits(&next.sizes);
        inner.quota.check(&self.deploy.id, &self.deploy.name, &wanted, &limits)
    }

    /// What is to be released for sizes to change; nothing where they do not, or where nothing was
    /// released yet: then they are recorded for the first release.
    async fn resized(&self, set: &Sizes, reset: &[ProcessType]) -> Result<Option<Next>, Error> {
        let asked = self.deploy.sizes.clone().without(reset).with(set);
        let Some(current) = self.deploy.current else {
            self.platform.0.store.set_sizes(&self.deploy.id, &asked).await?;
            return Ok(None);
        };
        let row = self.platform.proven(&self.deploy, current).await?.row;
        let runtime = self.platform.runtime(&self.deploy.app, &row.slug).await?;
        let sizes = self.platform.fit(&runtime, &asked, &self.deploy.formation);
        // Done again after a crash, it is what is recorded already.
        if self.operation.release.is_none() && sizes == row.sizes {
            self.platform.0.store.set_sizes(&self.deploy.id, &asked).await?;
            return Ok(None);
        }
        Ok(Some(Next {
            slug: row.slug,
            commit: row.commit,
            config_version: row.config_version,
            reason: Reason::Limits { set: set.clone(), reset: reset.to_vec() },
            branch: None,
            sizes,
            wanted: Wanted { sizes: Some(asked), ..Wanted::default() },
        }))
    }

    pub(super) async fn restart(&self, processes: &Selection) -> Result<Option<After>, Error> {
        let now = self.now().await?;
        if now.stopped {
            return Err(Error::Stopped(now.name));
        }
        if let Some(current) = self.deploy.current {
            // What starts now is proven as at the first start, before any old process is told to go.
            let release = self.platform.0.store.release(&self.deploy.id, current).await?;
            self.platform.target(&self.deploy, &release, None).await?;
        }
        let selected: Vec<_> = self.running(|name| match processes {
            Selection::All => true,
            Selection::Type(kind) => name.process_type == *kind,
            Selection::One(one) => name == one,
        });
        if !selected.is_empty() {
            self.head(format!("Restarting {}", listed(&selected)));
        }
        let restarted = tokio::select! {
            restarted = self.tell_waits(self.controller.engine.restart(processes)) => restarted,
            stopped = self.stopped() => return Err(stopped),
        };
        self.rolled(restarted.map(drop))?;
        Ok(None)
    }

    pub(super) async fn stop(&self, stopped: bool) -> Result<Option<After>, Error> {
        let store = &self.platform.0.store;
        match store.set_stopped(&self.deploy.id, stopped).await {
            // What runs is stopped all the same, and does not start again.
            Err(
                error @ (tolv_store::Error::Forged { .. }
                | tolv_store::Error::Ledger(Broken::Row { .. })),
            ) if stopped => self.warn(&error.to_string()),
            set => set?,
        }
        let running = self.running(|_| true);
        if stopped && !running.is_empty() {
            self.head(format!("Stopping {}", listed(&running)));
        }
        let Some(current) = self.deploy.current else { return Ok(None) };
        let target = async {
            let release = store.release(&self.deploy.id, current).await?;
            let target = self.platform.target(&self.now().await?, &release, None).await?;
            Ok((target, release.row.sizes))
        };
        match target.await {
            Ok((target, sizes)) => self.converge(target, &sizes).await?,
            // What cannot be proven is stopped all the same.
            Err(error) if stopped && !is_passing(&error) => {
                self.warn(&chain(&error));
                let stopping = tokio::select! {
                    stopping = self.converge_to_nothing() => stopping,
                    stopped = self.stopped() => return Err(stopped),
                };
                self.rolled(stopping.map(drop))?;
                self.controller.forget_kept(self.platform)?;
            }
            Err(error) => return Err(error),
        }
        if stopped {
            self.until_ended(|_| true).await?;
        }
        Ok(None)
    }

    /// Stops every process with the care of a rollout, whatever the release is: requests are answered,
    /// and WebSockets closed, before.
    async fn converge_to_nothing(&self) -> Result<Outcome, tolv_run::Error> {
        let number = self.deploy.current.unwrap_or(ReleaseNumber(0));
        let nothing = nothing(self.deploy.name.clone(), number);
        self.controller.route(&nothing);
        self.tell_waits(self.controller.engine.converge(nothing)).await
    }

    /// Names of the processes that requests go to, or that work, now.
    fn running(&self, is_meant: impl Fn(&ProcessName) -> bool) -> Vec<ProcessName> {
        let processes = self.controller.endpoints().processes.into_iter();
        let routed = processes.filter(|process| process.routed).map(|process| process.process);
        let mut names: Vec<_> = routed.filter(is_meant).collect();
        names.sort();
        names
    }

    pub(super) async fn destroy(&self) -> Result<After, Error> {
        let inner = &self.platform.0;
        let running = self.running(|_| true);
        if !running.is_empty() {
            self.head(format!("Stopping {}", listed(&running)));
        }
        let stopping = async {
            if let Err(error) = self.converge_to_nothing().await {
                // It is stopped below.
                self.warn(&chain(&error));
            }
            self.ending(|_| true).await;
        };
        tokio::select! {
            () = stopping => {}
            // The next platform goes on with it.
            () = inner.ending.cancelled() => return Err(Error::Stopping),
        }
        self.controller.remove(self.platform, &self.deploy).await?;
        let (repos, path) = (inner.repos.clone(), self.deploy.name.clone());
        blocking(move || repos.remove_deploy(&path)).await?;
        self.platform.forget_operations(&self.deploy.id, 0, 0).await?;
        self.platform.forget_outputs(&self.deploy.id).await?;
        inner.store.destroy_deploy(&self.deploy.id).await?;
        self.head(format!("{} is destroyed", self.deploy.name));
        inner.outputs.over(&self.operation.id, State::Succeeded);
        Ok(After::Gone)
    }
}

/// A target without processes.
fn nothing(deploy: DeployPath, number: ReleaseNumber) -> Target {
    Target {
        release: Arc::new(Release {
            deploy,
            number,
            slug: SlugId(GENESIS),
            commit: None,
            config: Env::default(),
            process_types: BTreeMap::new(),
            formation: Formation::default(),
        }),
        stack: Vec::new(),
        mounts: Vec::new(),
        slug_env: BTreeMap::new(),
        slug_path: Vec::new(),
        profile: Vec::new(),
        checks: BTreeMap::new(),
        limits: TypeLimits::default(),
    }
}
