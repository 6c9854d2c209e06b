//! Config: immutable versions, each sealed as a whole.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tolv_model::config::{Change, Config};
use tolv_model::env::EnvName;
use tolv_model::id::{AppId, DeployId};
use tolv_model::operation::Request;
use tolv_model::slug::Digest;

use crate::columns::{Columns, micros};
use crate::db::{Store, Transaction};
use crate::error::Error;
use crate::types::{Operation, Releasing};

/// A version as it is sealed: values in base 64, for they are bytes.
#[derive(Serialize, Deserialize)]
struct Sealed {
    vars: BTreeMap<EnvName, String>,
    secret: BTreeSet<EnvName>,
    #[serde(default)]
    build: BTreeSet<EnvName>,
}

pub(crate) fn no_config(version: u32) -> Error {
    Error::NotFound { what: "config version", name: version.to_string() }
}

fn owner(deploy: &DeployId, version: u32) -> String {
    format!("config {deploy} {version}")
}

impl Store {
    /// One version of a deploy's config; 0 is the empty one.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Corrupt`] where it was changed behind our back.
    pub async fn config(&self, deploy: &DeployId, version: u32) -> Result<Config, Error> {
        match version {
            0 => Ok(Config::default()),
            version => self.read_config(deploy, version, &self.sealed(deploy, version).await?),
        }
    }

    /// SHA-256 of a version as it is stored: of the sealed text, so that it says nothing of the
    /// values.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn config_digest(&self, deploy: &DeployId, version: u32) -> Result<Digest, Error> {
        match version {
            0 => Ok(Digest::of(b"")),
            version => Ok(Digest::of(self.sealed(deploy, version).await?.as_bytes())),
        }
    }

    /// A short text for each variable of a version: equal for equal values, and of no use
    /// otherwise.
    ///
    /// # Errors
    ///
    /// Those of [`Store::config`].
    pub async fn fingerprints(
        &self,
        deploy: &DeployId,
        version: u32,
    ) -> Result<BTreeMap<EnvName, String>, Error> {
        let config = self.config(deploy, version).await?;
        let print = |(name, value): (&EnvName, &tolv_model::env::EnvValue)| {
            let owner = format!("{deploy} {name}");
            (name.clone(), self.0.key.fingerprint(&owner, value.as_bytes()))
        };
        Ok(config.vars.iter().map(print).collect())
    }

    /// A short text for each variable that builds of an app get: equal for equal values in all deploys
    /// of the app, and of no use otherwise.
    pub fn build_fingerprints(&self, app: &AppId, config: &Config) -> BTreeMap<EnvName, String> {
        let print = |(name, value): (&EnvName, &tolv_model::env::EnvValue)| {
            let owner = format!("build {app} {name}");
            (name.clone(), self.0.key.fingerprint(&owner, value.as_bytes()))
        };
        config.of_builds().map(print).collect()
    }

    async fn sealed(&self, deploy: &DeployId, version: u32) -> Result<String, Error> {
        let row = sqlx::query("SELECT sealed FROM configs WHERE deploy = $1 AND version = $2")
            .bind(deploy.as_str().to_owned())
            .bind(i64::from(version))
            .fetch_optional(self.pool())
            .await?;
        Columns(&row.ok_or_else(|| no_config(version))?).text("sealed")
    }

    fn read_config(&self, deploy: &DeployId, version: u32, sealed: &str) -> Result<Config, Error> {
        let bad =
            |why: &str| Error::corrupt("a config version")(format!("version {version} {why}"));
        let bytes = self
            .0
            .key
            .open(&owner(deploy, version), sealed)
            .ok_or_else(|| bad("was changed, or sealed with another key"))?;
        let sealed: Sealed = serde_json::from_slice(&bytes).map_err(|_| bad("is no JSON"))?;
        let mut config = Config { secret: sealed.secret, build: sealed.build, ..Config::default() };
        for (name, value) in sealed.vars {
            let value = STANDARD.decode(value).map_err(|_| bad("is no base 64"))?;
            config.vars.set(name, value)?;
        }
        Ok(config)
    }

    /// The newest version, or another, inside a transaction.
    pub(crate) async fn config_in(
        &self,
        tx: &mut Transaction,
        deploy: &DeployId,
        version: Option<u32>,
    ) -> Result<(u32, Config), Error> {
        let version = match version {
            Some(version) => version,
            None => {
                let row = sqlx::query("SELECT config_version FROM deploys WHERE id = $1")
                    .bind(deploy.as_str().to_owned())
                    .fetch_optional(&mut **tx)
                    .await?;
                let missing = || Error::NotFound { what: "deploy", name: deploy.to_string() };
                Columns(&row.ok_or_else(missing)?).u32("config_version")?
            }
        };
        if version == 0 {
            return Ok((0, Config::default()));
        }
        let row = sqlx::query("SELECT sealed FROM configs WHERE deploy = $1 AND version = $2")
            .bind(deploy.as_str().to_owned())
            .bind(i64::from(version))
            .fetch_optional(&mut **tx)
            .await?;
        let sealed = Columns(&row.ok_or_else(|| no_config(version))?).text("sealed")?;
        Ok((version, self.read_config(deploy, version, &sealed)?))
    }

    /// Stores a version and makes it the newest. The deploy's row needs a new code then.
    pub(crate) async fn put_config(
        &self,
        tx: &mut Transaction,
        deploy: &DeployId,
        version: u32,
        config: &Config,
        now: Timestamp,
    ) -> Result<(), Error> {
        let vars = config.vars.iter();
        let vars = vars.map(|(name, value)| (name.clone(), STANDARD.encode(value.as_bytes())));
        let sealed = Sealed {
            vars: vars.collect(),
            secret: config.secret.clone(),
            build: config.build.clone(),
        };
        let bytes = crate::columns::to_json(&sealed)?;
        let sealed = self.0.key.seal(&owner(deploy, version), bytes.as_bytes())?;
        sqlx::query(
            "INSERT INTO configs (deploy, version, sealed, created) VALUES ($1, $2, $3, $4)",
        )
        .bind(deploy.as_str().to_owned())
        .bind(i64::from(version))
        .bind(sealed)
        .bind(micros(now))
        .execute(&mut **tx)
        .await?;
        sqlx::query("UPDATE deploys SET config_version = $1 WHERE id = $2")
            .bind(i64::from(version))
            .bind(deploy.as_str().to_owned())
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    /// Makes the next version; where `actor` is given, an operation that releases it is queued
    /// with it.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] where `if_version` is not the newest; [`Error::Env`] where a variable
    /// is refused. Then nothing is changed.
    pub async fn change_config(
        &self,
        deploy: &DeployId,
        if_version: Option<u32>,
        change: &Change,
        actor: Option<&str>,
        now: Timestamp,
    ) -> Result<(u32, Option<Operation>), Error> {
        let releasing = actor.map(|actor| Releasing { actor, no_release_phase: false });
        self.change_config_for(deploy, if_version, change, releasing, now).await
    }

    /// As [`Store::change_config`], with more to say about the release.
    ///
    /// # Errors
    ///
    /// Those of [`Store::change_config`].
    pub async fn change_config_for(
        &self,
        deploy: &DeployId,
        if_version: Option<u32>,
        change: &Change,
        releasing: Option<Releasing<'_>>,
        now: Timestamp,
    ) -> Result<(u32, Option<Operation>), Error> {
        let mut write = self.write().await?;
        let before = self.row_to_change(&mut write.tx, deploy).await?;
        let (current, config) = self.config_in(&mut write.tx, deploy, None).await?;
        if let Some(expected) = if_version
            && expected != current
        {
            return Err(Error::Conflict { expected, current });
        }
        let unset: Vec<_> = change.unset.iter().filter(|name| config.vars.has(name)).collect();
        let next = config.with(change)?;
        // After a rollback the newest is not the one with the highest number. One that a release had is
        // not given again, whoever removed it: that release would have another config.
        let row = sqlx::query(
            "SELECT CAST(COALESCE(MAX(version), 0) AS BIGINT) AS last FROM \
             (SELECT version FROM configs WHERE deploy = $1 UNION ALL \
              SELECT config_version FROM releases WHERE deploy = $1 AND config_version < 1000000000) \
             AS versions",
        )
        .bind(deploy.as_str().to_owned())
        .fetch_one(&mut *write.tx)
        .await?;
        let version = Columns(&row).u32("last")? + 1;
        self.put_config(&mut write.tx, deploy, version, &next, now).await?;
        let row = self.seal_row(&mut write.tx, deploy, &before).await?;
        self.forget_configs(&mut write.tx, deploy).await?;
        let operation = match releasing {
            None => None,
            Some(Releasing { actor, no_release_phase }) => {
                let request = Request::Config {
                    version,
                    set: change.set.keys().map(ToString::to_string).collect(),
                    unset: unset.into_iter().map(ToString::to_string).collect(),
                    no_release_phase,
                };
                self.require_queue(&mut write.tx, deploy, &request).await?;
                Some(self.put_operation(&mut write.tx, deploy, &request, actor, now).await?)
            }
        };
        self.commit_row(write, deploy, &before.path, row).await?;
        Ok((
            version,
            match operation {
                Some(id) => Some(self.operation(&id).await?),
                None => None,
            },
        ))
    }

    /// Removes the versions that neither the deploy, nor one of its kept releases, nor an operation
    /// needs. The one with the highest number stays: numbers are never given twice.
    async fn forget_configs(&self, tx: &mut Transaction, deploy: &DeployId) -> Result<(), Error> {
        let Some(keep) = self.0.keep_releases.get() else { return Ok(()) };
        let pending =
            sqlx::query("SELECT request FROM operations WHERE deploy = $1 AND ended IS NULL")
                .bind(deploy.as_str().to_owned())
                .fetch_all(&mut **tx)
                .await?;
        let mut needed = BTreeSet::new();
        for row in &pending {
            // One that cannot be read fails, and needs nothing.
            if let Ok(Request::Config { version, .. }) = Columns(row).json("request") {
                needed.insert(version);
            }
        }
        let unused = sqlx::query(
            "SELECT version FROM configs WHERE deploy = $1 \
             AND version < (SELECT MAX(m.version) FROM configs m WHERE m.deploy = $1) \
             AND version <> (SELECT d.config_version FROM deploys d WHERE d.id = $1) \
             AND version NOT IN (SELECT r.config_version FROM releases r WHERE r.deploy = $1 \
                 AND (r.number > (SELECT MAX(n.number) FROM releases n WHERE n.deploy = $1) - $2 \
                 OR r.number = (SELECT COALESCE(c.current_release, 0) FROM deploys c \
                     WHERE c.id = $1)))",
        )
        .bind(deploy.as_str().to_owned())
        .bind(i64::from(*keep))
        .fetch_all(&mut **tx)
        .await?;
        for row in &unused {
            let version = Columns(row).u32("version")?;
            if !needed.contains(&version) {
                sqlx::query("DELETE FROM configs WHERE deploy = $1 AND version = $2")
                    .bind(deploy.as_str().to_owned())
                    .bind(i64::from(version))
                    .execute(&mut **tx)
                    .await?;
            }
        }
        Ok(())
    }

    /// Makes an earlier version the newest again.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]: there is no such version.
    pub async fn set_config_head(&self, deploy: &DeployId, version: u32) -> Result<(), Error> {
        let mut write = self.write().await?;
        let before = self.row_to_change(&mut write.tx, deploy).await?;
        self.config_in(&mut write.tx, deploy, Some(version)).await?;
        sqlx::query("UPDATE deploys SET config_version = $1 WHERE id = $2")
            .bind(i64::from(version))
            .bind(deploy.as_str().to_owned())
            .execute(&mut *write.tx)
            .await?;
        let row = self.seal_row(&mut write.tx, deploy, &before).await?;
        self.commit_row(write, deploy, &before.path, row).await
    }
}
