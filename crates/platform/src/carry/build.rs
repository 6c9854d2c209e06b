//! From the code to a slug: the config that it declares, the build, the record of both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use tolv_build::{BuildConfig, Built, Source, wanted};
use tolv_model::app_json::Variable;
use tolv_model::config::{Change, Config, NewValue};
use tolv_model::env::{Env, EnvName};
use tolv_model::ledger::Reason;
use tolv_model::name::Deploy as DeployPath;
use tolv_model::slug::SlugId;
use tolv_sandbox::Cancel;
use tolv_store::Slug;

use super::{Carry, Next, Wanted};
use crate::build_queue::{Standing, Turn};
use crate::controller::After;
use crate::error::Error;
use crate::platform::blocking;
use crate::requests::known_types;
use crate::tokens::random_hex;

/// Hex digits of a generated secret, as Heroku has them.
const SECRET_BYTES: usize = 32;

impl Carry<'_> {
    /// What a codebase's folder holds now, where that differs from what runs.
    pub(super) async fn up(&self) -> Result<Option<After>, Error> {
        let Some(codebase) = &self.platform.0.options.codebase else {
            // Left behind by an `up` whose state folder is a platform's now.
            return Err(Error::Cancelled);
        };
        self.starts().await?;
        let (slug, commit) = self.built(Source::WorkingTree { dir: codebase.dir.clone() }).await?;
        let runtime = self.platform.runtime(&self.deploy.app, &slug).await?;
        let sizes = self.platform.fit(&runtime, &self.deploy.sizes, &self.deploy.formation);
        let types = runtime.process_types;
        known_types(&types, &codebase.formation, &self.deploy.name)?;
        let config_version = self.now().await?.config_version;
        if let Some(current) = self.deploy.current
            && !self.deploy.stopped
        {
            let row = self.platform.0.store.release(&self.deploy.id, current).await?.row;
            if (row.slug, row.config_version, &row.sizes) == (slug, config_version, &sizes) {
                return Ok(None);
            }
        }
        let reason = Reason::Deploy;
        let wanted = Wanted::default();
        let next = Next { slug, commit, config_version, reason, branch: None, sizes, wanted };
        self.release(next).await
    }

    /// Sets what app.json gives and the deploy has not, and of a codebase what its file says; the
    /// config's version then.
    pub(super) async fn prepare(
        &self,
        declared: &BTreeMap<EnvName, Variable>,
    ) -> Result<u32, Error> {
        let store = &self.platform.0.store;
        let deploy = self.now().await?;
        let config = store.config(&deploy.id, deploy.config_version).await?;
        let codebase = self.platform.0.options.codebase.as_ref();
        let base = match codebase {
            Some(codebase) => codebase.config(&config.vars, declared),
            None => config.vars.clone(),
        };
        let wanted = wanted(declared, &base);
        if !wanted.missing.is_empty() {
            let file = codebase.map(|codebase| codebase.env_file.clone());
            return Err(Error::MissingConfig { names: wanted.missing, file });
        }
        let plain = |value: &[u8]| NewValue { value: value.to_vec(), secret: false, build: false };
        let mut vars: BTreeMap<_, _> =
            base.iter().map(|(name, value)| (name.clone(), plain(value.as_bytes()))).collect();
        for (name, value) in wanted.defaults {
            vars.insert(name, plain(value.as_bytes()));
        }
        for name in wanted.generate {
            let secret = random_hex::<SECRET_BYTES>()?;
            vars.insert(name, NewValue { value: secret.into_bytes(), secret: true, build: false });
        }
        let change = Change::between(&config, vars);
        if change == Change::default() {
            return Ok(deploy.config_version);
        }
        let names = change.set.keys().filter(|name| !base.has(name));
        let names: Vec<_> = names.map(ToString::to_string).collect();
        if !names.is_empty() {
            self.head(format!("Setting {} from app.json", names.join(", ")));
        }
        let changed = store.change_config(&deploy.id, None, &change, None, Timestamp::now());
        Ok(changed.await?.0)
    }

    /// The slug of a source, and its commit: that of an earlier try, or a new build.
    pub(super) async fn built(&self, source: Source) -> Result<(SlugId, Option<String>), Error> {
        let commit = match &source {
            Source::Pushed { commit, .. } => Some(commit.clone()),
            Source::Commit { .. } | Source::WorkingTree { .. } => None,
        };
        if let Some(slug) = self.operation.slug
            && self.platform.prove(&self.deploy.app, slug).await.is_ok()
        {
            return Ok((slug, commit));
        }
        let inner = &self.platform.0;
        // A static site is served by it.
        self.platform.own_program().await?;
        let (declared, host) = (source.clone(), inner.options.host.clone());
        let cancel = cancel()?;
        let app_json = tokio::select! {
            app_json = {
                let cancel = cancel.clone();
                blocking(move || tolv_build::declared(&declared, &host, &cancel))
            } => app_json?,
            stopped = self.stopped() => {
                cancel.cancel();
                return Err(stopped);
            }
        };
        self.prepare(&app_json.env).await?;
        let _turn = self.turn_to_build().await?;
        let began = tokio::time::Instant::now();
        let built = self.build(source).await;
        inner.counters.built(began.elapsed(), built.is_ok());
        let built = built?;
        let slug = Slug {
            id: built.slug,
            app: self.deploy.app.clone(),
            commit: built.commit.clone(),
            built: Timestamp::now(),
            bytes: built.manifest.size(),
        };
        self.platform.copy_slug(&self.deploy.app, built.slug).await?;
        inner.store.set_slug(&self.operation.id, &slug).await?;
        Ok((built.slug, built.commit))
    }

    /// What builds get of a config.
    fn build_config(&self, config: &Config) -> Result<BuildConfig, Error> {
        let mut vars = Env::default();
        for (name, value) in config.of_builds() {
            vars.set(name.clone(), value.as_bytes()).map_err(tolv_store::Error::from)?;
        }
        let digests = self.platform.0.store.build_fingerprints(&self.deploy.app, config);
        Ok(BuildConfig { vars, digests })
    }

    /// Says where a slug of another deploy was built with other config than this one would give it.
    pub(super) async fn tell_build_config(
        &self,
        slug: &BTreeMap<EnvName, String>,
        from: &DeployPath,
    ) -> Result<(), Error> {
        let store = &self.platform.0.store;
        let config = store.config(&self.deploy.id, self.now().await?.config_version).await?;
        let here = store.build_fingerprints(&self.deploy.app, &config);
        let all: BTreeSet<_> = slug.keys().chain(here.keys()).collect();
        let differ = all.into_iter().filter(|name| slug.get(*name) != here.get(*name));
        let names: Vec<_> = differ.map(ToString::to_string).collect();
        if !names.is_empty() {
            self.warn(&format!(
                "the slug was built with the build config of {from}, which differs from that of {} in {}: \
                 it keeps what it was built with",
                self.deploy.name,
                names.join(", ")
            ));
        }
        Ok(())
    }

    /// Waits for a place among the builds, and says what for.
    async fn turn_to_build(&self) -> Result<Turn, Error> {
        let mut turn = self.platform.0.building.join(&self.deploy.app, &self.operation.actor);
        let mut said = None;
        loop {
            let standing = turn.standing();
            let Standing::Waits { building, of_app, ahead } = standing else { return Ok(turn) };
            // Another build may begin and end without any change for this one.
            if said != Some((of_app, ahead)) {
                said = Some((of_app, ahead));
                let builds = |count: usize| match count {
                    1 => "1 build".to_owned(),
                    count => format!("{count} builds"),
                };
                let own = match of_app {
                    0 => String::new(),
                    count => format!(" ({count} of this app)"),
                };
                let place = match ahead {
                    0 => "this one is next".to_owned(),
                    count => format!("{} before this one", builds(count)),
                };
                self.head(format!("Waiting to build: {} running{own}, {place}", builds(building)));
            }
            tokio::select! {
                () = turn.changed() => {}
                stopped = self.stopped() => return Err(stopped),
            }
        }
    }

    async fn build(&self, source: Source) -> Result<Built, Error> {
        let inner = &self.platform.0;
        let cancel = cancel()?;
        let store = &inner.store;
        let config = store.config(&self.deploy.id, self.now().await?.config_version).await?;
        let request = tolv_build::Request {
            source,
            home: self.platform.folder_of(&self.deploy.app),
            toolchains: inner.options.host.toolchains(&inner.home),
            stacks: inner.options.host.stacks(&inner.home),
            spawner: inner.spawner.clone(),
            level: inner.level,
            host: inner.options.host.clone(),
            caps: inner.shares.caps(inner.options.caps, inner.options.min_free),
            cancel: cancel.clone(),
            proofs: inner.prover.proofs().clone(),
            host_services: inner.options.host_services.clone(),
            buildpacks: store.app(&self.deploy.name.app).await?.buildpacks,
            config: self.build_config(&config)?,
        };
        let output = Arc::clone(self.output);
        let build =
            blocking(move || tolv_build::build(&request, &mut |event| output.build(&event)));
        tokio::pin!(build);
        tokio::select! {
            built = &mut build => built,
            stopped = self.stopped() => {
                cancel.cancel();
                // It ends by itself, and cleans up after itself.
                build.await.ok();
                Err(stopped)
            }
        }
    }
}

fn cancel() -> Result<Cancel, Error> {
    Cancel::new().map_err(|source| Error::System { what: "begin a build", source })
}
