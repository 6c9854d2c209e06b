//! What makes no slug: config, quantities, restarts, the end.

use tolv_model::formation::Formation;
use tolv_model::ledger::Reason;
use tolv_model::name::ProcessType;
use tolv_model::operation::{Selection, State};
use tolv_model::size::Sizes;

use super::{Carry, Next, Wanted};
use crate::controller::After;
use crate::error::Error;
use crate::platform::blocking;
use crate::requests::known_types;

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
            let wanted = Wanted { formation: Some(wanted), ..next.wanted };
            self.tell(format!("Scaled to {formation}"));
            return self.release(Next { wanted, ..next }).await;
        }
        if let Some(current) = self.deploy.current {
            let release = store.release(&self.deploy.id, current).await?;
            known_types(&release.row.process_types, formation, &self.deploy.name)?;
            let target = self.platform.target(&self.deploy, &release, Some(&wanted)).await?;
            self.converge(target, &release.row.sizes).await?;
        }
        store.set_formation(&self.deploy.id, &wanted).await?;
        self.tell(format!("Scaled to {formation}"));
        Ok(None)
    }

    pub(super) async fn limits(
        &self,
        sizes: &Sizes,
        reset: &[ProcessType],
    ) -> Result<Option<After>, Error> {
        match self.resized(sizes, reset).await? {
            Some(next) => self.release(next).await,
            None => Ok(None),
        }
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
        let sizes = runtime.sizes.with(&asked);
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
        let restarted = tokio::select! {
            restarted = self.controller.engine.restart(processes) => restarted,
            stopped = self.stopped() => return Err(stopped),
        };
        self.rolled(restarted.map(drop))?;
        Ok(None)
    }

    pub(super) async fn stop(&self, stopped: bool) -> Result<Option<After>, Error> {
        let store = &self.platform.0.store;
        store.set_stopped(&self.deploy.id, stopped).await?;
        if let Some(current) = self.deploy.current {
            let release = store.release(&self.deploy.id, current).await?;
            let deploy = self.now().await?;
            let target = self.platform.target(&deploy, &release, None).await?;
            self.converge(target, &release.row.sizes).await?;
        }
        Ok(None)
    }

    pub(super) async fn destroy(&self) -> Result<After, Error> {
        let inner = &self.platform.0;
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
