//! One operation, carried out: build, append the release, roll it out, settle.
//!
//! Every step looks first at what is recorded already, so that an operation that was cut off is
//! gone on with where it was: a slug that was built is not built again, a release that was
//! appended is not appended again, a rollout that is done changes nothing.

mod build;
mod change;
mod root;
mod tell;

use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tolv_build::Source;
use tolv_model::formation::Formation;
use tolv_model::ledger::Reason;
use tolv_model::name::{ProcessName, ProcessType};
use tolv_model::operation::{Outcome, Request, State};
use tolv_model::release::ReleaseNumber;
use tolv_model::size::{Sizes, show_bytes};
use tolv_model::slug::{SlugId, short};
use tolv_run::{OneOff, Target};
use tolv_store::{Deploy, NewRelease, Operation, Release};

use super::controller::{After, Controller, is_passing};
use super::error::{Error, Kind, chain};
use super::logs::Listener;
use super::output::Output;
use super::platform::{Platform, blocking, output_key};
use super::routes::Web;

/// Processes that a line names.
const MAX_LISTED: usize = 20;

pub(super) struct Carry<'a> {
    pub(super) platform: &'a Platform,
    pub(super) controller: &'a Controller,
    pub(super) deploy: Deploy,
    pub(super) operation: Operation,
    pub(super) output: &'a Arc<Output>,
    pub(super) cancel: &'a CancellationToken,
}

/// What is to be released.
struct Next {
    slug: SlugId,
    commit: Option<String>,
    config_version: u32,
    reason: Reason,
    /// The branch that moves to the commit.
    branch: Option<String>,
    /// The sizes of its processes.
    sizes: Sizes,
    /// What the operator wants from here on, once this has succeeded.
    wanted: Wanted,
}

/// What the operator wants of a deploy, where that changes with a release.
#[derive(Default)]
struct Wanted {
    formation: Option<Formation>,
    sizes: Option<Sizes>,
}

/// What app.json asks for and the formation has no room for, in words.
fn cut_memory(declared: &Sizes, given: &Sizes) -> Vec<String> {
    let cut = declared.0.iter().filter_map(|(kind, size)| {
        let (asked, given) = (size.memory?, given.of(kind).memory?);
        let (shown, given_shown) = (show_bytes(asked), show_bytes(given));
        (given < asked).then(|| {
            format!(
                "{kind}: memory {shown} in app.json: it has {given_shown} here, so that the \
                 formation fits (tolv limits, tolv scale)"
            )
        })
    });
    cut.collect()
}

impl Carry<'_> {
    /// Carries it out to its end, whatever that is.
    ///
    /// # Errors
    ///
    /// Only those that leave it to be done again: the database is away, the platform ends.
    pub(super) async fn out(&self) -> Result<After, Error> {
        let store = &self.platform.0.store;
        if !store.begin(&self.operation.id, Timestamp::now()).await? {
            // It was cancelled, or superseded, in the moment before.
            self.platform.0.outputs.over(&self.operation.id, self.operation.state);
            return Ok(After::GoOn);
        }
        match self.request().await {
            Ok(Some(after)) => Ok(after),
            Ok(None) => self.end(State::Succeeded, None).await,
            Err(error) if matches!(error, Error::Stopping) => Err(error),
            Err(error) if error.kind() == Kind::Unavailable => Err(error),
            Err(Error::Cancelled) => self.end(State::Cancelled, None).await,
            Err(error) => {
                if let Error::Store(error) = &error {
                    store.note_failure(error);
                }
                let text = error.chain();
                self.warn(&text);
                if let Some(hint) = error.hint() {
                    self.warn(&hint);
                }
                self.tell_current().await;
                self.output.fail(Arc::new(error));
                self.end(State::Failed, Some(&text)).await
            }
        }
    }

    /// Does it; nothing where it is to be ended as succeeded.
    async fn request(&self) -> Result<Option<After>, Error> {
        match &self.operation.request {
            Request::Deploy { commit, branch, old, .. } => {
                // The one before this in the queue may have moved it.
                if let (Some(branch), Some(old)) = (branch, old) {
                    let path = &self.deploy.name;
                    self.platform.check_branch(path, branch, old, commit).await?;
                }
                let root = self.platform.0.store.app(&self.deploy.name.app).await?.root;
                if let Some(root) = &root
                    && self.is_deployed(root, commit, branch.as_deref()).await?
                {
                    return Ok(None);
                }
                self.starts().await?;
                let source = Source::Pushed {
                    repository: self.platform.0.repos.repository(&self.deploy.name.app),
                    commit: commit.clone(),
                    root,
                };
                let (slug, commit) = self.built(source).await?;
                // The build may have set defaults.
                let config_version = self.now().await?.config_version;
                let sizes = self.sizes(&slug).await?;
                let next = Next {
                    slug,
                    commit,
                    config_version,
                    reason: Reason::Deploy,
                    branch: branch.clone(),
                    sizes,
                    wanted: Wanted::default(),
                };
                self.release(next).await
            }
            Request::Up => self.up().await,
            Request::Promote { from, release, .. } => {
                self.starts().await?;
                let source = self.platform.0.store.deploy(from).await?;
                let row = self.platform.proven(&source, *release).await?.row;
                let runtime = self.platform.runtime(&self.deploy.app, &row.slug).await?;
                let config_version = self.prepare(&runtime.env).await?;
                self.tell_build_config(&runtime.build_config, from).await?;
                let next = Next {
                    slug: row.slug,
                    commit: row.commit,
                    config_version,
                    reason: Reason::Promote { from: from.to_string(), release: *release },
                    branch: None,
                    sizes: self.platform.fit(&runtime, &self.deploy.sizes, &self.deploy.formation),
                    wanted: Wanted::default(),
                };
                self.release(next).await
            }
            Request::Rollback { to, .. } => {
                self.starts().await?;
                let row = self.platform.proven(&self.deploy, *to).await?.row;
                let runtime = self.platform.runtime(&self.deploy.app, &row.slug).await?;
                let formation = &self.deploy.formation;
                let declared = self.platform.fit(&runtime, &Sizes::default(), formation);
                let asked = row.sizes.beyond(&declared);
                let next = Next {
                    slug: row.slug,
                    commit: row.commit,
                    config_version: row.config_version,
                    reason: Reason::Rollback { to: *to },
                    branch: None,
                    sizes: row.sizes,
                    wanted: Wanted { sizes: Some(asked), ..Wanted::default() },
                };
                self.release(next).await
            }
            Request::Retry { release, branch, .. } => {
                self.starts().await?;
                let row = self.platform.proven(&self.deploy, *release).await?.row;
                let next = Next {
                    slug: row.slug,
                    commit: row.commit,
                    config_version: self.now().await?.config_version,
                    reason: Reason::Retry { of: *release },
                    branch: branch.clone(),
                    sizes: self.sizes(&row.slug).await?,
                    wanted: Wanted::default(),
                };
                self.release(next).await
            }
            Request::Config { version, set, unset, .. } => self.config(*version, set, unset).await,
            Request::Scale { formation, sizes } => self.scale(formation, sizes).await,
            Request::Limits { sizes, reset } => self.limits(sizes, reset).await,
            Request::Restart { processes } => self.restart(processes).await,
            Request::Stop => self.stop(true).await,
            Request::Start => self.stop(false).await,
            Request::Destroy => self.destroy().await.map(Some),
            // It is never queued.
            Request::Push => Err(Error::Cancelled),
        }
    }

    /// The sizes of a slug's processes in this deploy: app.json's, cut so that they fit, and the
    /// operator's over them.
    async fn sizes(&self, slug: &SlugId) -> Result<Sizes, Error> {
        let runtime = self.platform.runtime(&self.deploy.app, slug).await?;
        let deploy = self.now().await?;
        Ok(self.platform.fit(&runtime, &deploy.sizes, &deploy.formation))
    }

    /// The deploy as it is now.
    async fn now(&self) -> Result<Deploy, Error> {
        Ok(self.platform.0.store.deploy_by_id(&self.deploy.id).await?)
    }

    /// A deploy that was stopped starts with a new slug, which is told.
    async fn starts(&self) -> Result<(), Error> {
        if self.deploy.stopped {
            let text = format!("{} was stopped: this release starts it", self.deploy.name);
            self.head(&text);
            self.tell(text);
            self.platform.0.store.set_stopped(&self.deploy.id, false).await?;
        }
        Ok(())
    }

    /// Appends the release where that is not done yet, runs it, and records how that went.
    async fn release(&self, next: Next) -> Result<Option<After>, Error> {
        let store = &self.platform.0.store;
        let release = match self.operation.release {
            Some(number) => store.release(&self.deploy.id, number).await?,
            None => self.append(&next).await?,
        };
        let number = release.row.number;
        let outcome = self.run(&release, next.wanted.formation.as_ref()).await;
        match outcome {
            Ok(()) => {}
            Err(error) if matches!(error, Error::Stopping) => return Err(error),
            Err(error) if error.kind() == Kind::Unavailable => return Err(error),
            Err(error) => {
                let text = error.chain();
                let hint = error.hint();
                self.tell(format!("Release {number} failed: {text}"));
                self.warn(&format!("Release {number} failed: {text}"));
                if let Some(hint) = hint {
                    self.warn(&hint);
                }
                self.tell_current().await;
                let state = match error {
                    Error::Cancelled => State::Cancelled,
                    _ => State::Failed,
                };
                self.output.fail(Arc::new(error));
                return self.settle(number, Err((state, text))).await;
            }
        }
        let mut not_moved = None;
        if let (Some(branch), Some(commit)) = (&next.branch, &next.commit) {
            let (repos, path) = (self.platform.0.repos.clone(), self.deploy.name.clone());
            let (name, commit) = (branch.clone(), commit.clone());
            // The release runs: it has not failed, whatever git says.
            if let Err(error) = blocking(move || repos.move_branch(&path, &name, &commit)).await {
                let text = format!("The branch {branch} is not moved: {}", chain(&error));
                self.warn(&text);
                self.tell(text.clone());
                not_moved = Some(text);
            }
            if self.deploy.branch.is_none() {
                store.set_branch(&self.deploy.id, branch).await?;
            }
        }
        if let Some(sizes) = &next.wanted.sizes {
            store.set_sizes(&self.deploy.id, sizes).await?;
        }
        if let Some(formation) = &next.wanted.formation {
            store.set_formation(&self.deploy.id, formation).await?;
            // The release has succeeded, also where this is not waited for to the end.
            self.until_ended(|kind| formation.0.get(kind) == Some(&0)).await.ok();
        }
        let url = self.platform.url_of(&self.deploy);
        let has_web = release.row.process_types.contains_key(&ProcessType::web());
        let last = match (self.now().await?.stopped, has_web) {
            (true, _) => {
                let name = &self.deploy.name;
                format!("-----> Release {number} is recorded; {name} is stopped: tolv start")
            }
            (false, true) => format!("-----> Release {number} is up at {url}"),
            (false, false) => format!("-----> Release {number} is up (no web process)"),
        };
        let after = self.settle(number, Ok((last, not_moved))).await;
        self.platform.collect_soon(&self.deploy.id);
        after
    }

    async fn append(&self, next: &Next) -> Result<Release, Error> {
        let runtime = self.platform.runtime(&self.deploy.app, &next.slug).await?;
        let schedules: Vec<_> = runtime
            .cron
            .iter()
            .map(|job| format!("{} ({}, {})", job.name, job.schedule, job.zone.as_str()))
            .collect();
        let reason = next.reason.clone();
        let release = self
            .platform
            .0
            .store
            .append(&NewRelease {
                operation: self.operation.id.clone(),
                deploy: self.deploy.id.clone(),
                slug: next.slug,
                commit: next.commit.clone(),
                config_version: next.config_version,
                process_types: runtime.process_types,
                sizes: next.sizes.clone(),
                reason,
                actor: self.operation.actor.clone(),
                now: Timestamp::now(),
            })
            .await?;
        let number = release.row.number;
        let (reason, actor) = (&release.row.reason, &self.operation.actor);
        self.tell(format!("Release {number} created by {actor}: {reason}"));
        self.head(format!("Release {number}: {reason}, slug {}", short(&next.slug.0)));
        if !next.sizes.is_empty() {
            self.head(format!("Limits: {}", next.sizes));
        }
        for cut in cut_memory(&runtime.sizes, &next.sizes) {
            self.warn(&cut);
        }
        for over in self.platform.0.shares.beyond(&next.sizes) {
            self.warn(&format!("{over} (TOLV_MAX_SIZE)"));
        }
        if !schedules.is_empty() {
            self.head(format!("Schedules: {}", schedules.join(", ")));
        }
        Ok(release)
    }

    /// The run stage: the release phase, then the rollout.
    async fn run(&self, release: &Release, asked: Option<&Formation>) -> Result<(), Error> {
        let deploy = self.now().await?;
        let target = self.platform.target(&deploy, release, asked).await?;
        self.platform.0.quota.check_target(&deploy.id, &target)?;
        if let Some(command) = target.release.process_types.get(&ProcessType::release()) {
            match self.operation.request.skips_release_phase() {
                true => {
                    self.head(format!("Release phase left out: {command}"));
                    self.tell(format!("Release phase left out: {command}"));
                }
                false => self.release_phase(&target, command).await?,
            }
        }
        let idle = self.idle(&deploy, release, &target, asked).await?;
        self.converge(target, &release.row.sizes).await?;
        if let Some(kind) = idle.first() {
            self.head(format!(
                "Not started: {} (to start one: tolv scale {kind}=1)",
                listed(&idle)
            ));
        }
        Ok(())
    }

    /// The types of a new slug of which nothing runs because nobody has given a quantity.
    async fn idle(
        &self,
        deploy: &Deploy,
        release: &Release,
        target: &Target,
        asked: Option<&Formation>,
    ) -> Result<Vec<ProcessType>, Error> {
        let brings_slug = matches!(
            self.operation.request,
            Request::Deploy { .. } | Request::Promote { .. } | Request::Retry { .. }
        );
        if !brings_slug || deploy.stopped {
            return Ok(Vec::new());
        }
        let declared = self.platform.runtime(&deploy.app, &release.row.slug).await?.formation;
        let said = declared.with(asked.unwrap_or(&deploy.formation));
        let formation = target.release.formation.0.iter();
        let idle =
            formation.filter(|(kind, quantity)| **quantity == 0 && !said.0.contains_key(*kind));
        Ok(idle.map(|(kind, _)| kind.clone()).collect())
    }

    /// Runs the release phase to its end; given up, it comes back once the process is gone, so
    /// that the next one never runs beside it.
    async fn release_phase(&self, target: &Target, command: &str) -> Result<(), Error> {
        self.head(format!("Release phase: {command}"));
        let name = ProcessName { process_type: ProcessType::release(), number: 1 };
        let one_off =
            OneOff { target: target.clone(), name, command: command.to_owned(), limit: None };
        let stop = CancellationToken::new();
        let limits = target.limits.of(&one_off.name.process_type);
        let _reservation = self.platform.0.quota.reserve(&self.deploy.id, target, limits)?;
        let listener = Listener::begin(self.controller, &one_off.name).await?;
        let phase = self.controller.engine.run_once_until(one_off, &stop);
        // What it says goes to whoever waits for the operation too.
        let phase = listener.until(phase, |line| {
            // `up` shows the log, which has these lines already.
            if self.operation.request != Request::Up {
                self.output.pass_on([b"       ", line.text.as_slice()].concat());
            }
        });
        tokio::pin!(phase);
        let exit = tokio::select! {
            exit = &mut phase => exit?,
            stopped = self.stopped() => {
                stop.cancel();
                phase.await.ok();
                return Err(stopped);
            }
        };
        match exit.is_success() {
            true => Ok(()),
            false => Err(Error::ReleasePhase { exit, command: command.to_owned() }),
        }
    }

    async fn converge(&self, target: Target, sizes: &Sizes) -> Result<(), Error> {
        let formation = &target.release.formation;
        // Nothing of a stopped deploy starts.
        if formation.processes().next().is_some() && !self.now().await?.stopped {
            self.head(format!("Starting {}", formation.running()));
        }
        // Only the first has nobody to answer meanwhile.
        let before = self.controller.routes.web();
        self.controller.route(&target);
        let converging = async {
            // Of what was stopped, the old never run beside the new.
            let is_wanted = |kind: &ProcessType| formation.0.get(kind).is_some_and(|&n| n > 0);
            self.ending(is_wanted).await;
            self.tell_waits(self.controller.engine.converge(target.clone())).await
        };
        let converged = tokio::select! {
            converged = converging => converged,
            stopped = self.stopped() => {
                // The next platform goes on with what it stopped.
                if !is_passing(&stopped) {
                    self.controller.routes.set_web(before);
                }
                return Err(stopped);
            }
        };
        if converged.is_err() {
            // Nothing of it will come up: no request waits for that.
            let is_first = self.deploy.current.is_none();
            self.controller.routes.set_web(if is_first { Web::Broken } else { before });
        }
        self.rolled(converged.map(drop))?;
        self.controller.keep(self.platform, &target, sizes);
        Ok(())
    }

    /// Waits until the last processes of these types have ended, where they were all told to stop, and
    /// names them meanwhile.
    async fn ending(&self, is_meant: impl Fn(&ProcessType) -> bool) {
        let tell = |ending: &[ProcessName]| {
            self.head(format!("Waiting for the end of {}", listed(ending)));
        };
        self.controller.engine.until_ended(is_meant, tell).await;
    }

    /// The same, to the end of an operation.
    async fn until_ended(&self, is_meant: impl Fn(&ProcessType) -> bool) -> Result<(), Error> {
        tokio::select! {
            () = self.ending(is_meant) => Ok(()),
            stopped = self.stopped() => Err(stopped),
        }
    }

    /// Shows the last lines of the process that made a rollout fail, and what was stopped with it.
    fn rolled(&self, rolled: Result<(), tolv_run::Error>) -> Result<(), Error> {
        if let Err(tolv_run::Error::Rollout { culprit, .. }) = &rolled
            && !culprit.last_lines.is_empty()
            && !self.ends_up()
        {
            self.head(format!("The last lines of {}", culprit.process));
            for line in &culprit.last_lines {
                self.output.say([b"       ", line.text.as_slice()].concat());
            }
        }
        if let Err(tolv_run::Error::Rollout { culprit, undone, .. }) = &rolled
            && !undone.is_empty()
        {
            let text =
                format!("Stopped again, because {} failed: {}", culprit.process, listed(undone));
            self.warn(&text);
            self.tell(text);
        }
        Ok(rolled?)
    }

    /// Why it is not to be gone on with, once that is so.
    async fn stopped(&self) -> Error {
        tokio::select! {
            () = self.cancel.cancelled() => Error::Cancelled,
            () = self.platform.0.ending.cancelled() => Error::Stopping,
        }
    }

    /// Records how a release turned out: with a last line, which is said once that is so, or how the
    /// operation ended, and why.
    async fn settle(
        &self,
        number: ReleaseNumber,
        turned_out: Result<(String, Option<String>), (State, String)>,
    ) -> Result<Option<After>, Error> {
        let (outcome, state, error, last) = match &turned_out {
            Ok((last, not_moved)) => {
                (Outcome::Succeeded, State::Succeeded, not_moved.as_deref(), Some(last))
            }
            Err((state, why)) => (Outcome::Failed, *state, Some(why.as_str()), None),
        };
        self.keep_output(last.map_or("", String::as_str)).await;
        let (id, deploy) = (&self.operation.id, &self.deploy.id);
        let store = &self.platform.0.store;
        store.settle(id, deploy, number, outcome, state, error, Timestamp::now()).await?;
        if let Some(last) = last {
            self.output.say(last);
        }
        self.platform.0.outputs.over(id, state);
        Ok(Some(After::GoOn))
    }

    async fn end(&self, state: State, error: Option<&str>) -> Result<After, Error> {
        self.keep_output("").await;
        let id = &self.operation.id;
        self.platform.0.store.end(id, state, error, Timestamp::now()).await?;
        self.platform.0.outputs.over(id, state);
        self.platform.forget_soon(&self.deploy.id);
        Ok(After::GoOn)
    }

    /// Before the end is recorded: who asks afterwards finds it, with the last line that is still to be
    /// said.
    async fn keep_output(&self, last: &str) {
        let key = output_key(&self.operation.id);
        let mut text = self.output.text();
        text.extend(last.lines().flat_map(|line| [line.as_bytes(), b"\n"]).flatten());
        let kept = self.platform.keep_output(&self.deploy.id, &key, text).await;
        if let Err(error) = kept {
            self.tell(format!(
                "The output of {} is not kept: {}",
                self.operation.id,
                chain(&error)
            ));
        }
    }
}

/// Names of processes, `web.1, worker.1`, or of types; of very many, the first.
fn listed(names: &[impl ToString]) -> String {
    let shown: Vec<_> = names.iter().take(MAX_LISTED).map(ToString::to_string).collect();
    match names.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
