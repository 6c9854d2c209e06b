//! Apps and deploys: made and removed.

use jiff::Timestamp;
use tolv_model::buildpack::Buildpack;
use tolv_model::env::EnvName;
use tolv_model::id::AppId;
use tolv_model::name::{AppName, Deploy as DeployPath, DeployName};
use tolv_model::root_folder::RootFolder;
use tolv_store::{App, Deploy, ForgedRow, Stored};

use super::error::Error;
use super::kept::Place;
use super::platform::{Actor, Platform, blocking};
use super::requests::Command;

/// Where a new deploy's formation and config come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFrom {
    /// A deploy of the same app.
    pub deploy: DeployPath,
    /// Whether config values are copied; without it, only their names are told.
    pub values: bool,
}

impl Platform {
    /// Makes an app, its repository and its first deploy. With `root`, that folder of the repository
    /// is its codebase.
    ///
    /// # Errors
    ///
    /// The name, or the host it would answer under, is taken.
    pub async fn create_app(
        &self,
        name: &AppName,
        first: &DeployName,
        root: Option<&RootFolder>,
    ) -> Result<(App, Deploy), Error> {
        self.on()?;
        self.may_create(first)?;
        let path = DeployPath { app: name.clone(), name: first.clone() };
        let repos = self.0.repos.clone();
        let app = name.clone();
        // Before the row: a repository without an app harms nobody, and the other way round does.
        blocking(move || repos.create(&app)).await?;
        let (host, now) = (self.host_of(&path), Timestamp::now());
        let made = self.0.store.create_app(name, first, &host, root, now).await?;
        self.control(Place::of(&made.1))?;
        Ok(made)
    }

    /// Says what builds an app from the next build on; nothing leaves it to each codebase.
    ///
    /// # Errors
    ///
    /// There is no such app.
    pub async fn set_buildpacks(
        &self,
        name: &AppName,
        buildpacks: &[Buildpack],
    ) -> Result<(), Error> {
        self.on()?;
        let app = self.0.store.app(name).await?;
        Ok(self.0.store.set_buildpacks(&app.id, buildpacks).await?)
    }

    /// Makes another deploy of an app. With `from` and without its values, the names that wait
    /// for values come back.
    ///
    /// # Errors
    ///
    /// The name or its host is taken; `from` is a deploy of another app.
    pub async fn create_deploy(
        &self,
        path: &DeployPath,
        from: Option<CopyFrom>,
    ) -> Result<(Deploy, Vec<EnvName>), Error> {
        self.on()?;
        self.may_create(&path.name)?;
        let store = &self.0.store;
        let mut wanted = Vec::new();
        let copy = match from {
            None => None,
            Some(CopyFrom { deploy, .. }) if deploy.app != path.app => {
                return Err(Error::OtherApp { from: deploy, to: path.clone() });
            }
            Some(CopyFrom { deploy, values }) => {
                let from = store.deploy(&deploy).await?;
                if !values {
                    let config = store.config(&from.id, from.config_version).await?;
                    wanted = config.names().cloned().collect();
                }
                Some(tolv_store::CopyFrom { deploy: from.id, values })
            }
        };
        let deploy = store.create_deploy(path, &self.host_of(path), copy, Timestamp::now()).await?;
        self.control(Place::of(&deploy))?;
        Ok((deploy, wanted))
    }

    /// Removes an app whose deploys are destroyed first, one operation each.
    ///
    /// # Errors
    ///
    /// [`Error::Unconfirmed`] where `confirm` is not its name.
    pub async fn destroy_app(
        &self,
        actor: &Actor,
        name: &AppName,
        confirm: &str,
    ) -> Result<(), Error> {
        if confirm != name.as_str() {
            return Err(Error::Unconfirmed(name.to_string()));
        }
        let store = &self.0.store;
        let app = self.app_id(name).await?;
        let mut paths = Vec::new();
        for stored in store.deploys(&app).await? {
            paths.push(match stored {
                Stored::Valid(deploy) => deploy.name,
                Stored::Forged(row) => row.name.parse().map_err(|_| forged(&row))?,
            });
        }
        // Of two rows whose ids or names were exchanged, each leads to the deploys of the other.
        if let Some(other) = paths.iter().find(|path| path.app != *name) {
            let why = format!("it has the deploy {other}");
            let name = name.to_string();
            return Err(tolv_store::Error::Forged { what: "app", name, why }.into());
        }
        for path in paths {
            let confirm = path.to_string();
            let operation = self.submit(actor, &path, Command::Destroy { confirm }).await?;
            let mut follow = self.follow(&operation.id).await?;
            while follow.next().await.is_some() {}
        }
        store.destroy_app(&app).await?;
        let (repos, name) = (self.0.repos.clone(), name.clone());
        blocking(move || repos.remove(&name)).await?;
        let folder = self.folder_of(&app);
        blocking(move || tolv_build::remove(&folder)).await
    }

    /// The id of an app, whoever wrote its row.
    pub(super) async fn app_id(&self, name: &AppName) -> Result<AppId, Error> {
        match self.0.store.stored_app(name).await? {
            Stored::Valid(app) => Ok(app.id),
            Stored::Forged(row) => row.id.parse().map_err(|_| forged(&row)),
        }
    }
}

fn forged(row: &ForgedRow) -> Error {
    let (what, name) = (row.what, row.name.clone());
    tolv_store::Error::Forged { what, name, why: "it cannot be read".to_owned() }.into()
}
