//! git's smart HTTP protocol: a request's body into `git`, its output back.
//!
//! A push belongs to the platform from the moment that it is decided about: the task that carries it is
//! its own, and goes on when whoever pushed is gone. Until then git is stopped with its client.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncRead;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tolv_build::{GitAccess, GitCommand, Repository};
use tolv_model::name::{AppName, Deploy};
use tolv_sandbox::{ExitStatus, Mount, Running};

use super::answer::{Fetched, SHALLOW_HINT, discard_output, drain_fetch, drain_push, hear, remark};
use super::body::{BodyError, Bounds, Filling, Incoming, WorkTime};
use super::plan::RefCommand;
use super::quarantine::PushGuard;
use super::socket::Socket;
use super::turns::Turn;
use super::{MAX_WAITING_PUSHES_PER_APP, MAX_WAITING_PUSHES_PER_TOKEN, RepoError, Repos, run};

/// Chunks between git and a slow client.
const CHUNKS: usize = 16;
/// Most bytes of a request to fetch: what a client has and wants, a line each.
const MAX_FETCH: u64 = 64 << 20;
/// How long a request waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take in all, to send its push or to take what it fetches.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// How long git, and the hook once it is there, may take to say what is expected.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// Faults of old commits that do no harm and that other hosts take: they are shown as warnings.
/// Whatever could lead a checkout astray stays an error: `hasDot`, `hasDotdot`, `hasDotgit`,
/// `fullPathname`, `duplicateEntries`, `treeNotSorted`, `nullSha1`, what is wrong with
/// `.gitmodules` and `.gitattributes`.
const WARNINGS: [&str; 11] = [
    "badDate",
    "badDateOverflow",
    "badEmail",
    "badName",
    "badTimezone",
    "missingEmail",
    "missingNameBeforeEmail",
    "missingSpaceBeforeDate",
    "missingSpaceBeforeEmail",
    "zeroPaddedDate",
    "zeroPaddedFilemode",
];

/// Which of git's two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Fetch and clone.
    Upload,
    /// Push.
    Receive,
}

impl Service {
    /// Its name in URLs: `git-receive-pack`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "git-upload-pack",
            Self::Receive => "git-receive-pack",
        }
    }

    /// Tells a client why its request was not done, as git itself does.
    fn refusal(self, why: &dyn std::fmt::Display) -> Vec<u8> {
        let packet = |body: &[u8]| [format!("{:04x}", body.len() + 4).as_bytes(), body].concat();
        match self {
            Self::Upload => packet(format!("ERR {why}\n").as_bytes()),
            // Band 1 of the side band, which every git asks for, has the report.
            Self::Receive => {
                let report = [&packet(format!("unpack {why}\n").as_bytes()), &b"0000"[..]];
                [packet(&[b"\x01", &*report.concat()].concat()), b"0000".to_vec()].concat()
            }
        }
    }
}

/// A push, as the platform decides about it.
pub struct Push {
    /// Its refs.
    pub commands: Vec<RefCommand>,
    /// What `-o` gave.
    pub options: Vec<String>,
    /// Lines for whoever pushes.
    pub say: mpsc::Sender<String>,
}

/// What became of a ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefResult {
    /// Its full name.
    pub name: String,
    /// Why it was refused; nothing where it was done.
    pub refused: Option<String>,
}

/// One request of git's.
pub struct Rpc {
    /// The id of the token that asks: names are not unique.
    pub token: String,
    /// Whose repository.
    pub deploy: Deploy,
    /// What for.
    pub service: Service,
    /// The header `Git-Protocol`.
    pub protocol: Option<String>,
    /// Whether the body is compressed with gzip.
    pub gzip: bool,
    /// The body.
    pub body: Pin<Box<dyn AsyncRead + Send>>,
    /// Why it ends before it is decided about, once it does.
    pub stopped: Pin<Box<dyn Future<Output = &'static str> + Send>>,
}

/// The body of the answer, piece by piece.
pub type Answer = mpsc::Receiver<Bytes>;

impl Repos {
    /// Waits until a git command of this app may run for this token.
    async fn turn(&self, service: Service, app: &AppName, token: &str) -> Result<Turn, RepoError> {
        let turns = match service {
            Service::Receive => &self.pushes,
            Service::Upload => &self.fetches,
        };
        let turn = timeout(TURN_TIMEOUT, turns.acquire(app, token)).await;
        turn.ok().flatten().ok_or(RepoError::Busy)
    }

    fn service(&self, deploy: &Deploy, service: Service, protocol: Option<&str>) -> GitCommand {
        let mut settings = vec!["transfer.hideRefs=refs/tolv".to_owned()];
        let access = match service {
            Service::Upload => GitAccess::Read,
            Service::Receive => {
                settings.extend([
                    format!("core.hooksPath={}", self.hooks().display()),
                    format!("receive.maxInputSize={}", self.git.limits.push),
                ]);
                settings.extend(WARNINGS.map(|fault| format!("receive.fsck.{fault}=warn")));
                let fixed = [
                    "receive.procReceiveRefs=refs",
                    "receive.advertisePushOptions=true",
                    "receive.denyDeletes=false",
                    "receive.denyNonFastForwards=false",
                    "receive.denyDeleteCurrent=ignore",
                    "receive.denyCurrentBranch=ignore",
                    "receive.fsckObjects=true",
                    "receive.autogc=false",
                    // A pack is kept as it comes, and a large file in it is never in memory whole.
                    "receive.unpackLimit=1",
                ];
                settings.extend(fixed.map(str::to_owned));
                GitAccess::Write
            }
        };
        let words = settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]);
        let end = match service {
            Service::Upload => ["upload-pack", "--stateless-rpc"],
            Service::Receive => ["receive-pack", "--stateless-rpc"],
        };
        let mut command = GitCommand::new(access, words.chain(end.map(str::to_owned)));
        command.env.push(("GIT_NAMESPACE", deploy.name.as_str().into()));
        // Its only use is to say `version=2`; anything else is dropped.
        if let Some(protocol @ ("version=1" | "version=2")) = protocol {
            command.env.push(("GIT_PROTOCOL", protocol.into()));
        }
        command
    }

    /// What a client asks first: which refs there are.
    ///
    /// # Errors
    ///
    /// git's.
    pub async fn advertise(
        &self,
        token: &str,
        deploy: &Deploy,
        service: Service,
        protocol: Option<&str>,
    ) -> Result<Vec<u8>, RepoError> {
        let _turn = self.turn(service, &deploy.app, token).await?;
        let mut command = self.service(deploy, service, protocol);
        // To look is enough here, and needs nothing of the repository to be changed.
        command.access = GitAccess::Read;
        command.args.push("--http-backend-info-refs".into());
        command.args.push(self.dir(&deploy.app).into());
        let (repos, app) = (self.clone(), deploy.app.clone());
        let ask = move || {
            repos.require(&app)?;
            repos.repository(&app).ask(&command).map_err(run)
        };
        let asked = tokio::task::spawn_blocking(ask).await;
        let answer = asked.map_err(|error| RepoError::Watch(io::Error::other(error)))??;
        if answer.code != 0 {
            return Err(RepoError::Git { what: service.as_str().to_owned(), said: answer.said });
        }
        let mut body = Vec::new();
        if protocol != Some("version=2") {
            let line = format!("# service={}\n", service.as_str());
            body.extend(format!("{:04x}{line}0000", line.len() + 4).bytes());
        }
        body.extend(answer.out);
        Ok(body)
    }

    /// Carries one request in a task of `tasks`. A push is decided by `decide`.
    ///
    /// # Errors
    ///
    /// git cannot be started.
    pub async fn serve<F, T>(
        &self,
        rpc: Rpc,
        tasks: &TaskTracker,
        decide: F,
    ) -> Result<Answer, RepoError>
    where
        F: FnOnce(Push) -> T + Send + 'static,
        T: Future<Output = Vec<RefResult>> + Send,
    {
        let app = rpc.deploy.app.clone();
        let is_push = rpc.service == Service::Receive;
        let max = if is_push { self.git.limits.push.saturating_add(MAX_FETCH) } else { MAX_FETCH };
        let mut body = Incoming::new(rpc.body, rpc.gzip, max);
        let mut stopped = rpc.stopped;
        let begun = async {
            // A silent client takes no turn.
            let first = body.begin().await.map_err(RepoError::Body)?;
            let turn = self.turn(rpc.service, &app, &rpc.token).await?;
            Ok::<_, RepoError>((first, turn))
        };
        let begun = tokio::select! {
            begun = begun => begun.map(Ok)?,
            why = &mut stopped => Err(BodyError::Stopped(why)),
        };
        let (chunks, answer) = mpsc::channel(CHUNKS);
        let checked = begun.and_then(|begun| match is_push {
            true => self.disk.check().map(|()| begun),
            false => Ok(begun),
        });
        let (first, turn) = match checked {
            Ok(begun) => begun,
            Err(why) => {
                tasks.spawn(async move {
                    chunks.send(rpc.service.refusal(&why).into()).await.ok();
                    body.discard().await;
                });
                return Ok(answer);
            }
        };
        let taken = if is_push { self.taken(&app).await? } else { 0 };
        let most = self.git.limits.repository;
        let is_full = taken >= most;
        let mut command = self.service(&rpc.deploy, rpc.service, rpc.protocol.as_deref());
        if is_full {
            // What only removes brings no pack. The last word on a setting counts.
            let settings = command.args.iter().take_while(|word| *word != "receive-pack").count();
            command.args.splice(settings..settings, ["-c".into(), NO_PACK.into()]);
        }
        command.args.push(self.dir(&app).into());
        let repository = self.repository(&app);
        let begun = tokio::task::spawn_blocking({
            let (repos, app) = (self.clone(), app.clone());
            move || match repos.require(&app).map(|()| is_push)? {
                true => begin_push(&repos, &app, command).map(|(begun, push)| (begun, Some(push))),
                false => start(&repos.repository(&app), &command, true).map(|begun| (begun, None)),
            }
        });
        let begun = begun.await.map_err(|error| RepoError::Watch(io::Error::other(error)))?;
        let (Started { running, stdin, stdout, stderr }, push) = begun?;
        let heard = stderr.map(|stderr| tasks.spawn(hear(stderr)));
        let (socket, guard) = push.unzip();
        let is_untidy = Arc::new(AtomicBool::new(true));
        let is_decided = Arc::new(AtomicBool::new(false));
        let filling = guard.as_ref().map(|guard| Filling::new(most, taken, guard.fed()));
        let watch = |error| RepoError::Watch(error);
        let stdin = pipe::Sender::from_owned_fd(stdin).map_err(watch)?;
        let mut stdout = pipe::Receiver::from_owned_fd(stdout).map_err(watch)?;
        #[expect(unsafe_code, reason = "tokio asks for the descriptor to stay the same")]
        // SAFETY: a `Running` owns its descriptor, and never changes it, until it is dropped.
        let running = unsafe { AsyncFd::register(running) };
        let mut running = running.map_err(|error| watch(error.into()))?;
        let work = WorkTime { least: self.git.limits.work, most: self.git.limits.time };
        let disk = self.disk.clone();
        let decide = self.bound_waiting(app, rpc.token, decide);
        let decide = {
            let (is_untidy, is_decided) = (Arc::clone(&is_untidy), Arc::clone(&is_decided));
            move |push: Push| async move {
                is_decided.store(true, Ordering::Relaxed);
                let removes = push.commands.iter().any(|command| command.new.is_none());
                let results = decide(push).await;
                let any = results.iter().any(|result| result.refused.is_some());
                is_untidy.store(any || removes, Ordering::Relaxed);
                results
            }
        };
        tasks.spawn(async move {
            let mut turn = Some(turn);
            let (mut last, mut fetched) = (Vec::new(), Fetched::default());
            let is_shallow = AtomicBool::new(false);
            let stop = {
                let (connected, hook) = oneshot::channel();
                let feed = async {
                    let bounds = filling.as_ref();
                    let bounds = bounds.map(|filling| Bounds { disk: &disk, filling, time: work });
                    let fed = body.feed(first, bounds, stdin);
                    let fed = timeout(LONGEST, fed).await.unwrap_or(Err(BodyError::TooSlow));
                    if let Err(error) = fed {
                        return Stop::Body(error);
                    }
                    if !is_push {
                        sleep(LONGEST).await;
                        return Stop::Late;
                    }
                    // git has all of the push, and its own time begins.
                    let hook = async {
                        match hook.await {
                            // From here on git only waits.
                            Ok(()) => turn = None,
                            // There is no hook, and git has ended.
                            Err(_) => std::future::pending::<()>().await,
                        }
                    };
                    tokio::select! {
                        () = hook => std::future::pending().await,
                        () = sleep(body.work_left(work)) => Stop::Body(body.too_much_work(work)),
                        full = disk.until_full() => Stop::Body(full),
                        // Nothing is decided, and nobody waits for it.
                        () = chunks.closed() => Stop::Gone,
                    }
                };
                let decided = async {
                    if let Some(socket) = &socket {
                        socket.decide(connected, decide).await.ok();
                    }
                };
                let drained = async {
                    match is_push {
                        true => drain_push(&mut stdout, &chunks, &mut last, &is_shallow).await,
                        false => drain_fetch(&mut stdout, &chunks, &mut fetched).await,
                    }
                };
                tokio::pin!(decided);
                tokio::pin!(feed);
                tokio::pin!(drained);
                let (mut is_answered, mut is_stopped) = (false, false);
                loop {
                    tokio::select! {
                        // git has ended: nobody asks any more, and an operation goes on by itself.
                        () = &mut drained => break None,
                        stop = &mut feed => break Some(stop),
                        () = &mut decided, if !is_answered => is_answered = true,
                        why = &mut stopped, if !is_stopped => {
                            // From then on whoever decides knows it, too.
                            is_stopped = true;
                            if !is_decided.load(Ordering::Relaxed) {
                                break Some(Stop::Body(BodyError::Stopped(why)));
                            }
                        }
                    }
                }
            };
            let mut can_read = true;
            let cut_off = || match is_decided.load(Ordering::Relaxed) {
                true => rpc.service.refusal(&CUT_OFF),
                false => rpc.service.refusal(&UNDECIDED),
            };
            match stop {
                Some(Stop::Body(error)) => {
                    if !matches!(error, BodyError::TooMuchWork { .. } | BodyError::Stopped(_)) {
                        // git finds that its input has ended and removes what it stored. What it
                        // says about that is not the cause.
                        timeout(SOON, discard_output(&mut stdout)).await.ok();
                        timeout(SOON, ended(&mut running)).await.ok();
                    }
                    last = rpc.service.refusal(&error);
                    can_read = !matches!(error, BodyError::TooSlow | BodyError::Broken(_));
                }
                Some(Stop::Late) => last = fetched.end_with("git took too long and was stopped"),
                Some(Stop::Gone) => {}
                None if fetched.is_gone => {}
                None if is_push => {
                    let status = timeout(SOON, ended(&mut running)).await;
                    let fault = match status {
                        Ok(Ok(Ok(status))) => repository.code(status).err(),
                        _ => None,
                    };
                    // Its client waits for a whole answer, for ever.
                    if last != FLUSH {
                        last = cut_off();
                    }
                    if let Some(fault) = fault {
                        last = remark(&last, &fault.to_string());
                    }
                    // What the app itself says comes once it is decided.
                    if is_shallow.into_inner() && !is_decided.load(Ordering::Relaxed) {
                        last = remark(&last, SHALLOW_HINT);
                    }
                    if is_full && !is_decided.load(Ordering::Relaxed) {
                        last = remark(&last, &BodyError::RepositoryFull { most }.to_string());
                    }
                }
                None => {
                    let status = timeout(SOON, ended(&mut running)).await;
                    let code = match status {
                        Ok(Ok(Ok(status))) => repository.code(status).map_err(|e| e.to_string()),
                        _ => Ok(0),
                    };
                    let said = async { heard?.await.ok().filter(|said| !said.is_empty()) };
                    last = match code {
                        Ok(0) => fetched.last,
                        Ok(code) => {
                            let said = timeout(SOON, said).await.ok().flatten();
                            let other = || format!("git has ended early, with status {code}");
                            fetched.end_with(&said.unwrap_or_else(other))
                        }
                        Err(why) => fetched.end_with(&why),
                    };
                }
            }
            let running = running.into_inner();
            let stopped = tokio::task::spawn_blocking(move || {
                running.stop();
                // Something is refused or removed; where nothing was decided, git may have stored it.
                if is_untidy.load(Ordering::Relaxed) {
                    guard.iter().for_each(PushGuard::mark_untidy);
                }
                drop((socket, guard));
            });
            stopped.await.ok();
            drop(turn);
            if !last.is_empty() {
                chunks.send(Bytes::from(last)).await.ok();
            }
            if can_read {
                body.discard().await;
            }
        });
        Ok(answer)
    }

    /// Bytes of the disk that an app's repository takes.
    async fn taken(&self, app: &AppName) -> Result<u64, RepoError> {
        let repository = self.repository(app);
        let taken = tokio::task::spawn_blocking(move || repository.disk_use()).await;
        taken.map_err(|error| RepoError::Watch(io::Error::other(error)))
    }

    /// Wraps a decision: the push is refused if too many others wait for their operations, because
    /// each of them keeps a sandbox.
    fn bound_waiting<F, T>(
        &self,
        app: AppName,
        token: String,
        decide: F,
    ) -> impl FnOnce(Push) -> Pin<Box<dyn Future<Output = Vec<RefResult>> + Send>> + Send + 'static
    where
        F: FnOnce(Push) -> T + Send + 'static,
        T: Future<Output = Vec<RefResult>> + Send,
    {
        let waiting = self.waiting.clone();
        move |push| {
            Box::pin(async move {
                if let Some(_turn) = waiting.try_acquire(&app, &token) {
                    return decide(push).await;
                }
                let text = format!(
                    " !     Too many pushes wait for their operations (at most \
                     {MAX_WAITING_PUSHES_PER_APP} of one app, {MAX_WAITING_PUSHES_PER_TOKEN} of one \
                     token): push again when one has finished, \
                     or cancel one (tolv operations cancel)"
                );
                push.say.send(text).await.ok();
                let refuse = |command: RefCommand| RefResult {
                    name: command.name,
                    refused: Some("too many pushes are waiting".to_owned()),
                };
                push.commands.into_iter().map(refuse).collect()
            })
        }
    }
}

/// Lets a push through that brings nothing: every pack is longer.
const NO_PACK: &str = "receive.maxInputSize=1";
/// What ends an answer of git's.
const FLUSH: &[u8] = b"0000";
/// What a push hears whose git has ended early: once it was decided about, and before.
const CUT_OFF: &str =
    "git has ended before its answer: see `tolv operations` for what became of it";
const UNDECIDED: &str = "git has ended before its answer: nothing was moved";

/// Why a git command is stopped before its end.
enum Stop {
    /// It took too long.
    Late,
    /// Whoever pushed is gone before there was anything to decide about.
    Gone,
    /// Its request did not arrive whole, or the disk is full.
    Body(BodyError),
}

/// Starts git for a push, with the socket that its hook connects to.
fn begin_push(
    repos: &Repos,
    app: &AppName,
    mut command: GitCommand,
) -> Result<(Started, (Socket, PushGuard)), RepoError> {
    let repository = repos.repository(app);
    // No git lives longer: what is older was left by one that was killed.
    repository.remove_old_locks(repos.git.limits.time).map_err(run)?;
    let guard = repos.quarantines.begin(app, repository.dir(), TURN_TIMEOUT);
    let guard = guard.ok_or(RepoError::Busy)?;
    let program = repos.ready_for_push()?;
    let socket = Socket::bind(repos, repository.job(&command).spec.app_uid())?;
    let hooks = repos.hooks();
    command
        .mounts
        .extend([&*hooks, &*program, socket.folder()].map(|path| Mount::read_only(path, path)));
    command.env.push(("TOLV_PUSH", socket.path().into()));
    command.env.push(("TOLV_PUSH_SECRET", socket.secret().into()));
    Ok((start(&repository, &command, false)?, (socket, guard)))
}

/// A git command at work, and our ends of its pipes.
struct Started {
    running: Running,
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
}

/// Starts git with pipes at its standard input and output. What it says about errors is heard where its
/// answer does not have it.
fn start(
    repository: &Repository,
    command: &GitCommand,
    is_heard: bool,
) -> Result<Started, RepoError> {
    let watch = |errno: rustix::io::Errno| RepoError::Watch(errno.into());
    let (theirs, stdin) = pipe_with(PipeFlags::CLOEXEC).map_err(watch)?;
    let (stdout, out) = pipe_with(PipeFlags::CLOEXEC).map_err(watch)?;
    let (stderr, said) = if is_heard {
        let (stderr, said) = pipe_with(PipeFlags::CLOEXEC).map_err(watch)?;
        (Some(stderr), said)
    } else {
        let null = fs::File::options().write(true).open("/dev/null").map_err(RepoError::Watch)?;
        (None, null.into())
    };
    let job = repository.job(command);
    let running = tolv_sandbox::start(&repository.sandbox().spawner, &job, [theirs, out, said]);
    let running = running.map_err(|error| run(tolv_build::Error::Sandbox(error)))?;
    Ok(Started { running, stdin, stdout, stderr })
}

/// The end of a sandbox.
async fn ended(
    running: &mut AsyncFd<Running>,
) -> io::Result<Result<ExitStatus, tolv_sandbox::Error>> {
    loop {
        if let Some(ended) = running.get_mut().try_wait() {
            return Ok(ended);
        }
        running.readable().await?.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_what_git_says() {
        let broken = BodyError::Broken(io::Error::other("x"));
        let said = |service: Service| String::from_utf8(service.refusal(&broken)).unwrap();
        assert_eq!(said(Service::Upload), "0026ERR the request cannot be read: x\n");
        let report = said(Service::Receive);
        assert!(report.contains("unpack the request cannot be read: x\n0000"), "{report}");
        assert!(report.ends_with("00000000"), "{report}");
    }
}
