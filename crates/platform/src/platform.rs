//! What can be asked of the platform.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tolv_build::GitSandbox;
use tolv_logs::Line;
use tolv_model::config::Change;
use tolv_model::id::{AppId, CronRunId, DeployId, OperationId};
use tolv_model::name::Deploy as DeployPath;
use tolv_model::operation::{Request, State};
use tolv_model::service::HostServices;
use tolv_router::Router;
use tolv_sandbox::{Level, Machine, Spawner};
use tolv_store::blobs::Blobs as BlobStore;
use tolv_store::{DatabaseUrl, Deploy, KeyError, Operation, Releasing, SecretKey, Store};

use super::build_queue::BuildQueue;
use super::controller::{self, Controller};
use super::delay::is_delay;
use super::error::Error;
use super::front::Front;
use super::kept::{Kept, Place};
use super::lease::{Keeper, Ousted, take};
use super::lines::Lines;
use super::metrics::Counters;
use super::options::{Http, Options, Said};
use super::origin::{count_deploys, require_own_database};
use super::output::Outputs;
use super::proof::Prover;
use super::pushes::Pushes;
use super::quota::Quota;
use super::requests::Command;
use super::runs::Runs;
use super::sizing::Shares;
use super::status::{Findings, Probes};
use super::task::Panics;
use crate::access::{self, Access};
use crate::home::Home;
use crate::image::{self, Image};
use crate::listen::listen;
use crate::repo::Repos;
use crate::routes::Hosts;

/// Lines on their way to standard output; a slow reader leaves the rest in the logs.
const LINES: usize = 1024;

/// How long an answer is kept for a request that is sent again.
pub(super) const KEYS: SignedDuration = SignedDuration::from_hours(24);
/// Who asks: a token's name, for the ledger and the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// As it was named when the token was made.
    pub name: String,
}

/// The platform. Clones are the same.
#[derive(Clone)]
pub struct Platform(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) options: Options,
    pub(super) home: PathBuf,
    /// For sockets while the disk of `home` takes none.
    pub(super) aside: Option<PathBuf>,
    /// The database has this version's schema, and is the one of this state folder.
    pub(super) prepared: CancellationToken,
    /// Held until the next platform may have the state folder.
    pub(super) lock: Mutex<Option<Home>>,
    pub(super) began: Instant,
    /// The shims that lived before this platform.
    pub(super) living: Arc<[Arc<tolv_run::Living>]>,
    pub(super) lease: Mutex<Option<Keeper>>,
    pub(super) ousted: Arc<Ousted>,
    pub(super) store: Store,
    pub(super) blobs: BlobStore,
    pub(super) repos: Repos,
    /// This program's own file.
    pub(super) image: Image,
    pub(super) spawner: Spawner,
    pub(super) level: Level,
    /// The services of this machine that processes may reach, where they have networks of their own.
    pub(super) host_services: Option<HostServices>,
    pub(super) findings: Findings,
    pub(super) probes: Probes,
    pub(super) router: Router,
    pub(super) front: Front,
    pub(super) lines_of_deploys: Lines,
    pub(super) hosts: Arc<Hosts>,
    http: SocketAddr,
    /// What the router takes connections from, until the platform ends.
    pub(super) listener: Mutex<Option<Arc<TcpListener>>>,
    pub(super) ports: Arc<tolv_run::Ports>,
    pub(super) outputs: Outputs<OperationId>,
    pub(super) pushes: Pushes,
    pub(super) runs: Runs,
    /// Of runs of schedules.
    pub(super) run_outputs: Outputs<CronRunId>,
    pub(super) building: BuildQueue,
    pub(super) shares: Shares,
    pub(super) quota: Arc<Quota>,
    pub(super) counters: Counters,
    pub(super) prover: Prover,
    /// Rows that were reported as changed outside of the platform.
    pub(super) forged_rows: Mutex<HashSet<String>>,
    pub(super) controllers: Mutex<HashMap<DeployId, Arc<Controller>>>,
    pub(super) lines: mpsc::Sender<Said>,
    pub(super) tasks: TaskTracker,
    pub(super) panics: Panics,
    /// What runs is for the next platform to go on with.
    pub(super) leaving: CancellationToken,
    /// The next platform took over and ended without having been told to.
    pub(super) abandoned: CancellationToken,
    /// Nothing new begins; what runs goes on.
    pub(super) ending: CancellationToken,
    /// No operation begins any more: another platform is about to go on.
    pub(super) holding: watch::Sender<bool>,
    /// Pushes that are on their way.
    pub(super) undecided_pushes: TaskTracker,
    /// No request is in flight any more.
    pub(super) quiet: CancellationToken,
    /// The last of their lines is in the log: what runs is stopped.
    pub(super) drained: CancellationToken,
    pub(super) collecting: tokio::sync::Mutex<()>,
    /// Held while an output is kept.
    pub(super) keeping: tokio::sync::Mutex<()>,
}

/// In the state folder: where files are written beside their places first.
const WRITTEN: [&str; 5] = ["", "anchors", "running", "git/hooks", image::FOLDER];

/// The key in a file; a new one only for a database that was written with none, in a state folder
/// without deploys.
async fn load_key(home: &Path, database: &DatabaseUrl) -> Result<SecretKey, Error> {
    let path = &home.join("secret-key");
    match SecretKey::load(path) {
        Err(KeyError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
        loaded => return Ok(loaded?),
    }
    let key = SecretKey::generate(path)?;
    let store = Store::connect(database, &key)?;
    store.require_reachable().await?;
    if count_deploys(home) > 0 || store.has_key().await? {
        return Err(KeyError::Missing { path: path.to_owned() }.into());
    }
    Ok(key.save(path)?)
}

impl Platform {
    /// Opens the state folder and the database, starts what should run, and
    /// goes on with what was not finished. The receiver has the lines of every process.
    ///
    /// # Errors
    ///
    /// The state folder is held, the key is wrong, the database or the address is not to be had.
    pub async fn start(mut options: Options) -> Result<(Self, mpsc::Receiver<Said>), Error> {
        let mut lock = Home::open(&options.home)?;
        let home = lock.root().to_owned();
        for folder in WRITTEN {
            // What cannot be removed harms nobody.
            tolv_durable::sweep(&home.join(folder)).ok();
        }
        let database = match &options.database {
            Some(database) => database.clone(),
            None => DatabaseUrl::file(&home.join("db.sqlite")),
        };
        let key = match &options.secret_key {
            Some(key) => key.clone(),
            None => load_key(&home, &database).await?,
        };
        let store = Store::connect(&database, &key)?;
        store.anchor_in(home.join("anchors"));
        store.reserve_space_in(&home);
        store.keep_releases(options.keep_releases);
        let (kept, unreadable) = Kept::all(&home, &store)?;
        // What ran here before waits neither for the database nor for disk space.
        // At the first start, a database that is not there is a mistake.
        let may_wait = options.codebase.is_none() && (!kept.is_empty() || store.has_anchors());
        let mut delay = None;
        let mut wait = |error: Error| match may_wait && is_delay(&error) {
            true => {
                delay.get_or_insert(error);
                Ok(())
            }
            false => Err(error),
        };
        let lease = take(&store).await.map(Some).or_else(|error| wait(error).map(|()| None))?;
        let prepared = CancellationToken::new();
        if lease.is_some() {
            let prepare = async {
                if options.codebase.is_none() {
                    require_own_database(&home, &store).await?;
                }
                Ok(store.prepare().await?)
            };
            match prepare.await {
                Ok(()) => prepared.cancel(),
                Err(error) => wait(error)?,
            }
        }
        let folder = home.join("blobs");
        let blobs = match &options.blobs {
            Some(blobs) => BlobStore::open(&blobs.url, &blobs.options)?,
            None => BlobStore::folder(&folder)?,
        };
        let spawner = Spawner::start(&options.image, &["spawner"])?;
        spawner.hide(&home)?;
        let machine = Machine::probe(&spawner, options.network)?;
        let (level, mut missing) = machine.choose(options.sandbox)?;
        let shares = options.sizing.of_this_machine(&machine.cgroups.bounds);
        let beyond = options.sizing.beyond_this_machine(&machine.cgroups.bounds);
        if unreadable > 0 {
            missing.push(format!(
                "what {unreadable} deploys ran before: unreadable below {}; without the database \
                 they do not start",
                home.display()
            ));
        }
        for reason in spawner.bound(shares.budget)? {
            missing.push(format!("no reserve for the platform: {reason}"));
        }
        let own_networks = level == Level::Strict && machine.network.is_none();
        let host_services = own_networks.then(|| options.host_services.clone());
        let git = GitSandbox { spawner: spawner.clone(), level, limits: options.git };
        // What is started of this program comes from there, whatever is at its path from here on.
        let image = Image::at(&home, &options.image, &options.host.program);
        options.host.program = image.path().to_owned();
        let repos = Repos::at(&home.join("git"), git, options.min_free, image.clone());
        if options.codebase.is_none() {
            repos.set_up().map_err(Error::from).or_else(&mut wait)?;
        }
        let prover = Prover::open(&home, &store, level);
        let listener = listen(&options.http).await?;
        let is_handed_on = matches!(options.http, Http::Socket(_));
        let front = Front::begin()?;
        let lines_of_deploys = Lines::begin()?;
        let system = |what| move |source| Error::System { what, source };
        let http = listener.local_addr().map_err(system("ask where the router listens"))?;
        // One that was handed on is let go of with the listener.
        options.http = Http::At(http);
        let socket = listener.as_fd().try_clone_to_owned();
        let socket = socket.map_err(system("keep the router's socket"))?;
        let listener = listener.into_std().map_err(system("keep the router's socket"))?;
        let signed = lock.sign(&match &options.codebase {
            None => format!("pid {}", std::process::id()),
            Some(codebase) => {
                let url = format!("{}.{}:{}", codebase.deploy.app, options.domain, http.port());
                format!("pid {}, http://{url}", std::process::id())
            }
        });
        // The lock is held all the same; the name is for the message of a second comer.
        signed.map_err(Error::from).or_else(wait)?;
        let (lines, received) = mpsc::channel(LINES);
        let traffic = Arc::default();
        let (router, access) = access::router(Arc::clone(&traffic));
        let tasks = TaskTracker::new();
        let platform = Self(Arc::new(Inner {
            aside: (options.aside)(&home),
            home,
            prepared,
            lock: Mutex::new(Some(lock)),
            began: Instant::now(),
            living: if options.codebase.is_none() { tolv_run::living() } else { Arc::default() },
            lease: Mutex::default(),
            ousted: Arc::default(),
            store,
            blobs,
            repos,
            image,
            spawner,
            level,
            findings: Findings { machine, missing, beyond },
            probes: Probes::default(),
            host_services,
            hosts: Hosts::new(router.clone(), traffic),
            router,
            front,
            lines_of_deploys,
            http,
            listener: Mutex::new(Some(Arc::new(socket.into()))),
            ports: tolv_run::Ports::new(),
            outputs: Outputs::default(),
            pushes: Pushes::default(),
            runs: Runs::default(),
            run_outputs: Outputs::default(),
            building: BuildQueue::new(shares.builds),
            quota: Quota::new(options.codebase.is_none().then_some(&shares)),
            shares,
            counters: Counters::default(),
            prover,
            forged_rows: Mutex::default(),
            controllers: Mutex::default(),
            lines,
            tasks,
            panics: Panics::default(),
            leaving: CancellationToken::new(),
            abandoned: CancellationToken::new(),
            ending: CancellationToken::new(),
            holding: watch::Sender::new(false),
            undecided_pushes: TaskTracker::new(),
            quiet: CancellationToken::new(),
            drained: CancellationToken::new(),
            collecting: tokio::sync::Mutex::default(),
            keeping: tokio::sync::Mutex::default(),
            options,
        }));
        lease.into_iter().for_each(|lease| platform.hold(lease));
        platform.write_access_lines(access);
        if let Some(codebase) = platform.codebase() {
            platform.check_owner().await?;
            platform.lose_runs().await?;
            let deploy = platform.begin_anew(codebase).await?;
            platform.control(Place::of(&deploy))?;
        } else {
            if delay.is_none() {
                delay = match platform.control_all().await {
                    Ok(()) => None,
                    Err(error) if may_wait && is_delay(&error) => Some(error),
                    Err(error) => return Err(error),
                };
            }
            if let Some(error) = delay {
                for place in kept {
                    platform.control(place)?;
                }
                let error = Arc::new(error);
                let catch_up = move |platform: Self| platform.catch_up(Arc::clone(&error));
                platform.keep_up("what waits for the database", catch_up);
            }
        }
        platform.keep_up("what tidies repositories", Self::tidy_up);
        platform.keep_up("what tells of lost repositories", Self::tell_of_lost_repositories);
        if is_handed_on {
            platform.keep_up("what takes up late pushes", Self::take_up_late_pushes);
        }
        platform.keep_up("what watches the disk", Self::watch_disk);
        if is_handed_on {
            // Requests that come meanwhile are answered by the platform before.
            platform.wait_until_apps_answer().await;
        }
        // Now that every host is known: who came before has waited in the kernel's queue.
        platform.take_requests(listener)?;
        Ok((platform, received))
    }

    /// Writes the router's lines to the logs of their deploys, until the router answers nobody any more.
    fn write_access_lines(&self, access: Access) {
        let inner = &self.0;
        let access = Arc::new(tokio::sync::Mutex::new(access));
        let (hosts, lines) = (Arc::clone(&inner.hosts), inner.lines.clone());
        let (quiet, drained) = (inner.quiet.clone(), inner.drained.clone());
        let start = move || {
            let (access, quiet) = (Arc::clone(&access), quiet.clone());
            let (hosts, lines) = (Arc::clone(&hosts), lines.clone());
            async move {
                let deliver = |requests| {
                    let (others, lines) = (hosts.record(requests), lines.clone());
                    async move {
                        for line in others {
                            lines.send(Said { deploy: None, line }).await.ok();
                        }
                    }
                };
                access.lock().await.run(quiet, deliver).await;
            }
        };
        let (panics, ending) = (inner.panics.clone(), inner.ending.clone());
        let name = "what writes access lines".to_owned();
        let written = panics.survive(name, ending, start, self.teller());
        inner.tasks.spawn(async move {
            let _drained = drained.drop_guard();
            written.await;
        });
    }

    /// The state, for reading.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The state folder.
    pub fn home(&self) -> &Path {
        &self.0.home
    }

    /// Where an app has its slugs, layers and build cache. Apart from those of others: a build may
    /// leave there what the next one of its app trusts.
    pub(super) fn folder_of(&self, app: &AppId) -> PathBuf {
        match self.codebase() {
            Some(_) => self.0.home.clone(),
            None => self.0.home.join("apps").join(app.as_str()),
        }
    }

    /// The git repositories.
    pub fn repos(&self) -> &Repos {
        &self.0.repos
    }

    /// Where the router listens.
    pub fn http(&self) -> SocketAddr {
        self.0.http
    }

    /// The controller of a deploy.
    pub(super) async fn controller(&self, path: &DeployPath) -> Result<Arc<Controller>, Error> {
        let deploy = self.0.store.deploy(path).await?;
        let controller = self.controllers().get(&deploy.id).cloned();
        controller.ok_or(Error::Stopping)
    }

    /// Checks a command and queues it. It is done even if nobody waits for it.
    ///
    /// # Errors
    ///
    /// It makes no sense as things are, or the store refuses.
    pub async fn submit(
        &self,
        actor: &Actor,
        path: &DeployPath,
        command: Command,
    ) -> Result<Operation, Error> {
        self.on()?;
        self.submit_anyway(actor, path, command).await
    }

    /// As [`Platform::submit`], for a push. After [`Platform::leave`] it is queued for the next platform,
    /// which looks for such operations: git cannot ask again by itself.
    pub(super) async fn submit_push(
        &self,
        actor: &Actor,
        path: &DeployPath,
        command: Command,
    ) -> Result<Operation, Error> {
        if !self.is_leaving() {
            self.on()?;
        }
        self.submit_anyway(actor, path, command).await
    }

    async fn submit_anyway(
        &self,
        actor: &Actor,
        path: &DeployPath,
        command: Command,
    ) -> Result<Operation, Error> {
        let deploy = match command {
            Command::Stop | Command::Destroy { .. } => self.known_deploy(path).await?,
            _ => self.0.store.deploy(path).await?,
        };
        let request = self.request(&deploy, command).await?;
        if !request.frees_space() {
            self.require_disk_space()?;
        }
        if let Request::Rollback { to, .. } = &request {
            let release = self.0.store.release(&deploy.id, *to).await?;
            self.0.store.set_config_head(&deploy.id, release.row.config_version).await?;
        }
        self.enqueue(actor, &deploy, &request).await
    }

    pub(super) async fn enqueue(
        &self,
        actor: &Actor,
        deploy: &Deploy,
        request: &Request,
    ) -> Result<Operation, Error> {
        let now = Timestamp::now();
        let (operation, superseded) =
            self.0.store.enqueue(&deploy.id, request, &actor.name, now).await?;
        for old in &superseded {
            self.0.outputs.over(old, State::Superseded);
        }
        if !superseded.is_empty() {
            self.forget_soon(&deploy.id);
        }
        self.wake(&deploy.id);
        Ok(operation)
    }

    /// Changes config variables, all at once: one version, and one release where there is one
    /// already.
    ///
    /// # Errors
    ///
    /// A variable is refused, or `if_version` is not the current version: then nothing changes.
    pub async fn change_config(
        &self,
        actor: &Actor,
        path: &DeployPath,
        if_version: Option<u32>,
        change: &Change,
        no_release_phase: bool,
    ) -> Result<(u32, Option<Operation>), Error> {
        self.on()?;
        self.not_local("its config is a file", |codebase| {
            format!("change `{}` and start `tolv up` again", codebase.env_file.display())
        })?;
        self.require_disk_space()?;
        let store = &self.0.store;
        let deploy = store.deploy(path).await?;
        // Without a release there is nothing to release again: the first one takes it.
        let actor = actor.name.as_str();
        let releasing = deploy.current.map(|_| Releasing { actor, no_release_phase });
        let now = Timestamp::now();
        let changed =
            store.change_config_for(&deploy.id, if_version, change, releasing, now).await?;
        self.wake(&deploy.id);
        Ok(changed)
    }

    pub(super) fn on(&self) -> Result<(), Error> {
        match self.0.ending.is_cancelled() {
            true => Err(Error::Stopping),
            false => Ok(()),
        }
    }

    pub(super) fn controllers(&self) -> MutexGuard<'_, HashMap<DeployId, Arc<Controller>>> {
        lock(&self.0.controllers)
    }

    pub(super) fn control(&self, place: Place) -> Result<(), Error> {
        let id = place.id.clone();
        if self.controllers().contains_key(&id) {
            return Ok(());
        }
        let controller = controller::begin(self, place)?;
        self.controllers().insert(id, controller);
        Ok(())
    }

    /// A controller for every deploy that has none.
    pub(super) async fn control_all(&self) -> Result<(), Error> {
        self.check_owner().await?;
        self.lose_runs().await?;
        // What was not answered then never will be: it may be asked again.
        self.0.store.forget_idempotent(Timestamp::now() - KEYS, true).await?;
        self.check_tokens().await?;
        for deploy in self.0.store.all_deploys().await? {
            self.control(Place::of(&deploy))?;
        }
        self.control_forged().await?;
        self.kill_strangers().await
    }

    fn wake(&self, deploy: &DeployId) {
        if let Some(controller) = self.controllers().get(deploy) {
            controller.wake();
        }
    }

    /// A line about the platform as a whole.
    pub(super) async fn say(&self, text: String) {
        let line = Line::tolv("platform", text);
        self.0.lines.send(Said { deploy: None, line }).await.ok();
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where an operation's output is kept.
pub(super) fn output_key(id: &OperationId) -> String {
    format!("operations/{id}.log")
}

/// Runs what blocks on a thread of its own.
pub(super) async fn blocking<T: Send + 'static, E: Into<Error> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Into::into),
        Err(error) => Err(Error::System {
            what: "carry on after a fault of its own",
            source: io::Error::other(error),
        }),
    }
}
