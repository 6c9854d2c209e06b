//! The git repositories: one bare one an app, over the system's git.
//!
//! The refs of a deploy live in a git namespace of its name, so that the deploys of an app share
//! objects and nothing else. Whatever was released is kept by a ref of its own under
//! `refs/tolv/kept`, so that a force push takes no commit away that could be rolled back to.
//!
//! Every git command on them runs in a [sandbox](tolv_build::Repository), as a uid of the app's own:
//! what was pushed is a stranger's, and so is what the hook says, which runs there too.
//!
//! ```text
//!  git push ─HTTP─▶ rpc: git receive-pack ─▶ hook proc-receive ─socket─▶ the platform decides
//!                        ◀── `remote:` lines ◀── say ◀───────────────────────┘
//! ```

mod answer;
mod body;
mod commands;
mod hook;
mod lost;
mod plan;
mod quarantine;
mod refs;
mod rpc;
mod socket;
mod turns;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tolv_build::{GitAccess, GitCommand, GitSandbox, Repository};
use tolv_model::name::{AppName, Deploy};
use tolv_model::source::is_hostile;

use crate::image::Image;

pub use body::BodyError;
use body::Disk;
pub(crate) use hook::NULL;
pub use hook::{HOOK, hook};
use lost::Lost;
pub use plan::{Planned, RefCommand, plan_push};
use quarantine::Quarantines;
pub(crate) use refs::BATCH;
use refs::Writers;
pub use refs::{Changed, RefChange};
pub use rpc::{Answer, Push, RefResult, Rpc, Service};
use turns::Turns;

/// A lock of git's that is older was left behind.
const OLD_LOCK: Duration = Duration::from_secs(2);
/// How long a command waits for a lock.
const LOCKED: Duration = Duration::from_secs(6);
/// For git to find the roots of a history as it is, then to make a graph of that, in which it finds
/// them fast.
const SHORT_LOOK: Duration = Duration::from_secs(5);
const GRAPH_TIME: Duration = Duration::from_secs(30);
/// What releases keep of a codebase.
const KEPT: &str = "refs/tolv/kept/";
/// Refs that one command removes.
const REFS_AT_ONCE: usize = 50_000;
/// Most root commits of one history, and of an app: each is looked for among those that are known.
pub(super) const MAX_ROOTS: usize = 256;

/// Why a repository did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// A folder or file of ours.
    #[error("cannot {what} `{path}`")]
    Folder {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// git is missing, cannot be started, or was stopped at a limit.
    #[error("git did not run to its end")]
    Run(#[source] Box<tolv_build::Error>),
    /// As many as may be are at work.
    #[error("too many pushes and fetches at once")]
    Busy,
    /// A request's body.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// Its sandbox cannot be watched.
    #[error("git's sandbox cannot be watched")]
    Watch(#[source] io::Error),
    /// git refuses.
    #[error("git {what}: {said}")]
    Git {
        /// Its subcommand.
        what: String,
        /// What it said.
        said: String,
    },
    /// A name that no ref can have.
    #[error("`{0}` is not a name for a branch or tag")]
    BadRef(String),
    /// A branch or tag that is not what it was to whoever pushed.
    #[error("`{0}` was moved by somebody else meanwhile")]
    Moved(String),
    /// A history with more beginnings than any real one.
    #[error("the commit's history has more than {MAX_ROOTS} root commits")]
    TooManyRoots,
    /// A history in which git does not find its way.
    #[error(
        "git does not find the root commits of its history in {} seconds",
        SHORT_LOOK.as_secs() + GRAPH_TIME.as_secs()
    )]
    Tangled,
}

/// What is known of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The first line of its message.
    pub subject: String,
    /// When it was written, in seconds since 1970.
    pub time: i64,
}

/// The repositories below one folder. Clones are the same.
#[derive(Clone, Debug)]
pub struct Repos {
    folder: PathBuf,
    git: GitSandbox,
    /// Of requests over HTTP: each git may take its memory. Who fetches takes no push's turn.
    pushes: Turns,
    fetches: Turns,
    /// Of pushes whose git waits for an operation.
    waiting: Turns,
    quarantines: Quarantines,
    writers: Writers,
    disk: Disk,
    /// What the hook is.
    image: Image,
    lost: Lost,
}

/// Pushes at once, and fetches at once: in total, of one app and of one token.
const MAX_GIT: usize = 8;
const MAX_GIT_PER_APP: usize = 4;
const MAX_GIT_PER_TOKEN: usize = 4;
/// Pushes that wait for their operations at once, in total, of one app and of one token.
const MAX_WAITING_PUSHES: usize = 64;
const MAX_WAITING_PUSHES_PER_APP: usize = 8;
const MAX_WAITING_PUSHES_PER_TOKEN: usize = 32;

impl Repos {
    /// Those below a folder, on whose disk pushes leave `min_free` bytes free.
    pub fn at(folder: &Path, git: GitSandbox, min_free: u64, image: Image) -> Self {
        Self {
            folder: folder.to_owned(),
            git,
            pushes: Turns::new(MAX_GIT, MAX_GIT_PER_APP, MAX_GIT_PER_TOKEN),
            fetches: Turns::new(MAX_GIT, MAX_GIT_PER_APP, MAX_GIT_PER_TOKEN),
            waiting: Turns::new(
                MAX_WAITING_PUSHES,
                MAX_WAITING_PUSHES_PER_APP,
                MAX_WAITING_PUSHES_PER_TOKEN,
            ),
            quarantines: Quarantines::default(),
            writers: Writers::default(),
            disk: Disk { folder: folder.to_owned(), min_free },
            image,
            lost: Lost::default(),
        }
    }

    /// git commands at work for requests over HTTP, and the most at once.
    pub(crate) fn at_work(&self) -> (usize, usize) {
        let ((pushes, most), (fetches, more)) = (self.pushes.taken(), self.fetches.taken());
        (pushes + fetches, most + more)
    }

    /// Pushes that wait for their operations, and the most at once.
    pub(crate) fn waiting_pushes(&self) -> (usize, usize) {
        self.waiting.taken()
    }

    /// Makes the folder, and sets up the hook that leads back to this program.
    ///
    /// # Errors
    ///
    /// [`RepoError::Folder`].
    pub fn set_up(&self) -> Result<(), RepoError> {
        self.make_folders(self.image.path())?;
        let pushes = self.pushes();
        for entry in fs::read_dir(&pushes).map_err(failed("read", &pushes))?.flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.split_once('-'));
            // Of a push that a killed platform was at. One that hands over has its own still, as this
            // one has, whose process id may have been another's, as 1 is in every container.
            let is_over = |(pid, number): (&str, &str)| match pid {
                pid if pid == std::process::id().to_string() => !socket::is_own(number),
                pid => !Path::new("/proc").join(pid).exists(),
            };
            if owner.is_none_or(is_over) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// What a push needs, made where it is gone; the file of the hook's program.
    fn ready_for_push(&self) -> Result<PathBuf, RepoError> {
        let unkept = failed("keep a copy of the running program as", self.image.path());
        let program = self.image.file().map_err(unkept)?;
        self.make_folders(&program)?;
        Ok(program)
    }

    /// Makes the folders, and the hook, which is `program`.
    fn make_folders(&self, program: &Path) -> Result<(), RepoError> {
        let (hooks, pushes) = (self.hooks(), self.pushes());
        for folder in [&hooks, &pushes] {
            fs::create_dir_all(folder).map_err(failed("create", folder))?;
        }
        // git looks into the hooks' folder as the uid that its sandbox has.
        for (folder, mode) in [(&self.folder, 0o700), (&pushes, 0o700), (&hooks, 0o755)] {
            let is = fs::metadata(folder).map_err(failed("read", folder))?.mode() & 0o7777;
            if is != mode {
                let mode = fs::Permissions::from_mode(mode);
                fs::set_permissions(folder, mode).map_err(failed("chmod", folder))?;
            }
        }
        let link = hooks.join(HOOK);
        if fs::read_link(&link).is_ok_and(|known| known == program) {
            return Ok(());
        }
        // A new one over the old: a push that is under way finds one of them.
        tolv_durable::link(&link, program).map_err(failed("create", &link))
    }

    fn hooks(&self) -> PathBuf {
        self.folder.join("hooks")
    }

    /// The folders of pushes that are under way.
    fn pushes(&self) -> PathBuf {
        self.folder.join("pushes")
    }

    /// An app's repository.
    pub fn dir(&self, app: &AppName) -> PathBuf {
        self.folder.join(format!("{app}.git"))
    }

    /// An app's repository, as git sees it.
    pub fn repository(&self, app: &AppName) -> Repository {
        Repository::at(self.dir(app), self.git.clone())
    }

    /// Output of a git command that has to succeed; nothing where it ends with status 1 alone.
    fn ask(&self, app: &AppName, args: &[&str]) -> Result<Option<String>, RepoError> {
        self.require(app)?;
        ask(&self.repository(app), GitAccess::Read, args)
    }

    /// A command that changes refs or objects.
    fn tell(&self, app: &AppName, args: &[&str]) -> Result<(), RepoError> {
        self.carry_out(app, &GitCommand::new(GitAccess::Write, args))
    }

    fn carry_out(&self, app: &AppName, command: &GitCommand) -> Result<(), RepoError> {
        self.writers.alone(app, || self.unlocked(app, command))?;
        self.sync(app)
    }

    /// Runs a command that locks what it changes, again where somebody else has a lock.
    fn unlocked(&self, app: &AppName, command: &GitCommand) -> Result<(), RepoError> {
        self.require(app)?;
        let (repository, began) = (self.repository(app), Instant::now());
        loop {
            let answer = repository.ask(command).map_err(run)?;
            if answer.code == 0 {
                return Ok(());
            }
            // Another command's, for a moment, or one that a kill left.
            if !answer.said.contains(".lock': File exists") || began.elapsed() > LOCKED {
                let words = command.args.iter().map(|word| word.to_string_lossy());
                let mut words = words.skip_while(|word| word == "-c" || word.contains('='));
                let what = words.next().unwrap_or_default().into_owned();
                let said = if answer.said.is_empty() { "refused".into() } else { answer.said };
                return Err(RepoError::Git { what, said });
            }
            thread::sleep(LOCKED / 20);
            repository.remove_old_locks(OLD_LOCK).map_err(run)?;
        }
    }

    /// Makes an app's repository; one that is there stays.
    ///
    /// # Errors
    ///
    /// The folder's, and git's.
    pub fn create(&self, app: &AppName) -> Result<(), RepoError> {
        let dir = self.dir(app);
        let _one = self.lost.making();
        if dir.symlink_metadata().is_ok() {
            return Ok(());
        }
        fs::create_dir_all(&self.folder).map_err(failed("create", &self.folder))?;
        // Aside and renamed: half a repository is never found under its name.
        let aside = self.folder.join(format!("{app}.new"));
        remove(&aside)?;
        fs::DirBuilder::new().mode(0o700).create(&aside).map_err(failed("create", &aside))?;
        let new = Repository::at(&aside, self.git.clone());
        let init = ["init", "--quiet", "--bare", "--template=", "--initial-branch=main"];
        ask(&new, GitAccess::Create, &init)?;
        tolv_durable::move_folder(&aside, &dir).map_err(failed("create", &dir))
    }

    /// Removes an app's repository.
    ///
    /// # Errors
    ///
    /// The folder's.
    pub fn remove(&self, app: &AppName) -> Result<(), RepoError> {
        self.lost.forget(app);
        remove(&self.dir(app))
    }

    /// The commit that a name means to a deploy: a branch or tag of its own, or a commit's id.
    ///
    /// # Errors
    ///
    /// git's. A name that means nothing is no error.
    pub fn resolve(&self, deploy: &Deploy, rev: &str) -> Result<Option<String>, RepoError> {
        let hex = rev.len() >= 4 && rev.len() <= 40 && rev.bytes().all(|b| b.is_ascii_hexdigit());
        let own = namespace(deploy);
        let mut names = Vec::new();
        if is_ref_name(rev) {
            names.push(format!("{own}refs/heads/{rev}"));
            names.push(format!("{own}refs/tags/{rev}"));
        }
        if hex {
            names.push(rev.to_ascii_lowercase());
        }
        for name in names {
            let name = format!("{name}^{{commit}}");
            let ask = ["rev-parse", "--verify", "--quiet", "--end-of-options", &name];
            if let Some(commit) = self.ask(&deploy.app, &ask)? {
                return Ok(Some(commit));
            }
        }
        Ok(None)
    }

    /// The root commits of a commit's history, sorted.
    ///
    /// # Errors
    ///
    /// [`RepoError::TooManyRoots`], and git's.
    pub fn roots(&self, app: &AppName, commit: &str) -> Result<Vec<String>, RepoError> {
        let most = format!("--max-count={}", MAX_ROOTS + 1);
        let list = ["rev-list", "--max-parents=0", &most, commit];
        let mut command = GitCommand::new(GitAccess::Read, list);
        command.time = Some(SHORT_LOOK);
        let is_late = |error: &RepoError| matches!(error, RepoError::Run(error) if matches!(**error, tolv_build::Error::Limit { .. }));
        let found = match ask_for(&self.repository(app), &command) {
            // For each commit git looks through all that wait. With a graph of them it does not.
            Err(error) if is_late(&error) => {
                let graph = ["commit-graph", "write", "--no-progress", "--stdin-commits"];
                let mut command = GitCommand::new(GitAccess::Write, graph);
                command.input = format!("{commit}\n").into();
                command.time = Some(GRAPH_TIME);
                let written = self.unlocked(app, &command);
                written.map_err(|e| if is_late(&e) { RepoError::Tangled } else { e })?;
                let words = ["rev-list", "--topo-order", "--max-parents=0", &most, commit];
                ask_for(&self.repository(app), &GitCommand::new(GitAccess::Read, words))?
            }
            found => found?,
        };
        let mut roots: Vec<_> = found.iter().flat_map(|found| found.lines()).collect();
        if roots.len() > MAX_ROOTS {
            return Err(RepoError::TooManyRoots);
        }
        roots.sort_unstable();
        Ok(roots.into_iter().map(str::to_owned).collect())
    }

    /// Moves a branch of a deploy, and keeps the commit.
    ///
    /// # Errors
    ///
    /// git's.
    pub fn move_branch(
        &self,
        deploy: &Deploy,
        branch: &str,
        commit: &str,
    ) -> Result<(), RepoError> {
        self.keep_commit(&deploy.app, commit)?;
        self.set_ref(deploy, &format!("refs/heads/{branch}"), commit)?;
        // What a clone checks out.
        let own = namespace(deploy);
        let (head, branch) = (format!("{own}HEAD"), format!("{own}refs/heads/{branch}"));
        self.tell(&deploy.app, &["symbolic-ref", &head, &branch])?;
        self.lost.forget(&deploy.app);
        Ok(())
    }

    /// Keeps a commit for as long as [`Repos::keep`] names it.
    ///
    /// # Errors
    ///
    /// git's.
    pub fn keep_commit(&self, app: &AppName, commit: &str) -> Result<(), RepoError> {
        self.tell(app, &["update-ref", &format!("{KEPT}{commit}"), commit])
    }

    /// Sets a branch or tag of a deploy.
    fn set_ref(&self, deploy: &Deploy, name: &str, object: &str) -> Result<(), RepoError> {
        if !is_ref_name(name) {
            return Err(RepoError::BadRef(name.to_owned()));
        }
        let name = format!("{}{name}", namespace(deploy));
        self.tell(&deploy.app, &["update-ref", &name, object])
    }

    /// How many commits `one` has that `other` has not, and the other way round.
    ///
    /// # Errors
    ///
    /// git's.
    pub fn ahead_behind(
        &self,
        app: &AppName,
        one: &str,
        other: &str,
    ) -> Result<(u32, u32), RepoError> {
        let range = format!("{one}...{other}");
        let counts = self.ask(app, &["rev-list", "--left-right", "--count", &range])?;
        let counts = counts.unwrap_or_default();
        let mut counts = counts.split_whitespace().map(|count| count.parse().unwrap_or(0));
        Ok((counts.next().unwrap_or(0), counts.next().unwrap_or(0)))
    }

    /// What is known of a commit; nothing where it is gone.
    ///
    /// # Errors
    ///
    /// git's.
    pub fn describe(&self, app: &AppName, commit: &str) -> Result<Option<About>, RepoError> {
        let exists = self.ask(app, &["cat-file", "-e", commit]);
        if !matches!(exists, Ok(Some(_))) {
            return Ok(None);
        }
        let said = self.ask(app, &["log", "-1", "--format=%at%x00%s", commit])?.unwrap_or_default();
        let (time, subject) = said.split_once('\0').unwrap_or(("0", ""));
        Ok(Some(About { subject: subject.to_owned(), time: time.parse().unwrap_or(0) }))
    }

    /// Keeps these commits by refs of their own, lets go of all others, and packs what is left. What
    /// nothing leads to is removed; of what is younger than a day only where no push is under way.
    ///
    /// # Errors
    ///
    /// git's.
    pub fn keep(&self, app: &AppName, commits: &BTreeSet<String>) -> Result<(), RepoError> {
        let kept = self.ask(app, &["for-each-ref", "--format=%(refname)", KEPT])?;
        let kept = kept.unwrap_or_default();
        let kept: BTreeSet<_> = kept.lines().filter_map(|name| name.strip_prefix(KEPT)).collect();
        let mut gone = kept.iter().filter(|commit| !commits.contains(**commit)).peekable();
        if gone.peek().is_some() {
            self.delete_refs(app, gone.map(|commit| format!("{KEPT}{commit}")))?;
        }
        for commit in commits.iter().filter(|commit| !kept.contains(commit.as_str())) {
            // It may have been collected long ago.
            if self.describe(app, commit)?.is_some() {
                self.keep_commit(app, commit)?;
            }
        }
        let alone = self.quarantines.alone(&self.dir(app));
        let prune = match alone {
            Some(_) => "--prune=now",
            None => "--prune=1.day.ago",
        };
        // Nobody else packs: what says so was left by a kill.
        self.tell(app, &["pack-refs", "--all", "--prune"])?;
        let gc = ["-c", "gc.packRefs=false", "gc", "--quiet", "--force", prune];
        // It takes long, and locks no ref.
        self.unlocked(app, &GitCommand::new(GitAccess::Write, gc))?;
        self.sync(app)
    }

    /// The next app of whose pushes one was refused, once none of it is under way: what it brought is
    /// still there.
    pub(super) async fn untidy(&self) -> AppName {
        self.quarantines.untidy().await
    }

    /// Removes every ref of a deploy.
    ///
    /// # Errors
    ///
    /// git's.
    pub fn remove_deploy(&self, deploy: &Deploy) -> Result<(), RepoError> {
        if !self.dir(&deploy.app).exists() {
            return Ok(());
        }
        let own = namespace(deploy);
        let some = format!("--count={REFS_AT_ONCE}");
        loop {
            let refs = self.ask(&deploy.app, &["for-each-ref", "--format=%(refname)", &some, &own]);
            let refs = refs?.unwrap_or_default();
            if refs.is_empty() {
                return Ok(());
            }
            self.delete_refs(&deploy.app, refs.lines().map(str::to_owned))?;
        }
    }

    /// Removes refs by their full names, in one command.
    fn delete_refs(
        &self,
        app: &AppName,
        names: impl Iterator<Item = String>,
    ) -> Result<(), RepoError> {
        let mut command =
            GitCommand::new(GitAccess::Write, ["update-ref", "--no-deref", "--stdin"]);
        command.input = names.map(|name| format!("delete {name}\n")).collect::<String>().into();
        self.carry_out(app, &command)
    }
}

/// Whether a codebase with these root commits is the app's: it has one of them, or the app has
/// none yet (factor I).
pub fn shares_root(known: &[String], roots: &[String]) -> bool {
    known.is_empty() || roots.iter().any(|root| known.contains(root))
}

fn namespace(deploy: &Deploy) -> String {
    format!("refs/namespaces/{}/", deploy.name)
}

/// Git's own rules for a name (`git check-ref-format`), without its exotic permissions.
fn is_ref_name(name: &str) -> bool {
    let part =
        |part: &str| !part.is_empty() && !part.starts_with(['.', '-']) && !part.ends_with(".lock");
    !name.is_empty()
        && name.len() <= 250
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && name != "@"
        && name.split('/').all(part)
        && !name.chars().any(|c| is_hostile(c) || " ~^:?*[\\\x7f".contains(c))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RepoError {
    let path = path.to_owned();
    move |source| RepoError::Folder { what, path, source }
}

/// What is in a repository is a stranger's: it is removed without following anything.
fn remove(path: &Path) -> Result<(), RepoError> {
    tolv_build::remove(path).map_err(run)
}

fn run(error: tolv_build::Error) -> RepoError {
    RepoError::Run(Box::new(error))
}

fn ask(
    repository: &Repository,
    access: GitAccess,
    args: &[&str],
) -> Result<Option<String>, RepoError> {
    ask_for(repository, &GitCommand::new(access, args))
}

fn ask_for(repository: &Repository, command: &GitCommand) -> Result<Option<String>, RepoError> {
    let answer = repository.ask(command).map_err(run)?;
    match answer.code {
        0 => Ok(Some(String::from_utf8_lossy(&answer.out).trim_end().to_owned())),
        1 => Ok(None),
        _ => {
            let what = command.args.first().map(|word| word.to_string_lossy().into_owned());
            let what = what.unwrap_or_default();
            Err(RepoError::Git { what, said: answer.said })
        }
    }
}
