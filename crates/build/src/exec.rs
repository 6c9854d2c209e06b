//! Runs a plan's steps in the sandbox: bounded in time and disk, stoppable, line by line.
//!
//! The environment of a step is made from nothing. Of the operator's variables it gets those in
//! [`Host::registry`](crate::Host), which [`passes`] names (registries, proxies, CA certificates).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tolv_model::env::Env;
use tolv_model::service::services_in;
use tolv_sandbox::{Cancel, Exec, Job, Level, Mount, Network, Spawner, Spec, Stream};

use self::cause::Cause;
use crate::caps::{Caps, bytes, time};
use crate::plan::{Plan, Step};
use crate::stacks::Stack;
use crate::toolchains::Layout;
use crate::{Error, Event, files};

mod cause;

/// Lines of a failed step that its warning repeats.
const MAX_WARNED: usize = 12;
/// Most bytes of an answer that is taken in whole.
const MAX_ANSWER: usize = 64 * 1024;
/// A line longer than this is cut in pieces.
const LONGEST_LINE: usize = 16 * 1024;
/// The stack's own program folders.
const STACK_PATH: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];
/// What is called the stack where there is none: the machine's own programs.
const STACK: &str = "host";
/// The one time that a build knows of: 1980-01-01T00:00:01Z, which every archive format can write.
const EPOCH: &str = "315532801";

/// Variables whose value names a file or folder that a step must see.
const FILES: [&str; 13] = [
    "CARGO_HTTP_CAINFO",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "NPM_CONFIG_CAFILE",
    "NPM_CONFIG_USERCONFIG",
    "PIP_CERT",
    "PIP_CONFIG_FILE",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "UV_CONFIG_FILE",
    "npm_config_cafile",
];

/// Others that a build may get.
const PASSED: [&str; 29] = [
    "ALL_PROXY",
    "DISABLE_COLLECTSTATIC",
    "GONOPROXY",
    "GONOSUMDB",
    "GOPRIVATE",
    "GOPROXY",
    "GOSUMDB",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "NPM_CONFIG_PROXY",
    "NPM_CONFIG_HTTPS_PROXY",
    "NPM_CONFIG_REGISTRY",
    "PIP_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "RUSTUP_DIST_SERVER",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_NATIVE_TLS",
    "UV_PYTHON_INSTALL_MIRROR",
    "YARN_NPM_REGISTRY_SERVER",
    "all_proxy",
    "https_proxy",
    "http_proxy",
    "no_proxy",
    "npm_config_registry",
];

/// Whether a build gets this variable of the caller's environment.
pub fn passes(name: &str) -> bool {
    PASSED.contains(&name)
        || FILES.contains(&name)
        || ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_SOURCE_", "UV_INDEX_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Mounts for the files that passed variables name.
pub(crate) fn named_files(env: &BTreeMap<String, OsString>) -> Vec<Mount> {
    let named = env.iter().filter(|(name, _)| FILES.contains(&name.as_str()));
    let mut paths: Vec<PathBuf> = named.map(|(_, value)| PathBuf::from(value)).collect();
    // What the stack brings needs no mount.
    let stack = ["/usr", "/etc/ssl", "/bin", "/lib", "/lib64"];
    paths.retain(|path| {
        path.is_absolute() && path.exists() && !stack.iter().any(|known| path.starts_with(known))
    });
    paths.sort();
    paths.dedup();
    paths.into_iter().map(|path| Mount::read_only(path.clone(), path)).collect()
}

/// What all steps of one build share.
pub(crate) struct Executor<'a> {
    pub(crate) spawner: &'a Spawner,
    pub(crate) level: Level,
    pub(crate) identity: String,
    pub(crate) layout: &'a Layout,
    /// What its steps find below their mounts; the machine's own without one.
    pub(crate) stack: Option<&'a Stack>,
    pub(crate) env: &'a BTreeMap<String, OsString>,
    pub(crate) caps: Caps,
    pub(crate) cancelled: &'a (dyn Fn() -> bool + Sync),
    /// End of the build's time.
    pub(crate) deadline: Instant,
    /// The cache on the host.
    pub(crate) cache: &'a Path,
    /// What is built: `<hex>`, `<hex>+dirty`.
    pub(crate) commit: Option<&'a str>,
    /// Config that its steps get.
    pub(crate) config: &'a Env,
}

impl Executor<'_> {
    /// Proxies and registries on this machine, as the operator's variables name them.
    fn services(&self) -> Vec<SocketAddr> {
        let values = self.env.values().filter_map(|value| value.to_str());
        let found: BTreeSet<_> = values.flat_map(services_in).collect();
        found.into_iter().collect()
    }

    /// Runs one step. `grows` are the folders on the host whose size is watched, with their names.
    pub(crate) fn run(
        &self,
        plan: &Plan,
        step: &Step,
        mounts: &[Mount],
        grows: &[(&str, &Path)],
        events: &mut dyn FnMut(Event),
    ) -> Result<(), Error> {
        self.run_with(plan, step, (mounts, grows), None, events)
    }

    /// Runs one step, and gives what it wrote to its standard output.
    pub(crate) fn ask(
        &self,
        plan: &Plan,
        step: &Step,
        mounts: &[Mount],
        grows: &[(&str, &Path)],
        events: &mut dyn FnMut(Event),
    ) -> Result<Vec<u8>, Error> {
        let mut answer = Vec::new();
        self.run_with(plan, step, (mounts, grows), Some(&mut answer), events)?;
        if answer.len() > MAX_ANSWER {
            let what = format!("the answer of `{}`", words(step));
            return Err(Error::Limit { what, limit: bytes(MAX_ANSWER as u64) });
        }
        Ok(answer)
    }

    fn run_with(
        &self,
        plan: &Plan,
        step: &Step,
        (mounts, grows): (&[Mount], &[(&str, &Path)]),
        mut answer: Option<&mut Vec<u8>>,
        events: &mut dyn FnMut(Event),
    ) -> Result<(), Error> {
        let command = words(step);
        let failed = |how: String, cause: Cause<'_>| {
            let (last, help) = cause.told();
            Error::Step { command: command.clone(), how, last, help }
        };
        if (self.cancelled)() {
            return Err(Error::Cancelled);
        }
        if !step.heading.is_empty() {
            events(Event::Heading(step.heading.clone()));
        }
        let mut spec = Spec::new(self.level, &self.identity);
        spec.stack = self.stack.map(|stack| stack.build.clone()).unwrap_or_default();
        spec.mounts = mounts.to_vec();
        spec.home = self.layout.cache.join("home");
        spec.hostname = "build".to_owned();
        spec.network = Network::Own { services: self.services() };
        spec.limits = self.caps.room.into();
        let exec = Exec {
            argv: step.via.iter().chain(&step.argv).map(|word| word.as_bytes().to_vec()).collect(),
            env: self.environment(plan, step),
            cwd: step.cwd.clone(),
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        let job = Job { spec, exec, time_limit: Some(left) };
        let cancel = Cancel::new().map_err(Error::io("make", "a cancel handle"))?;
        let (mut lines, mut cause) = (Lines::default(), Cause::new(&step.hints));
        let mut said: Vec<String> = Vec::new();
        let mut tell = |line: &[u8]| {
            cause.take(line);
            match step.warns {
                None => events(Event::Line(line.to_vec())),
                Some(_) if said.len() < MAX_WARNED => {
                    said.push(String::from_utf8_lossy(line).into_owned());
                }
                Some(_) => {}
            }
        };
        let stopped = Mutex::new(None);
        let (done, watching) = channel::<()>();
        let ended = std::thread::scope(|scope| {
            let (cancel_here, stopped) = (cancel.clone(), &stopped);
            let watcher = std::thread::Builder::new().name("watch".to_owned());
            let watching = watcher.spawn_scoped(scope, move || {
                if let Some(why) = self.watch(grows, &watching) {
                    *stopped.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(why);
                    cancel_here.cancel();
                }
            });
            // Without a thread nobody would see that it grows over its budget.
            watching
                .map_err(|source| tolv_sandbox::Error::Io { what: "start a thread", source })?;
            let ended = tolv_sandbox::run(
                self.spawner,
                &job,
                &mut |stream, chunk| match (&mut answer, stream) {
                    (Some(answer), Stream::Out) => {
                        let room = (MAX_ANSWER + 1).saturating_sub(answer.len());
                        answer.extend_from_slice(&chunk[..chunk.len().min(room)]);
                    }
                    _ => lines.feed(chunk, &mut tell),
                },
                &cancel,
            );
            drop(done);
            ended
        });
        lines.finish(&mut tell);
        let stopped = stopped.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(why) = stopped {
            return Err(why);
        }
        let status = match ended {
            Ok(status) => status,
            Err(tolv_sandbox::Error::Cancelled) => return Err(Error::Cancelled),
            Err(tolv_sandbox::Error::TimeLimit { .. }) => {
                return Err(Error::Limit {
                    what: format!("the time of the build, in `{command}`,"),
                    limit: time(self.caps.time),
                });
            }
            Err(tolv_sandbox::Error::Exec(bad)) => {
                return Err(failed(format!("could not be started: {bad}"), cause));
            }
            Err(other) => return Err(Error::Sandbox(other)),
        };
        if status.success() {
            // The watcher looks now and then; a step that ends in between is looked at once more.
            return self.over_budget(grows).map_or(Ok(()), Err);
        }
        let how = match (status.code, status.signal) {
            // What was killed may be a program that the step had started.
            _ if status.oom_kills > 0 => match self.caps.room.memory {
                Some(limit) => format!(
                    "ran out of memory: a build may have {} (TOLV_BUILD_SIZE)",
                    bytes(limit)
                ),
                None => "ran out of memory".to_owned(),
            },
            (Some(code), _) => format!("exited with status {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "ended without a status".to_owned(),
        };
        if let Some(title) = step.warns {
            events(Event::Warning(format!("{title}:\n{}", said.join("\n"))));
            return Ok(());
        }
        Err(failed(how, cause))
    }

    /// Until the step is over: why it has to be stopped, if so.
    fn watch(
        &self,
        grows: &[(&str, &Path)],
        step: &std::sync::mpsc::Receiver<()>,
    ) -> Option<Error> {
        let tick = Duration::from_millis(50);
        let mut next = Instant::now() + 4 * tick;
        loop {
            match step.recv_timeout(tick) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return None,
            }
            if (self.cancelled)() {
                return Some(Error::Cancelled);
            }
            let start = Instant::now();
            if start >= next {
                if let Some(over) = self.over_budget(grows) {
                    return Some(over);
                }
                // A big tree takes a while to add up; spend a twentieth of the time at most.
                next = Instant::now() + (start.elapsed() * 20).max(4 * tick);
            }
        }
    }

    fn over_budget(&self, grows: &[(&str, &Path)]) -> Option<Error> {
        if self.caps.min_free > 0
            && let Ok(stat) = rustix::fs::statvfs(self.cache)
            && stat.f_bavail.saturating_mul(stat.f_frsize) < self.caps.min_free
        {
            let what = "the disk's free room (TOLV_MIN_FREE), which has to stay,".to_owned();
            return Some(Error::Limit { what, limit: bytes(self.caps.min_free) });
        }
        let cache = ("the build cache", self.cache, self.caps.cache);
        let grows = grows.iter().map(|(name, path)| (*name, *path, self.caps.slug));
        grows
            .chain([cache])
            .find(|(_, path, limit)| files::disk_use(path) > *limit)
            .map(|(name, _, limit)| Error::Limit { what: name.to_owned(), limit: bytes(limit) })
    }

    fn environment(&self, plan: &Plan, step: &Step) -> Vec<Vec<u8>> {
        let mut env: BTreeMap<String, OsString> = BTreeMap::new();
        env.insert("LANG".into(), "C.UTF-8".into());
        env.extend(self.env.iter().map(pair));
        let config = self.config.iter().filter(|(name, _)| name.enters_builds());
        env.extend(config.filter(|_| !step.without_config).map(|(name, value)| {
            let value = std::ffi::OsStr::from_bytes(value.as_bytes()).to_owned();
            (name.as_str().to_owned(), value)
        }));
        env.insert("HOME".into(), self.layout.cache.join("home").into());
        env.insert("SOURCE_DATE_EPOCH".into(), EPOCH.into());
        let stack = self.stack.map_or(STACK, |stack| stack.id.name.as_str());
        env.insert("STACK".into(), stack.into());
        if let Some(commit) = self.commit {
            env.insert("SOURCE_VERSION".into(), commit.into());
        }
        env.extend(plan.build_env.iter().map(pair));
        env.extend(step.env.iter().map(pair));
        let folders = plan.build_path.iter().map(|path| path.as_os_str().as_bytes());
        let stack = STACK_PATH.iter().map(|path| path.as_bytes());
        let path: Vec<&[u8]> = folders.chain(stack).collect();
        env.entry("PATH".into())
            .or_insert_with(|| std::ffi::OsStr::from_bytes(&path.join(&b':')).to_owned());
        env.iter().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect()
    }
}

fn pair((name, value): (&String, &OsString)) -> (String, OsString) {
    (name.clone(), value.clone())
}

/// A step's command for messages.
pub(crate) fn words(step: &Step) -> String {
    let words = step.argv.iter().map(|word| {
        let word = word.to_string_lossy();
        if word.is_empty() || word.contains([' ', '\n', '\'', '"', '\\', '$']) {
            format!("{word:?}")
        } else {
            word.into_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Cuts output into lines. `\r\n` ends a line; a progress line redrawn with `\r` is kept as it
/// was last drawn.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    after_return: bool,
}

impl Lines {
    fn feed(&mut self, chunk: &[u8], tell: &mut dyn FnMut(&[u8])) {
        for &byte in chunk {
            match byte {
                b'\n' => {
                    tell(&self.line);
                    self.line.clear();
                    self.after_return = false;
                }
                b'\r' => self.after_return = true,
                byte => {
                    if std::mem::take(&mut self.after_return) {
                        self.line.clear();
                    }
                    if self.line.len() == LONGEST_LINE {
                        tell(&self.line);
                        self.line.clear();
                    }
                    self.line.push(byte);
                }
            }
        }
    }

    fn finish(&mut self, tell: &mut dyn FnMut(&[u8])) {
        if !self.line.is_empty() {
            tell(&self.line);
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests;
