//! Submodules of what was pushed: fetched at the commit that the tree records, and read like the push
//! itself.
//!
//! ```text
//!  .gitmodules ──▶ path, URL ──▶ https only ──▶ git fetch in a sandbox ──▶ <home>/submodules/<key>.git
//! ```
//!
//! Whatever `.gitmodules` says is a stranger's. git fetches in the same sandbox as it reads, with the
//! network of a build: the internet, and of the machine what the operator lists. Nothing but https is
//! spoken, also behind a redirect. Bytes, files, time, number and depth are bounded for all submodules of
//! a commit together. What was fetched is kept for the next build, by URL and commit.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tolv_model::service::{HostServices, services_in};
use tolv_model::slug::Digest;
use tolv_sandbox::Cancel;

use self::remote::{Remote, redacted};
use super::shown;
use crate::caps::{Caps, bytes, time};
use crate::exec::named_files;
use crate::files::{self, Lock};
use crate::repository::{GitAccess, GitCommand, Repository};
use crate::{Error, Event};

mod remote;

/// The name of the folder in an app's folder.
pub(crate) const FOLDER: &str = "submodules";
/// Most submodules of one commit that are fetched.
const MAX_FETCHES: usize = 256;
/// Between two looks at how much git has fetched.
const LOOK: Duration = Duration::from_millis(100);
/// Lines of git's about a fetch that failed.
const MAX_LINES: usize = 3;

/// Variables of the operator's that a fetch gets: proxies, and which certificates are trusted.
const PASSED: [&str; 10] = [
    "ALL_PROXY",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "all_proxy",
    "https_proxy",
    "no_proxy",
];

/// Settings of a fetch.
const SETTINGS: [&str; 9] = [
    "protocol.allow=never",
    "protocol.https.allow=always",
    "credential.helper=",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "http.sslVerify=true",
    "fetch.unpackLimit=1",
    "fetch.recurseSubmodules=no",
    "fetch.fsckObjects=false",
];

/// Where submodules come from, for one build.
pub(crate) struct Submodules<'a> {
    /// The app's folder.
    home: &'a Path,
    /// The operator's variables for registries and proxies.
    env: &'a BTreeMap<String, OsString>,
    /// Services of the machine that a URL may name.
    host_services: &'a HostServices,
    budget: Budget<'a>,
    say: &'a mut dyn FnMut(Event),
    /// When all of them have to be there.
    deadline: Instant,
    /// Held from the first submodule on: what is there stays there.
    lock: Option<Lock>,
    /// Those of this build.
    used: BTreeSet<PathBuf>,
    /// Whether it was said that some are fetched.
    is_said: bool,
}

/// Path → URL, as a `.gitmodules` has them.
pub(crate) type Urls = BTreeMap<Vec<u8>, Vec<u8>>;

/// What all submodules of a build may take together.
#[derive(Clone, Copy)]
struct Budget<'a> {
    caps: &'a Caps,
    cancel: &'a Cancel,
    /// Bytes on the disk that were fetched so far.
    taken: u64,
}

impl<'a> Submodules<'a> {
    pub(crate) fn new(
        home: &'a Path,
        env: &'a BTreeMap<String, OsString>,
        host_services: &'a HostServices,
        (caps, cancel): (&'a Caps, &'a Cancel),
        say: &'a mut dyn FnMut(Event),
    ) -> Self {
        let budget = Budget { caps, cancel, taken: 0 };
        Self {
            home,
            env,
            host_services,
            budget,
            say,
            deadline: Instant::now() + caps.time,
            lock: None,
            used: BTreeSet::new(),
            is_said: false,
        }
    }

    /// The repository that has a commit of the submodule at `path` of a tree with these URLs. `full` is
    /// its path in the codebase.
    pub(crate) fn get(
        &mut self,
        from: &Repository,
        urls: &Urls,
        (path, full): (&[u8], &[u8]),
        commit: &str,
    ) -> Result<Repository, Error> {
        let name = shown(full);
        let Some(raw) = urls.get(path) else {
            return Err(Error::Source(format!(
                "`{name}` is a submodule for which `.gitmodules` has no URL; \
                 run `git submodule add <https URL> {name}`, or remove it with `git rm {name}`"
            )));
        };
        let remote = Remote::parse(raw).map_err(|why| {
            Error::Source(format!(
                "the submodule `{name}` cannot be fetched: its URL `{}` {why}",
                redacted(raw)
            ))
        })?;
        self.fetched(from, &remote, &name, commit)
    }

    /// What `.gitmodules` of a tree says.
    pub(crate) fn urls(from: &Repository, tree: &[u8]) -> Result<Urls, Error> {
        let blob = [b"--blob=", tree, b".gitmodules"].concat();
        let words: [&[u8]; 5] = [b"config", b"--no-includes", b"-z", b"--list", &blob];
        let words = words.iter().map(|word| super::as_path(word));
        let answer = from.ask(&GitCommand::new(GitAccess::Read, words))?;
        // There is none, which the caller tells of each path.
        if answer.code != 0 && !answer.said.contains("bad config") {
            return Ok(BTreeMap::new());
        }
        if answer.code != 0 {
            let said = shown(answer.said.as_bytes());
            return Err(Error::Source(format!("`.gitmodules` cannot be read: {said}")));
        }
        Ok(remote::of_paths(&answer.out))
    }

    fn fetched(
        &mut self,
        from: &Repository,
        remote: &Remote,
        name: &str,
        commit: &str,
    ) -> Result<Repository, Error> {
        let folder = self.home.join(FOLDER);
        if self.lock.is_none() {
            files::make_folder(&folder)?;
            let (cancel, say) = (self.budget.cancel, &mut *self.say);
            let lock = Lock::take(
                &self.home.join("submodules.lock"),
                &|| cancel.is_cancelled(),
                &mut || say(Event::Heading("Waiting for the submodules of another build".into())),
            );
            self.lock = Some(lock?);
        }
        let key = Digest::of(format!("{}\n{commit}", remote.as_str()).as_bytes());
        let key = key.to_string();
        let key = key.rsplit(':').next().unwrap_or(&key);
        let dir = folder.join(format!("{key}.git"));
        let repository = Repository::at(&dir, from.sandbox().clone());
        let is_new = self.used.insert(dir.clone());
        if dir.symlink_metadata().is_ok() {
            if has(&repository, commit)? {
                return Ok(repository);
            }
            files::remove(&dir)?;
        }
        if is_new && self.used.len() > MAX_FETCHES {
            return Err(Error::Limit {
                what: "the number of the commit's submodules".into(),
                limit: MAX_FETCHES.to_string(),
            });
        }
        if !self.is_said {
            (self.say)(Event::Heading("Fetching submodules".to_owned()));
            self.is_said = true;
        }
        let text = format!("{name} at {} from {remote}", head(commit));
        (self.say)(Event::line(text));
        let aside = folder.join(format!("{key}.new"));
        files::remove(&aside)?;
        fs::DirBuilder::new().mode(0o700).create(&aside).map_err(Error::io("create", &aside))?;
        let new = Repository::at(&aside, from.sandbox().clone());
        let done = self.fetch_into(&new, remote, name, commit);
        if let Err(error) = done {
            // The next build clears what cannot be removed now.
            files::remove(&aside).ok();
            return Err(error);
        }
        self.budget.taken = self.budget.taken.saturating_add(new.disk_use());
        tolv_durable::move_folder(&aside, &dir).map_err(Error::io("create", &dir))?;
        Ok(repository)
    }

    fn fetch_into(
        &self,
        new: &Repository,
        remote: &Remote,
        name: &str,
        commit: &str,
    ) -> Result<(), Error> {
        let init = ["init", "--quiet", "--bare", "--template=", "--initial-branch=main"];
        let made = new.ask(&GitCommand::new(GitAccess::Create, init))?;
        if made.code != 0 {
            return Err(Error::Source(format!("git: {}", made.said)));
        }
        let (mut code, mut said) = self.fetch(new, remote, &["--depth=1", "--"], &[commit])?;
        // Older servers give what a branch or tag leads to, and nothing by its id.
        if code != 0
            && ["unadvertised object", "dumb http transport"].iter().any(|text| said.contains(text))
        {
            let all = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
            (code, said) = self.fetch(new, remote, &["--"], &all)?;
        }
        if code == 0 && has(new, commit)? {
            return Ok(());
        }
        let here = format!("the submodule `{name}` at {} from {remote}", head(commit));
        if code == 0 || said.contains("not our ref") {
            return Err(Error::Source(format!(
                "cannot fetch {here}: that repository has no such commit; push the submodule's \
                 commits first"
            )));
        }
        if said.contains("could not read Username") || said.contains("Authentication failed") {
            return Err(Error::Source(format!(
                "cannot fetch {here}: that repository is not public, or not there; a build has no \
                 credentials for it: commit its files instead"
            )));
        }
        let lines: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines[lines.len().saturating_sub(MAX_LINES)..].join("; ");
        Err(Error::Source(format!("cannot fetch {here}: {}", shown(last.as_bytes()))))
    }

    /// One `git fetch`, watched.
    fn fetch(
        &self,
        new: &Repository,
        remote: &Remote,
        options: &[&str],
        refs: &[&str],
    ) -> Result<(i32, String), Error> {
        let settings = SETTINGS.iter().flat_map(|setting| ["-c", setting]);
        let fixed = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"];
        let words = settings.chain(fixed).chain(options.iter().copied());
        let words = words.chain([remote.as_str()]).chain(refs.iter().copied());
        let mut command = GitCommand::new(GitAccess::Create, words);
        let passed = |(name, value): (&String, &OsString)| {
            let name = PASSED.iter().find(|known| *known == name)?;
            Some((*name, value.clone()))
        };
        command.env = self.env.iter().filter_map(passed).collect();
        let given: BTreeMap<_, _> =
            command.env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        // Where git's library does not know the others' name for the same file.
        if !given.contains_key("GIT_SSL_CAINFO")
            && let Some(file) = given.get("SSL_CERT_FILE").or_else(|| given.get("CURL_CA_BUNDLE"))
        {
            command.env.push(("GIT_SSL_CAINFO", file.clone()));
        }
        command.mounts = named_files(&given);
        command.services = Some(self.services(&given, remote));
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Limit {
                what: "the time of the submodules' fetch".into(),
                limit: time(self.budget.caps.time),
            });
        }
        command.time = Some(left.min(new.sandbox().limits.time));
        self.budget.watched(new, &command)
    }

    /// Proxies on this machine as the operator names them, and what the operator lets a URL name.
    fn services(&self, env: &BTreeMap<String, OsString>, remote: &Remote) -> Vec<SocketAddr> {
        let proxies = env.values().filter_map(|value| value.to_str()).flat_map(services_in);
        let named = services_in(remote.as_str());
        let named = named.into_iter().filter(|service| self.host_services.allow(service));
        proxies.chain(named).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Removes what this build did not need, where all of them together take too much.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let (folder, Budget { caps, cancel, .. }) = (self.home.join(FOLDER), self.budget);
        if self.lock.is_none() || files::disk_use(&folder) <= caps.slug {
            return Ok(());
        }
        for entry in fs::read_dir(&folder).map_err(Error::io("read", &folder))?.flatten() {
            if !self.used.contains(&entry.path()) {
                files::remove_until(&entry.path(), &|| cancel.is_cancelled())?;
            }
        }
        Ok(())
    }
}

impl Budget<'_> {
    /// Runs git until it ends, is cancelled, or has fetched too much.
    fn watched(&self, new: &Repository, command: &GitCommand) -> Result<(i32, String), Error> {
        let inner = Cancel::new().map_err(Error::io("make", "a cancel handle"))?;
        let over = Mutex::new(None);
        let (done, watching) = channel::<()>();
        let ended = std::thread::scope(|scope| {
            let (stop, over) = (inner.clone(), &over);
            let watcher = std::thread::Builder::new().name("watch".to_owned());
            let watcher = watcher.spawn_scoped(scope, move || {
                while let Err(RecvTimeoutError::Timeout) = watching.recv_timeout(LOOK) {
                    let why = match self.cancel.is_cancelled() {
                        true => Some(Error::Cancelled),
                        false => self.over_budget(new),
                    };
                    if why.is_some() {
                        *over.lock().unwrap_or_else(PoisonError::into_inner) = why;
                        stop.cancel();
                        return;
                    }
                }
            });
            watcher.map_err(Error::io("start", "a thread"))?;
            let ended =
                new.stream(command, None, &mut |_| std::ops::ControlFlow::Continue(()), &inner);
            drop(done);
            ended
        });
        match over.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(why) => Err(why),
            // It may have ended between two looks.
            None => ended.and_then(|ended| self.over_budget(new).map_or(Ok(ended), Err)),
        }
    }

    fn over_budget(&self, new: &Repository) -> Option<Error> {
        if self.taken.saturating_add(new.disk_use()) > self.caps.slug {
            return Some(Error::Limit {
                what: "the size of the commit's submodules together".into(),
                limit: format!("{} (TOLV_BUILD_MIB)", bytes(self.caps.slug)),
            });
        }
        let stat = rustix::fs::statvfs(new.dir()).ok()?;
        (stat.f_bavail.saturating_mul(stat.f_frsize) < self.caps.min_free).then(|| Error::Limit {
            what: "the disk's free room (TOLV_MIN_FREE), which has to stay,".to_owned(),
            limit: bytes(self.caps.min_free),
        })
    }
}

/// Whether a repository has a commit.
fn has(repository: &Repository, commit: &str) -> Result<bool, Error> {
    let object = format!("{commit}^{{commit}}");
    let answer = repository.ask(&GitCommand::new(GitAccess::Read, ["cat-file", "-e", &object]))?;
    Ok(answer.code == 0)
}

/// A commit's first digits.
fn head(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}
