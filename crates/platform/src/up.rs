//! `tolv up`: one codebase, built, released, run and routed in the foreground.
//!
//! [`up`] returns when everything is stopped. It prints nothing: what there is to see goes out as
//! [`Event`]s, in order. A slow reader of them holds up nothing but the reading: processes write
//! to the deploy's log.
//!
//! # Invariants
//!
//! * Nothing starts before the release phase succeeded.
//! * A build, release phase or rollout that fails after the first one leaves what runs as it is.
//! * Whatever way `up` ends, no process is left.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tolv_build::{Built, Source};
use tolv_logs::Line;
use tolv_model::dotenv;
use tolv_model::env::{Env, EnvError};
use tolv_model::formation::Formation;
use tolv_model::name::{AppName, Deploy, DeployName, ProcessName, ProcessType};
use tolv_model::release::{Release, ReleaseNumber};
use tolv_router::Router;
use tolv_run::{Local, OneOff, Target};
use tolv_sandbox::{Cancel, Choice, Level, Limits, Machine, Spawner};

use crate::access;
use crate::error::Error;
use crate::home::Home;
use crate::listen::{ListenError, listen};
use crate::routes::{Hosts, Routes, Web, routed};
use crate::watch::Watch;

/// For requests in flight when everything stops; then they are cut.
const ROUTER_GRACE: Duration = Duration::from_secs(30);
/// Lines that are handed on together; fewer than any channel here has room for.
const AT_ONCE: usize = 256;
/// No line for this long, and what was waiting for the lines is said.
const QUIET: Duration = Duration::from_millis(15);
/// It is said after this long, whatever comes.
const LATEST: Duration = Duration::from_millis(200);
/// Between two looks at whether a build that waits for a slow reader is cancelled.
const CANCEL_TICK: Duration = Duration::from_millis(50);

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The codebase.
    pub dir: PathBuf,
    /// The state folder.
    pub home: PathBuf,
    /// Quantities that win over app.json's.
    pub formation: Option<Formation>,
    /// Where to listen; the first free port from 8080 on without it.
    pub listen: Option<SocketAddr>,
    /// The file of config variables; `.env` in the codebase, where there is one, without it.
    pub env_file: Option<PathBuf>,
    /// Build and replace at every change.
    pub watch: bool,
    /// How much to isolate.
    pub sandbox: Choice,
    /// What a build may know of this machine.
    pub host: tolv_build::Host,
}

/// What there is to see, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// The build's output.
    Build(tolv_build::Event),
    /// A line of a process, the router or the platform.
    Line(Line),
    /// A release is up, at this URL where it has a web process.
    Ready {
        /// `http://<app>.localhost:<port>`.
        url: Option<String>,
        /// Which release.
        release: ReleaseNumber,
    },
    /// Something went wrong that does not end `up`: the text of the error, whole.
    Failed(String),
}

/// How `up` is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Go on.
    No,
    /// Stop everything in order.
    Gracefully,
    /// Kill everything.
    Now,
}

/// Builds, releases and runs the codebase until `stop` says otherwise.
///
/// # Errors
///
/// One of [`Error`]'s, when the first release does not come up. A later one that does not is an
/// [`Event::Failed`], and the one before it goes on.
pub async fn up(
    options: Options,
    events: mpsc::Sender<Event>,
    mut stop: watch::Receiver<Stop>,
) -> Result<(), Error> {
    let dir = folder(&options.dir)?;
    let mut home = Home::open(&options.home)?;
    let (config, ignored) = config(&dir, options.env_file.as_deref())?;
    let app = app_name(&dir);
    let spawner = Spawner::start(&options.host.program, &["spawner"])?;
    let machine = Machine::probe(&spawner)?;
    let (level, missing) = machine.choose(options.sandbox)?;
    let mut watch = match options.watch {
        true => Some(Watch::start(&dir, home.root())?),
        false => None,
    };
    let listener = listen(options.listen).await?;
    let address = listener
        .local_addr()
        .map_err(|source| ListenError::Asked { address: SocketAddr::from(([0; 4], 0)), source })?;
    let url = format!("http://{app}.localhost:{}", address.port());
    home.sign(&format!("pid {}, {url}", std::process::id()))?;

    let mut tasks = JoinSet::new();
    let traffic = Arc::default();
    let (router, access) = access::router(Arc::clone(&traffic));
    tasks.spawn({
        let router = router.clone();
        async move { router.serve(listener).await }
    });
    let mut settings = tolv_run::Settings::new(spawner.clone(), level, home.root().join("logs"));
    settings.search_path = options.host.search_path.to_string_lossy().into_owned();
    let hosts = Hosts::new(router.clone(), traffic);
    let (engine, lines, routes) = routed(settings, hosts, format!("{app}.localhost"), true)?;
    let (after, waiting) = mpsc::channel(1);
    tasks.spawn(forward(lines, waiting, events.clone()));
    tasks.spawn({
        let engine = engine.clone();
        access.run(move |requests| {
            let lines: Vec<_> = requests.into_iter().map(|request| request.line).collect();
            engine.say(&lines);
            std::future::ready(())
        })
    });
    tasks.spawn(routes.clone().follow());

    let mut stage = Stage {
        deploy: Deploy { app, name: DeployName::local() },
        dir,
        home: home.root().to_owned(),
        host: options.host,
        asked: options.formation,
        config,
        spawner,
        level,
        engine,
        routes,
        events: events.clone(),
        after,
        url,
        number: ReleaseNumber(0),
        current: None,
    };
    let notice = match level {
        Level::Strict => None,
        other => Some(format!("Sandbox level {other}: {}", missing.join("; "))),
    };
    for notice in notice.into_iter().chain(ignored) {
        events.send(Event::Build(tolv_build::Event::Warning(notice))).await.ok();
    }
    let outcome = stage.run(&mut watch, &mut stop).await;
    stage.end(&router, &mut stop).await;
    drop(stage);
    drop(events);
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    outcome
}

/// Everything between a change of the codebase and its processes.
struct Stage {
    deploy: Deploy,
    dir: PathBuf,
    home: PathBuf,
    host: tolv_build::Host,
    asked: Option<Formation>,
    config: Env,
    spawner: Spawner,
    level: Level,
    engine: Local,
    routes: Routes,
    events: mpsc::Sender<Event>,
    /// For events that belong after the lines that led to them.
    after: mpsc::Sender<Event>,
    url: String,
    number: ReleaseNumber,
    /// The release that runs.
    current: Option<Arc<Release>>,
}

impl Stage {
    /// Brings the first release up, then each change's, until `stop`.
    async fn run(
        &mut self,
        watch: &mut Option<Watch>,
        stop: &mut watch::Receiver<Stop>,
    ) -> Result<(), Error> {
        if !self.until(stop).await? {
            return Ok(());
        }
        loop {
            let changed = async {
                match watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stopped(stop, Stop::Gracefully) => return Ok(()),
                changed = changed => changed?,
            }
            match self.until(stop).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) => self.tell(Event::Failed(chain(&error)), stop).await,
            }
        }
    }

    /// One pass build → release → run; `false` when `stop` came first.
    async fn until(&mut self, stop: &mut watch::Receiver<Stop>) -> Result<bool, Error> {
        let cancel = Cancel::new().map_err(Error::System)?;
        let mut build = self.build(cancel.clone());
        let built = tokio::select! {
            built = build.join_next() => built,
            () = stopped(stop, Stop::Gracefully) => {
                cancel.cancel();
                // The build ends by itself, and cleans up after itself.
                while build.join_next().await.is_some() {}
                return Ok(false);
            }
        };
        let built = match built {
            Some(Ok(built)) => built?,
            Some(Err(_)) | None => return Err(tolv_build::Error::Cancelled.into()),
        };
        let release = self.release(&built)?;
        if self.current.as_ref().is_some_and(|current| same(current, &release)) {
            return Ok(true);
        }
        let target = self.target(&built, &release);
        tokio::select! {
            done = self.bring_up(target) => done?,
            () = stopped(stop, Stop::Gracefully) => return Ok(false),
        }
        let web = release.formation.0.get(&ProcessType::web()).is_some_and(|&n| n > 0);
        let ready = Event::Ready { url: web.then(|| self.url.clone()), release: release.number };
        self.current = Some(release);
        self.tell(ready, stop).await;
        Ok(true)
    }

    /// Sends an event, unless `stop` comes before a slow reader has taken it.
    async fn tell(&self, event: Event, stop: &mut watch::Receiver<Stop>) {
        tokio::select! {
            _ = self.after.send(event) => {}
            () = stopped(stop, Stop::Gracefully) => {}
        }
    }

    /// Starts the build on a thread of its own: it blocks.
    fn build(&self, cancel: Cancel) -> JoinSet<Result<Built, tolv_build::Error>> {
        let request = tolv_build::Request {
            source: Source::WorkingTree { dir: self.dir.clone() },
            home: self.home.clone(),
            spawner: self.spawner.clone(),
            level: self.level,
            host: self.host.clone(),
            caps: tolv_build::Caps::default(),
            cancel,
        };
        let events = self.events.clone();
        let mut set = JoinSet::new();
        set.spawn_blocking(move || {
            let runtime = tokio::runtime::Handle::current();
            tolv_build::build(&request, &mut |event| {
                // A slow reader slows the build, and a cancelled one waits for nobody.
                let mut event = Event::Build(event);
                while !request.cancel.is_cancelled() {
                    match runtime.block_on(events.send_timeout(event, CANCEL_TICK)) {
                        Err(mpsc::error::SendTimeoutError::Timeout(back)) => event = back,
                        Ok(()) | Err(mpsc::error::SendTimeoutError::Closed(_)) => break,
                    }
                }
            })
        });
        set
    }

    /// The next release: the slug with the deploy's config and formation.
    fn release(&mut self, built: &Built) -> Result<Arc<Release>, Error> {
        let types = &built.manifest.process_types;
        if let Some(unknown) =
            self.asked.iter().flat_map(|f| f.0.keys()).find(|kind| !types.contains_key(kind))
        {
            let known: Vec<_> = types.keys().map(|kind| format!("`{kind}`")).collect();
            return Err(Error::UnknownType { unknown: unknown.clone(), known: known.join(", ") });
        }
        let mut formation = Formation::first(types.keys()).with(&built.app_json.formation());
        formation.0.retain(|kind, _| types.contains_key(kind) && !kind.is_release());
        if let Some(asked) = &self.asked {
            formation = formation.with(asked);
        }
        Ok(Arc::new(Release {
            deploy: self.deploy.clone(),
            number: ReleaseNumber(self.number.0 + 1),
            slug: built.slug,
            commit: built.commit.clone(),
            config: self.config.clone(),
            process_types: types.clone(),
            formation,
        }))
    }

    fn target(&self, built: &Built, release: &Arc<Release>) -> Target {
        Target {
            release: Arc::clone(release),
            mounts: built.mounts.clone(),
            slug_env: built.manifest.env.clone(),
            slug_path: built.manifest.path.clone(),
            checks: built.app_json.checks(),
            limits: Limits::default(),
        }
    }

    /// The release phase, then the rollout.
    async fn bring_up(&mut self, target: Target) -> Result<(), Error> {
        let release = Arc::clone(&target.release);
        self.number = release.number;
        let created = format!(
            "Release {} created: slug {}",
            release.number,
            tolv_model::slug::short(&release.slug.0)
        );
        self.engine.say(&[Line::tolv("release", created).of_release(release.number.0)]);
        if let Some(command) = release.process_types.get(&ProcessType::release()) {
            let name = ProcessName { process_type: ProcessType::release(), number: 1 };
            let one_off = OneOff { target: target.clone(), name, command: command.clone() };
            let exit = self.engine.run_once(one_off).await?;
            if !exit.is_success() {
                return Err(Error::ReleasePhase { exit, command: command.clone() });
            }
        }
        let web = release.formation.0.get(&ProcessType::web()).is_some_and(|&n| n > 0);
        self.routes.set_web(if web { Web::Wanted } else { Web::None });
        self.engine.converge(target).await?;
        Ok(())
    }

    /// Lets the requests in flight finish, then stops every process; kills on [`Stop::Now`].
    async fn end(&self, router: &Router, stop: &mut watch::Receiver<Stop>) {
        let orderly = async {
            let cut = router.drain(ROUTER_GRACE).await.cut;
            if cut > 0 {
                let seconds = ROUTER_GRACE.as_secs();
                let text = format!("Cut {cut} requests that were not done after {seconds} seconds");
                self.engine.say(&[Line::tolv("router", text)]);
            }
            self.engine.stop().await;
        };
        tokio::select! {
            () = orderly => {}
            () = stopped(stop, Stop::Now) => {
                self.engine.kill();
                self.engine.stop().await;
            }
        }
    }
}

/// Resolves once `stop` is at least `level`; never when nobody can say so any more.
async fn stopped(stop: &mut watch::Receiver<Stop>, level: Stop) {
    if stop.wait_for(|now| *now >= level).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Whether a rollout from one to the other would change nothing.
fn same(current: &Release, next: &Release) -> bool {
    current.slug == next.slug
        && current.config == next.config
        && current.formation == next.formation
}

/// Hands lines on, and events that belong after the lines that led to them: such an event goes
/// out once no line has come for a moment.
async fn forward(
    mut lines: mpsc::Receiver<Line>,
    mut after: mpsc::Receiver<Event>,
    events: mpsc::Sender<Event>,
) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            count = lines.recv_many(&mut batch, AT_ONCE) => match count {
                0 => return,
                _ => pass(&mut batch, &events).await,
            },
            Some(event) = after.recv() => {
                let end = Instant::now() + LATEST;
                while Instant::now() < end
                    && let Ok(1..) = timeout(QUIET, lines.recv_many(&mut batch, AT_ONCE)).await
                {
                    pass(&mut batch, &events).await;
                }
                events.send(event).await.ok();
            }
        }
    }
}

/// Waits for room once for all of them.
async fn pass(batch: &mut Vec<Line>, events: &mpsc::Sender<Event>) {
    match events.reserve_many(batch.len()).await {
        Ok(room) => {
            for (place, line) in room.zip(batch.drain(..)) {
                place.send(Event::Line(line));
            }
        }
        // Nobody reads any more.
        Err(_) => batch.clear(),
    }
}

fn folder(dir: &Path) -> Result<PathBuf, Error> {
    let error = |source| Error::Dir { path: dir.to_owned(), source };
    let path = dir.canonicalize().map_err(error)?;
    fs::read_dir(&path).map_err(error)?;
    Ok(path)
}

/// The app's name: the codebase's folder's, made to fit.
fn app_name(dir: &Path) -> AppName {
    AppName::from_text(&dir.file_name().unwrap_or_default().to_string_lossy())
}

/// The deploy's config, from the file named or from `.env` where there is one; and what in it is
/// passed over. Foreman's files often set `PORT`: an app of theirs runs here unchanged.
fn config(dir: &Path, file: Option<&Path>) -> Result<(Env, Vec<String>), Error> {
    let path = file.map_or_else(|| dir.join(".env"), Path::to_owned);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if file.is_none() && error.kind() == io::ErrorKind::NotFound => {
            return Ok((Env::default(), Vec::new()));
        }
        Err(source) => return Err(Error::EnvFile { path, source }),
    };
    let parsed = dotenv::parse(&text)
        .map_err(|error| Error::EnvSyntax(Box::new(error.named(path.display().to_string()))))?;
    let (mut config, mut ignored) = (Env::default(), Vec::new());
    for (name, value) in parsed {
        match config.set_config(name, value) {
            Ok(()) => {}
            Err(EnvError::Reserved(name)) => ignored.push(format!(
                "`{name}` in `{}` has no effect: the platform sets it",
                path.display()
            )),
            Err(error) => return Err(Error::Config(error)),
        }
    }
    Ok((config, ignored))
}

/// An error and all its sources on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
