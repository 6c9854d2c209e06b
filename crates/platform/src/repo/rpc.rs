//! git's smart HTTP protocol: a request's body into `git`, its output back.
//!
//! A push belongs to the platform from the moment it begins: the task that carries it is its own,
//! and goes on when whoever pushed is gone.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use flate2::write::GzDecoder;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::unix::AsyncFd;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::UnixListener;
use tokio::net::unix::{OwnedWriteHalf, pipe};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tolv_build::{GitAccess, GitCommand, Repository};
use tolv_model::name::Deploy;
use tolv_sandbox::{ExitStatus, Mount, Running};

use super::hook::{Asked, MAX_ASKED, Told};
use super::plan::RefCommand;
use super::{RepoError, Repos, failed, run};

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// Compressed bytes that are unpacked at once: what comes out is at most a thousand times as much.
const COMPRESSED: usize = 1024;
/// Chunks between git and a slow client.
const CHUNKS: usize = 16;
/// Lines between the platform and the hook.
const LINES: usize = 256;
/// Most bytes of a request to fetch: what a client has and wants, a line each.
const MAX_FETCH: u64 = 64 << 20;
/// How long a client may be silent.
const IDLE: Duration = Duration::from_secs(60);
/// How long a client may take in all, to send its push or to take what it fetches.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// How long git, and the hook once it is there, may take to say what is expected.
const SOON: Duration = Duration::from_secs(10);

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

/// A request's body.
type Body = Pin<Box<dyn AsyncRead + Send>>;

/// One request of git's.
pub struct Rpc {
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
}

/// The body of the answer, piece by piece.
pub type Answer = mpsc::Receiver<Bytes>;

impl Repos {
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
        deploy: &Deploy,
        service: Service,
        protocol: Option<&str>,
    ) -> Result<Vec<u8>, RepoError> {
        let mut command = self.service(deploy, service, protocol);
        // To look is enough here, and needs nothing of the repository to be changed.
        command.access = GitAccess::Read;
        command.args.push("--http-backend-info-refs".into());
        command.args.push(self.dir(&deploy.app).into());
        let repository = self.repository(&deploy.app);
        let asked = tokio::task::spawn_blocking(move || repository.ask(&command)).await;
        let answer = asked.map_err(|error| RepoError::Watch(io::Error::other(error)))?;
        let answer = answer.map_err(run)?;
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
        let mut command = self.service(&rpc.deploy, rpc.service, rpc.protocol.as_deref());
        command.args.push(self.dir(&rpc.deploy.app).into());
        let is_push = rpc.service == Service::Receive;
        let repository = self.repository(&rpc.deploy.app);
        let socket = match is_push {
            true => Some(Socket::bind(self, repository.job(&command).spec.app_uid())?),
            false => None,
        };
        if let Some(socket) = &socket {
            let (hooks, program) = (self.hooks(), self.hooks().join(super::HOOK));
            let program = fs::read_link(&program).map_err(failed("read", &program))?;
            command.mounts.extend(
                [&hooks, &program, &socket.folder].map(|path| Mount::read_only(path, path)),
            );
            command.env.push(("TOLV_PUSH", socket.path().into()));
        }
        let started = tokio::task::spawn_blocking({
            let repository = repository.clone();
            move || start(&repository, &command)
        });
        let started = started.await.map_err(|error| RepoError::Watch(io::Error::other(error)))?;
        let (running, stdin, stdout) = started?;
        let watch = |error| RepoError::Watch(error);
        let stdin = pipe::Sender::from_owned_fd(stdin).map_err(watch)?;
        let stdout = pipe::Receiver::from_owned_fd(stdout).map_err(watch)?;
        #[expect(unsafe_code, reason = "tokio asks for the descriptor to stay the same")]
        // SAFETY: a `Running` owns its descriptor, and never changes it, until it is dropped.
        let running = unsafe { AsyncFd::register(running) };
        let mut running = running.map_err(|error| watch(error.into()))?;
        let (chunks, answer) = mpsc::channel(CHUNKS);
        let most = if is_push { self.git.limits.push.saturating_add(MAX_FETCH) } else { MAX_FETCH };
        let body = Incoming { body: rpc.body, gzip: rpc.gzip, most };
        let git_time = self.git.limits.time;
        tasks.spawn(async move {
            let (connected, hook) = oneshot::channel();
            let feed = async {
                // git says itself what it misses; when it has all, its time begins.
                timeout(LONGEST, feed(body, stdin)).await.ok();
                match is_push {
                    true => {
                        let hook = async {
                            // Gone without a word: there is no hook, and git has ended.
                            if hook.await.is_err() {
                                std::future::pending::<()>().await;
                            }
                        };
                        timeout(git_time, hook).await.is_err()
                    }
                    false => {
                        sleep(LONGEST).await;
                        true
                    }
                }
            };
            let decided = async {
                if let Some(socket) = socket {
                    socket.decide(connected, decide).await.ok();
                }
            };
            let mut last = Vec::new();
            let is_late = {
                let drained = drain(stdout, &chunks, is_push, &mut last);
                tokio::pin!(decided);
                tokio::pin!(feed);
                let (mut is_fed, mut is_decided) = (false, false);
                tokio::pin!(drained);
                loop {
                    tokio::select! {
                        // git has ended: nobody asks any more, and an operation goes on by itself.
                        () = &mut drained => break false,
                        is_late = &mut feed, if !is_fed => {
                            is_fed = true;
                            if is_late {
                                break true;
                            }
                        }
                        () = &mut decided, if !is_decided => is_decided = true,
                    }
                }
            };
            let status = if is_late { None } else { timeout(SOON, ended(&mut running)).await.ok() };
            let fault = match status {
                None if is_late => Some("git took too long and was stopped".to_owned()),
                Some(Ok(Ok(status))) => {
                    repository.code(status).err().map(|error| error.to_string())
                }
                None | Some(_) => None,
            };
            let running = running.into_inner();
            tokio::task::spawn_blocking(move || running.stop()).await.ok();
            if is_push && let Some(fault) = fault {
                last = remark(&last, &fault);
            }
            if !last.is_empty() {
                chunks.send(Bytes::from(last)).await.ok();
            }
        });
        Ok(answer)
    }
}

type Started = (Running, std::os::fd::OwnedFd, std::os::fd::OwnedFd);

/// Starts git with pipes at its standard input and output.
fn start(repository: &Repository, command: &GitCommand) -> Result<Started, RepoError> {
    let watch = |errno: rustix::io::Errno| RepoError::Watch(errno.into());
    let (theirs, stdin) = pipe_with(PipeFlags::CLOEXEC).map_err(watch)?;
    let (stdout, out) = pipe_with(PipeFlags::CLOEXEC).map_err(watch)?;
    let null = fs::File::options().write(true).open("/dev/null").map_err(RepoError::Watch)?;
    let job = repository.job(command);
    let running =
        tolv_sandbox::start(&repository.sandbox().spawner, &job, [theirs, out, null.into()]);
    let running = running.map_err(|error| run(tolv_build::Error::Sandbox(error)))?;
    Ok((running, stdin, stdout))
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

/// Puts a line for whoever pushes (band 2 of the side band, which every git asks for) before the
/// flush that ends git's answer.
fn remark(last: &[u8], text: &str) -> Vec<u8> {
    let body = last.strip_suffix(b"0000").unwrap_or(last);
    let line = format!("\u{2}error: {text}\n");
    [body, format!("{:04x}{line}", line.len() + 4).as_bytes(), b"0000"].concat()
}

/// A request's body, a stranger's.
struct Incoming {
    body: Body,
    gzip: bool,
    /// Most bytes of it, unpacked.
    most: u64,
}

/// The body into git. Ends git's input where it is too long, too slow or broken.
async fn feed(incoming: Incoming, mut stdin: pipe::Sender) -> io::Result<()> {
    let Incoming { mut body, gzip, most: mut left } = incoming;
    let mut chunk = vec![0; CHUNK];
    let mut decoder = gzip.then(|| GzDecoder::new(Vec::new()));
    loop {
        let read = timeout(IDLE, body.read(&mut chunk)).await??;
        let Some(decoder) = &mut decoder else {
            let piece = take(&mut left, &chunk[..read])?;
            stdin.write_all(piece).await?;
            if read == 0 {
                return Ok(());
            }
            continue;
        };
        for piece in chunk[..read].chunks(COMPRESSED) {
            decoder.write_all(piece)?;
            let plain = std::mem::take(decoder.get_mut());
            stdin.write_all(take(&mut left, &plain)?).await?;
        }
        if read == 0 {
            decoder.try_finish()?;
            let plain = std::mem::take(decoder.get_mut());
            return stdin.write_all(take(&mut left, &plain)?).await;
        }
    }
}

/// Counts bytes against what is left.
fn take<'a>(left: &mut u64, piece: &'a [u8]) -> io::Result<&'a [u8]> {
    *left = left
        .checked_sub(piece.len() as u64)
        .ok_or_else(|| io::Error::other("the request's body is too long"))?;
    Ok(piece)
}

/// git's output to the client; where that is gone, a push's goes nowhere. The last four bytes,
/// which end the answer, are kept in `last`.
async fn drain(
    mut stdout: pipe::Receiver,
    chunks: &mpsc::Sender<Bytes>,
    is_push: bool,
    last: &mut Vec<u8>,
) {
    let mut chunk = vec![0; CHUNK];
    let mut is_gone = false;
    while let Ok(read @ 1..) = stdout.read(&mut chunk).await {
        last.extend_from_slice(&chunk[..read]);
        let piece = Bytes::copy_from_slice(&last[..last.len().saturating_sub(4)]);
        last.drain(..piece.len());
        // A client that takes nothing is gone.
        is_gone = is_gone
            || !piece.is_empty() && !matches!(timeout(IDLE, chunks.send(piece)).await, Ok(Ok(())));
        if is_gone && !is_push {
            return;
        }
    }
}

/// The socket that one push's hook connects to, in a folder of its own that git's sandbox sees;
/// gone when dropped.
struct Socket {
    folder: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// `uid` is the one that the hook has, where that is not ours.
    fn bind(repos: &Repos, uid: Option<u32>) -> Result<Self, RepoError> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = repos.pushes().join(format!("{}-{number}", std::process::id()));
        super::remove(&folder)?;
        let path = folder.join("socket");
        let bind = || {
            fs::DirBuilder::new().mode(0o700).create(&folder)?;
            let listener = UnixListener::bind(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            for mine in [&path, &folder] {
                std::os::unix::fs::lchown(mine, uid, uid)?;
            }
            Ok(listener)
        };
        let listener = bind().map_err(failed("listen on", &path))?;
        Ok(Self { folder, listener })
    }

    fn path(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Hears what the hook asks, once, and answers it. What it says is a stranger's.
    async fn decide<F, T>(&self, connected: oneshot::Sender<()>, decide: F) -> io::Result<()>
    where
        F: FnOnce(Push) -> T,
        T: Future<Output = Vec<RefResult>>,
    {
        let (stream, _) = self.listener.accept().await?;
        let (read, mut write) = stream.into_split();
        let mut line = Vec::new();
        timeout(SOON, BufReader::new(read.take(MAX_ASKED)).read_until(b'\n', &mut line)).await??;
        let asked = Asked::parse(&line)?;
        // From here on the time is the operation's.
        connected.send(()).ok();
        let (say, mut said) = mpsc::channel(LINES);
        let decided = decide(Push { commands: asked.commands, options: asked.options, say });
        tokio::pin!(decided);
        let results = loop {
            tokio::select! {
                biased;
                Some(text) = said.recv() => {
                    // The hook may have been killed; the decision goes on.
                    tell(&mut write, &Told::Say(text)).await.ok();
                }
                results = &mut decided => break results,
            }
        };
        while let Ok(text) = said.try_recv() {
            tell(&mut write, &Told::Say(text)).await.ok();
        }
        let results = results.into_iter().map(|result| (result.name, result.refused)).collect();
        tell(&mut write, &Told::Results(results)).await
    }
}

async fn tell(write: &mut OwnedWriteHalf, told: &Told) -> io::Result<()> {
    let mut line = serde_json::to_vec(told)?;
    line.push(b'\n');
    write.write_all(&line).await
}

impl Drop for Socket {
    fn drop(&mut self) {
        super::remove(&self.folder).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fed(body: Vec<u8>, gzip: bool, most: u64) -> (io::Result<()>, u64) {
        let (stdin, mut git) = pipe::pipe().unwrap();
        let incoming = Incoming { body: Box::pin(io::Cursor::new(body)), gzip, most };
        let count = async {
            let (mut chunk, mut count) = (vec![0; CHUNK], 0);
            while let Ok(read @ 1..) = git.read(&mut chunk).await {
                count += read as u64;
            }
            count
        };
        tokio::join!(feed(incoming, stdin), count)
    }

    #[tokio::test]
    async fn a_body_ends_at_its_limit_packed_or_not() {
        let plain = vec![b'x'; 3 << 20];
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&plain).unwrap();
        let packed = packed.finish().unwrap();
        assert!(packed.len() < 10_000);
        for (body, gzip) in [(plain, false), (packed, true)] {
            let (ended, count) = fed(body.clone(), gzip, 3 << 20).await;
            assert!(ended.is_ok() && count == 3 << 20, "{ended:?} {count}");
            let (ended, count) = fed(body, gzip, 2 << 20).await;
            assert!(ended.is_err() && count <= 2 << 20, "{count}");
        }
        let (ended, _) = fed(b"no gzip".to_vec(), true, 100).await;
        assert!(ended.is_err());
    }

    #[test]
    fn a_remark_comes_before_the_end() {
        assert_eq!(remark(b"0000", "x"), b"000e\x02error: x\n0000");
        assert_eq!(remark(b"", "x"), b"000e\x02error: x\n0000");
    }
}
