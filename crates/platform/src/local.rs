//! What is different where a platform runs one codebase, as `tolv up` has it: its one deploy begins
//! anew at each start, and its code and config are what its folder says.

use std::sync::Arc;

use jiff::Timestamp;
use tolv_model::name::DeployName;
use tolv_model::operation::Request;
use tolv_store::{Deploy, Operation};

use super::error::Error;
use super::kept::Kept;
use super::platform::{Actor, Platform};
use crate::codebase::Codebase;

/// Who `up` is in the ledger and the audit log.
const ACTOR: &str = "up";
/// Why what an earlier `up` left is not gone on with.
const CUT_OFF: &str = "cut off: `tolv up` ended meanwhile";

impl Platform {
    /// The codebase that this platform runs, if it is that of an `up`.
    pub fn codebase(&self) -> Option<&Codebase> {
        self.0.options.codebase.as_ref()
    }

    /// Refuses a state folder of the other kind: what `up` begins anew would be a service's.
    pub(super) async fn check_owner(&self) -> Result<(), Error> {
        let is_local = |deploy: &Deploy| deploy.name.name == DeployName::local();
        let all = self.0.store.all_deploys().await?;
        let owner = match self.codebase() {
            Some(_) if !all.iter().all(is_local) => "serve",
            None if all.iter().any(is_local) => "up",
            _ => return Ok(()),
        };
        Err(Error::OtherHome { path: self.0.home.clone(), owner })
    }

    /// The deploy of a codebase, made where it is not there, without anything current.
    pub(super) async fn begin_anew(&self, codebase: &Codebase) -> Result<Deploy, Error> {
        let store = &self.0.store;
        let (path, now) = (&codebase.deploy, Timestamp::now());
        let deploy = match store.deploy(path).await {
            Err(tolv_store::Error::NotFound { .. }) => {
                store.create_app(&path.app, &path.name, &self.host_of(path), None, now).await?.1
            }
            // What it says of what is to run is replaced below.
            Err(tolv_store::Error::Forged { .. }) => {
                self.accept_rows(path).await?;
                store.deploy(path).await?
            }
            deploy => deploy?,
        };
        store.begin_anew(&deploy.id, &codebase.formation, CUT_OFF, now).await?;
        Kept::remove(&self.0.home, &deploy.id)?;
        Ok(store.deploy_by_id(&deploy.id).await?)
    }

    /// Queues the build and the release of the codebase as it is now.
    ///
    /// # Errors
    ///
    /// This platform is not that of a codebase, or it stops.
    pub async fn bring_up(&self) -> Result<Operation, Error> {
        self.on()?;
        let path = self.codebase().map(|codebase| codebase.deploy.clone());
        let deploy = self.0.store.deploy(&path.ok_or(Error::Stopping)?).await?;
        self.enqueue(&Actor { name: ACTOR.to_owned() }, &deploy, &Request::Up).await
    }

    /// Kills every process.
    pub fn kill(&self) {
        let controllers: Vec<_> = self.controllers().values().map(Arc::clone).collect();
        for controller in controllers {
            controller.engine.kill();
        }
    }

    /// Refuses what the deploy of a codebase cannot do.
    pub(super) fn not_local(
        &self,
        why: &'static str,
        instead: impl FnOnce(&Codebase) -> String,
    ) -> Result<(), Error> {
        match self.codebase() {
            None => Ok(()),
            Some(codebase) => Err(Error::IsLocal {
                deploy: codebase.deploy.clone(),
                why,
                instead: instead(codebase),
            }),
        }
    }

    /// Refuses names and deploys besides that of a codebase.
    pub(super) fn may_create(&self, name: &DeployName) -> Result<(), Error> {
        self.not_local("there is one of it and no other", |_| {
            "`tolv serve` has many apps and deploys".to_owned()
        })?;
        match *name == DeployName::local() {
            true => Err(Error::LocalName),
            false => Ok(()),
        }
    }
}
