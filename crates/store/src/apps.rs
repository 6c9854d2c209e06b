//! Apps and their deploys.

use jiff::Timestamp;
use sqlx::any::AnyRow;
use tolv_model::buildpack::Buildpack;
use tolv_model::formation::Formation;
use tolv_model::id::{AppId, DeployId};
use tolv_model::name::{AppName, Deploy as DeployPath, DeployName};
use tolv_model::size::Sizes;

use crate::anchor::{Anchor, Recorded};
use crate::columns::{Columns, micros, to_json};
use crate::db::{Store, Write};
use crate::error::{Error, is_taken};
use crate::ledger::path_of;
use crate::listed::{List, Listed, Value};
use crate::rows::{APPS, DEPLOYS, forged_app, forged_deploy, path_text};
use crate::tokens::forget_app;
use crate::types::{App, CopyFrom, Deploy, ForgedRow, Stored};

/// A deploy with the commit of its current release.
const DEPLOY: &str = "SELECT d.id, d.app, d.app_name, d.name, d.host, d.branch, d.created, \
    d.config_version, d.current_release, d.formation, d.sizes, d.stack, d.stopped, d.row_version, d.mac, \
    r.commit_id \
    FROM deploys d LEFT JOIN releases r ON r.deploy = d.id AND r.number = d.current_release ";

/// The app of a row that this platform wrote.
fn app(store: &Store, row: &AnyRow) -> Result<App, Error> {
    if !APPS.holds(store, row) {
        return Err(forged_app(store, row));
    }
    let row = Columns(row);
    Ok(App {
        id: row.parsed("id")?,
        name: row.parsed("name")?,
        roots: row.json("roots")?,
        buildpacks: row.json("buildpacks")?,
        created: row.time("created")?,
    })
}

/// The deploy of a row that this platform wrote.
fn deploy(store: &Store, row: &AnyRow) -> Result<Deploy, Error> {
    if !DEPLOYS.holds(store, row) {
        return Err(forged_deploy(store, row));
    }
    let commit = Columns(row).maybe_text("commit_id")?;
    Ok(Deploy { commit, ..readable_deploy(row)? })
}

/// The deploy of a row, whoever wrote it, without the commit of its release.
pub(crate) fn readable_deploy(row: &AnyRow) -> Result<Deploy, Error> {
    let row = Columns(row);
    // What no release can be is none: the ledger says which one is current, and an audit of it that
    // this column says otherwise.
    let current = row.maybe_number("current_release").ok().flatten();
    let current = current.and_then(|number| u32::try_from(number).ok());
    Ok(Deploy {
        id: row.parsed("id")?,
        app: row.parsed("app")?,
        name: DeployPath { app: row.parsed("app_name")?, name: row.parsed("name")? },
        host: row.text("host")?,
        branch: row.maybe_text("branch")?,
        created: row.time("created")?,
        config_version: row.u32("config_version")?,
        current: current.map(tolv_model::release::ReleaseNumber),
        commit: None,
        formation: row.json("formation")?,
        sizes: row.json("sizes")?,
        stack: row.maybe_text("stack")?,
        stopped: row.number("stopped")? != 0,
    })
}

fn stored_app(store: &Store, row: &AnyRow) -> Stored<App> {
    app(store, row).map_or_else(
        |error| {
            let text = |name| Columns(row).text(name).unwrap_or_default();
            let (id, name, why) = (text("id"), text("name"), error.to_string());
            Stored::Forged(ForgedRow { what: "app", id, name, why })
        },
        Stored::Valid,
    )
}

fn stored_deploy(store: &Store, row: &AnyRow) -> Stored<Deploy> {
    deploy(store, row).map_or_else(
        |error| {
            let id = Columns(row).text("id").unwrap_or_default();
            let (name, why) = (path_text(row), error.to_string());
            Stored::Forged(ForgedRow { what: "deploy", id, name, why })
        },
        Stored::Valid,
    )
}

fn no_deploy(name: impl ToString) -> Error {
    Error::NotFound { what: "deploy", name: name.to_string() }
}

impl Store {
    /// Makes an app and its first deploy.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`]: the app's name or the deploy's host is taken.
    pub async fn create_app(
        &self,
        name: &AppName,
        first: &DeployName,
        host: &str,
        now: Timestamp,
    ) -> Result<(App, Deploy), Error> {
        let id = AppId::new(now, self.random()?);
        let path = DeployPath { app: name.clone(), name: first.clone() };
        let mut write = self.write().await?;
        let made =
            sqlx::query("INSERT INTO apps (id, name, roots, created) VALUES ($1, $2, $3, $4)")
                .bind(id.as_str().to_owned())
                .bind(name.as_str().to_owned())
                .bind("[]")
                .bind(micros(now))
                .execute(&mut *write.tx)
                .await;
        if let Err(error) = made {
            return Err(match is_taken(&error) {
                true => Error::Exists { what: "app", name: name.to_string() },
                false => error.into(),
            });
        }
        self.seal_app(&mut write.tx, &id).await?;
        let deploy = self.insert_deploy(&mut write, &id, &path, host, now).await?;
        self.commit_new(write, &deploy, &path).await?;
        Ok((self.app(name).await?, self.deploy_by_id(&deploy).await?))
    }

    /// Inserts a deploy; its row has no code yet.
    async fn insert_deploy(
        &self,
        write: &mut Write<'_>,
        app: &AppId,
        path: &DeployPath,
        host: &str,
        now: Timestamp,
    ) -> Result<DeployId, Error> {
        let id = DeployId::new(now, self.random()?);
        let taken = sqlx::query("SELECT app_name, name FROM deploys WHERE host = $1")
            .bind(host.to_owned())
            .fetch_optional(&mut *write.tx)
            .await?;
        if let Some(row) = taken {
            let row = Columns(&row);
            let owner = format!("{}/{}", row.text("app_name")?, row.text("name")?);
            return Err(match owner == path.to_string() {
                true => Error::Exists { what: "deploy", name: owner },
                false => Error::Exists { what: "host", name: format!("{host} (of {owner})") },
            });
        }
        sqlx::query(
            "INSERT INTO deploys (id, app, app_name, name, host, created, config_version, \
             formation, stopped) VALUES ($1, $2, $3, $4, $5, $6, 0, $7, 0)",
        )
        .bind(id.as_str().to_owned())
        .bind(app.as_str().to_owned())
        .bind(path.app.as_str().to_owned())
        .bind(path.name.as_str().to_owned())
        .bind(host.to_owned())
        .bind(micros(now))
        .bind(to_json(&Formation::default())?)
        .execute(&mut *write.tx)
        .await
        .map_err(|error| match is_taken(&error) {
            true => Error::Exists { what: "deploy", name: path.to_string() },
            false => error.into(),
        })?;
        Ok(id)
    }

    /// An app by its name.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn app(&self, name: &AppName) -> Result<App, Error> {
        let row = sqlx::query("SELECT * FROM apps WHERE name = $1")
            .bind(name.as_str().to_owned())
            .fetch_optional(self.pool())
            .await?;
        let row = row.ok_or_else(|| Error::NotFound { what: "app", name: name.to_string() })?;
        app(self, &row)
    }

    /// What is in the place of an app.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn stored_app(&self, name: &AppName) -> Result<Stored<App>, Error> {
        let row = sqlx::query("SELECT * FROM apps WHERE name = $1")
            .bind(name.as_str().to_owned())
            .fetch_optional(self.pool())
            .await?;
        let row = row.ok_or_else(|| Error::NotFound { what: "app", name: name.to_string() })?;
        Ok(stored_app(self, &row))
    }

    /// Apps by name, behind `after`.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn apps(
        &self,
        after: Option<&AppName>,
        most: usize,
    ) -> Result<Listed<Stored<App>>, Error> {
        let list = List {
            statement: "SELECT * FROM apps WHERE name > $1 ORDER BY name LIMIT $2",
            values: &[Value::Text(after.map_or("", AppName::as_str))],
            long: &["roots", "buildpacks"],
        };
        list.page(self, most, |row| Ok(Some(stored_app(self, row)))).await
    }

    /// Adds root commits to those that an app is known by.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forged`].
    pub async fn add_roots(&self, id: &AppId, roots: &[String]) -> Result<(), Error> {
        let mut write = self.write().await?;
        let row = sqlx::query("SELECT * FROM apps WHERE id = $1")
            .bind(id.as_str().to_owned())
            .fetch_optional(&mut *write.tx)
            .await?
            .ok_or_else(|| Error::NotFound { what: "app", name: id.to_string() })?;
        let mut all = app(self, &row)?.roots;
        all.extend(roots.iter().cloned());
        all.sort();
        all.dedup();
        sqlx::query("UPDATE apps SET roots = $1 WHERE id = $2")
            .bind(to_json(&all)?)
            .bind(id.as_str().to_owned())
            .execute(&mut *write.tx)
            .await?;
        self.seal_app(&mut write.tx, id).await?;
        write.commit().await
    }

    /// Records what builds an app; nothing leaves it to each codebase.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Forged`].
    pub async fn set_buildpacks(&self, id: &AppId, buildpacks: &[Buildpack]) -> Result<(), Error> {
        let mut write = self.write().await?;
        let row = sqlx::query("SELECT * FROM apps WHERE id = $1")
            .bind(id.as_str().to_owned())
            .fetch_optional(&mut *write.tx)
            .await?
            .ok_or_else(|| Error::NotFound { what: "app", name: id.to_string() })?;
        app(self, &row)?;
        sqlx::query("UPDATE apps SET buildpacks = $1 WHERE id = $2")
            .bind(to_json(&buildpacks)?)
            .bind(id.as_str().to_owned())
            .execute(&mut *write.tx)
            .await?;
        self.seal_app(&mut write.tx, id).await?;
        write.commit().await
    }

    /// Makes another deploy of an app, with the formation, sizes and stack, and where that is asked for the
    /// config, of an earlier one.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Exists`].
    pub async fn create_deploy(
        &self,
        path: &DeployPath,
        host: &str,
        from: Option<CopyFrom>,
        now: Timestamp,
    ) -> Result<Deploy, Error> {
        let mut write = self.write().await?;
        // Under the lock: nobody destroys it meanwhile.
        let app = self.app(&path.app).await?;
        let id = self.insert_deploy(&mut write, &app.id, path, host, now).await?;
        if let Some(from) = from {
            self.row_to_change(&mut write.tx, &from.deploy).await?;
            sqlx::query(
                "UPDATE deploys SET formation = (SELECT formation FROM deploys WHERE id = $1), \
                 sizes = (SELECT sizes FROM deploys WHERE id = $1), \
                 stack = (SELECT stack FROM deploys WHERE id = $1) WHERE id = $2",
            )
            .bind(from.deploy.as_str().to_owned())
            .bind(id.as_str().to_owned())
            .execute(&mut *write.tx)
            .await?;
            if from.values {
                let config = self.config_in(&mut write.tx, &from.deploy, None).await?.1;
                if config != Default::default() {
                    self.put_config(&mut write.tx, &id, 1, &config, now).await?;
                }
            }
        }
        self.commit_new(write, &id, path).await?;
        self.deploy_by_id(&id).await
    }

    /// Commits a new deploy, after the anchor of its empty ledger is written. No other deploy has
    /// this name: an anchor that exists belongs to one that was destroyed or never committed.
    async fn commit_new(
        &self,
        mut write: Write<'_>,
        id: &DeployId,
        path: &DeployPath,
    ) -> Result<(), Error> {
        let row = self.seal_row_as(&mut write.tx, id, 1).await?;
        let anchor = Anchor { row, ..Anchor::new(id) };
        let _writer = self.anchor_writer().await.put(path, &anchor).await?;
        write.commit().await?;
        self.0.done.raise(id, None);
        Ok(())
    }

    /// A deploy by its path.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn deploy(&self, path: &DeployPath) -> Result<Deploy, Error> {
        deploy(self, &self.deploy_row(path).await?)
    }

    /// What is in the place of a deploy.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn stored_deploy(&self, path: &DeployPath) -> Result<Stored<Deploy>, Error> {
        Ok(stored_deploy(self, &self.deploy_row(path).await?))
    }

    async fn deploy_row(&self, path: &DeployPath) -> Result<AnyRow, Error> {
        let statement = format!("{DEPLOY} WHERE d.app_name = $1 AND d.name = $2");
        let row = sqlx::query(&statement)
            .bind(path.app.as_str().to_owned())
            .bind(path.name.as_str().to_owned())
            .fetch_optional(self.pool())
            .await?;
        row.ok_or_else(|| no_deploy(path))
    }

    /// Which deploy the state folder knows under a path; nothing where it knows none.
    ///
    /// # Errors
    ///
    /// [`Error::Anchor`].
    pub async fn recorded_deploy(&self, path: &DeployPath) -> Result<Option<DeployId>, Error> {
        Ok(match self.recorded(path).await? {
            Recorded::At(anchor) => Some(anchor.deploy),
            _ => None,
        })
    }

    /// A deploy by its id.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn deploy_by_id(&self, id: &DeployId) -> Result<Deploy, Error> {
        let statement = format!("{DEPLOY} WHERE d.id = $1");
        let row = sqlx::query(&statement)
            .bind(id.as_str().to_owned())
            .fetch_optional(self.pool())
            .await?;
        deploy(self, &row.ok_or_else(|| no_deploy(id))?)
    }

    /// The deploys of an app, by name.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn deploys(&self, app: &AppId) -> Result<Vec<Stored<Deploy>>, Error> {
        let statement = format!("{DEPLOY} WHERE d.app = $1 ORDER BY d.name");
        let rows =
            sqlx::query(&statement).bind(app.as_str().to_owned()).fetch_all(self.pool()).await?;
        Ok(rows.iter().map(|row| stored_deploy(self, row)).collect())
    }

    /// Every deploy whose row is this platform's.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn all_deploys(&self) -> Result<Vec<Deploy>, Error> {
        let statement = format!("{DEPLOY} ORDER BY d.id");
        let rows = sqlx::query(&statement).fetch_all(self.pool()).await?;
        // One that cannot be read keeps no other down.
        Ok(rows.iter().filter_map(|row| deploy(self, row).ok()).collect())
    }

    /// The rows of apps and deploys that were changed outside of the platform, or cannot be read.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn forged_rows(&self) -> Result<Vec<ForgedRow>, Error> {
        let apps = sqlx::query("SELECT * FROM apps ORDER BY id").fetch_all(self.pool()).await?;
        let statement = format!("{DEPLOY} ORDER BY d.id");
        let deploys = sqlx::query(&statement).fetch_all(self.pool()).await?;
        let apps = apps.iter().filter_map(|row| stored_app(self, row).forged());
        let deploys = deploys.iter().filter_map(|row| stored_deploy(self, row).forged());
        Ok(apps.chain(deploys).collect())
    }

    /// Fixes the branch that is built.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn set_branch(&self, id: &DeployId, branch: &str) -> Result<(), Error> {
        let change = sqlx::query("UPDATE deploys SET branch = $1 WHERE id = $2");
        self.change_row(id, change.bind(branch.to_owned())).await
    }

    /// Records what the operator wants of each process type.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn set_formation(&self, id: &DeployId, formation: &Formation) -> Result<(), Error> {
        let change = sqlx::query("UPDATE deploys SET formation = $1 WHERE id = $2");
        self.change_row(id, change.bind(to_json(formation)?)).await
    }

    /// Records what the operator wants of the size of each process type.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn set_sizes(&self, id: &DeployId, sizes: &Sizes) -> Result<(), Error> {
        let change = sqlx::query("UPDATE deploys SET sizes = $1 WHERE id = $2");
        self.change_row(id, change.bind(to_json(sizes)?)).await
    }

    /// Records the version of a stack that its builds use from now on; nothing where app.json and the
    /// operator's setting choose.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn set_stack(&self, id: &DeployId, stack: Option<&str>) -> Result<(), Error> {
        let change = sqlx::query("UPDATE deploys SET stack = $1 WHERE id = $2");
        self.change_row(id, change.bind(stack.map(str::to_owned))).await
    }

    /// Records whether anything of it is to run.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn set_stopped(&self, id: &DeployId, stopped: bool) -> Result<(), Error> {
        let change = sqlx::query("UPDATE deploys SET stopped = $1 WHERE id = $2");
        self.change_row(id, change.bind(i64::from(stopped))).await
    }

    /// Removes a deploy with all that is known of it; the audit log stays.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn destroy_deploy(&self, id: &DeployId) -> Result<(), Error> {
        let mut write = self.write().await?;
        let path = match path_of(&mut write.tx, id).await {
            Ok(path) => Some(path),
            // Its row cannot be read, or is gone.
            Err(Error::Corrupt { .. } | Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        for statement in [
            "DELETE FROM cron_runs WHERE deploy = $1",
            "DELETE FROM outcomes WHERE deploy = $1",
            "DELETE FROM releases WHERE deploy = $1",
            "DELETE FROM runs WHERE deploy = $1",
            "DELETE FROM operations WHERE deploy = $1",
            "DELETE FROM configs WHERE deploy = $1",
            "DELETE FROM drains WHERE deploy = $1",
            "DELETE FROM deploys WHERE id = $1",
        ] {
            sqlx::query(statement).bind(id.as_str().to_owned()).execute(&mut *write.tx).await?;
        }
        let writer = self.anchor_writer().await;
        write.commit().await?;
        self.0.done.forget(id);
        if let Some(path) = path {
            // A row that was changed may have the name of another deploy, whose anchor stays.
            match self.recorded(&path).await {
                Ok(Recorded::At(anchor)) if anchor.deploy != *id => {}
                _ => writer.remove(&path).await,
            }
        }
        Ok(())
    }

    /// Removes an app that has no deploys. Tokens are not for it any more; those that were for it
    /// alone are removed.
    ///
    /// # Errors
    ///
    /// [`Error::HasDeploys`].
    pub async fn destroy_app(&self, id: &AppId) -> Result<(), Error> {
        let mut write = self.write().await?;
        if !self.deploys(id).await?.is_empty() {
            return Err(Error::HasDeploys(id.to_string()));
        }
        let named = sqlx::query("SELECT name FROM apps WHERE id = $1")
            .bind(id.as_str().to_owned())
            .fetch_optional(&mut *write.tx)
            .await?;
        let mut spent = Vec::new();
        if let Some(name) = named.and_then(|row| Columns(&row).parsed("name").ok()) {
            // Another app of its name is none of theirs.
            spent = forget_app(self, &mut write, &name).await?;
        }
        for statement in ["DELETE FROM slugs WHERE app = $1", "DELETE FROM apps WHERE id = $1"] {
            sqlx::query(statement).bind(id.as_str().to_owned()).execute(&mut *write.tx).await?;
        }
        write.commit().await?;
        self.spend(&spent).await
    }
}
