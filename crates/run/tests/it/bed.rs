//! One engine under test, with its runtime, its folder and everything it said.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tolv_logs::{Line, Source};
use tolv_model::env::Env;
use tolv_model::formation::Formation;
use tolv_model::name::{Deploy, DeployName};
use tolv_model::release::{Release, ReleaseNumber};
use tolv_model::service::HostServices;
use tolv_model::slug::{Digest, SlugId};
use tolv_run::{Endpoint, Error, Exit, Local, OneOff, Outcome, ProcessState, Settings, Target};
use tolv_sandbox::{Level, Machine, Mount, NetworkChoice, Spawner};
use tolv_testkit::{Home, http, poll};

/// For what takes some milliseconds on a machine that does nothing else.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A web process: answers with its name, its release and its port, and says where it listens.
pub(crate) const WEB: &str = r#"
use IO::Socket::INET;
$| = 1;
my $at = $ENV{LISTEN} // $ENV{PORT};
my $server = IO::Socket::INET->new(
    LocalAddr => '127.0.0.1', LocalPort => $at, Listen => 64, ReuseAddr => 1,
) or die "cannot listen on $at: $!";
print "listening on ", $server->sockport, "\n";
while (my $client = $server->accept) {
    while (my $line = <$client>) { last if $line =~ /^\r?$/ }
    my $body = "$ENV{TOLV_PROCESS} $ENV{TOLV_RELEASE} $ENV{PORT}";
    my $status = $ENV{STATUS} // 200;
    print $client "HTTP/1.0 $status It\r\nContent-Length: ", length $body, "\r\n\r\n$body";
    close $client;
}
"#;

/// A worker that does nothing until it is told to end.
pub(crate) const IDLE: &str = "sleep $MARK";

/// Runs the test at every level that can be had here, all at once.
pub(crate) fn each_level(test: impl Fn(Level) + Sync) {
    let machine = machine();
    thread::scope(|scope| {
        for (level, missing) in &machine.levels {
            match missing {
                Some(reason) => println!("{level} cannot be had here: {reason}"),
                None => {
                    let named = thread::Builder::new().name(level.to_string());
                    named.spawn_scoped(scope, || test(*level)).unwrap();
                }
            }
        }
    });
}

/// The strongest level that can be had here, for what does not depend on it.
pub(crate) fn best() -> Level {
    let machine = machine();
    let best = machine.levels.iter().find(|(_, missing)| missing.is_none());
    *best.unwrap().0
}

/// What this machine gives.
pub(crate) fn machine() -> Machine {
    Machine::probe(&spawner(), NetworkChoice::Auto).unwrap()
}

pub(crate) fn spawner() -> Spawner {
    let program = OTHER_SPAWNER.get().map_or(Path::new(SPAWNER), PathBuf::as_path);
    Spawner::start(program, &[]).unwrap()
}

pub(crate) const SPAWNER: &str = env!("CARGO_BIN_EXE_run-spawner");

/// In a program of another version, its spawner.
pub(crate) static OTHER_SPAWNER: OnceLock<PathBuf> = OnceLock::new();

/// Numbers that `sleep` takes, and nobody else on this machine uses.
pub(crate) fn mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("86{:09}{:03}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The engine goes before its runtime, both before the folder.
pub(crate) struct Bed {
    engine: Option<Local>,
    runtime: Runtime,
    lines: Arc<Mutex<Vec<Line>>>,
    reader: Option<JoinHandle<()>>,
    pub(crate) mark: String,
    folder: PathBuf,
    _home: Option<Home>,
}

impl Bed {
    pub(crate) fn new(level: Level) -> Self {
        Self::with(level, |_| {})
    }

    /// With other settings.
    pub(crate) fn with(level: Level, change: impl FnOnce(&mut Settings)) -> Self {
        let (mut bed, lines) = Self::unread(level, change);
        bed.read(lines);
        bed
    }

    /// With other settings, and nobody who reads the lines.
    pub(crate) fn unread(
        level: Level,
        change: impl FnOnce(&mut Settings),
    ) -> (Self, mpsc::Receiver<Line>) {
        let home = Home::new();
        let folder = home.path().to_owned();
        let (mut bed, lines) = Self::at(level, folder, mark(), change);
        bed._home = Some(home);
        (bed, lines)
    }

    /// In a folder of somebody else, with a reader.
    pub(crate) fn again(
        level: Level,
        folder: &Path,
        mark: &str,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let (mut bed, lines) = Self::at(level, folder.to_owned(), mark.to_owned(), change);
        bed.read(lines);
        bed
    }

    fn read(&mut self, mut lines: mpsc::Receiver<Line>) {
        let all = Arc::clone(&self.lines);
        self.reader = Some(thread::spawn(move || {
            while let Some(line) = lines.blocking_recv() {
                all.lock().unwrap().push(line);
            }
        }));
    }

    /// In a folder of somebody else.
    pub(crate) fn at(
        level: Level,
        folder: PathBuf,
        mark: String,
        change: impl FnOnce(&mut Settings),
    ) -> (Self, mpsc::Receiver<Line>) {
        // Level user enters it as somebody who is not root.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["app", "shared"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        let runtime = Runtime::new().unwrap();
        let mut settings = Settings::new(spawner(), level, folder.join("logs"));
        if level == Level::Strict && machine().network.is_none() {
            settings.host_services = Some(HostServices::default());
        }
        let timing = &mut settings.timing;
        timing.boot = SOON;
        timing.grace = SOON;
        timing.drain = SOON;
        timing.uptime = Duration::from_millis(100);
        timing.back_off = Duration::from_millis(300);
        timing.back_off_max = Duration::from_secs(1);
        change(&mut settings);
        let (engine, lines) = {
            let _inside = runtime.enter();
            Local::new(settings).unwrap()
        };
        let bed = Self {
            engine: Some(engine),
            runtime,
            lines: Arc::default(),
            reader: None,
            mark,
            folder,
            _home: None,
        };
        bed.file("web.pl", WEB);
        (bed, lines)
    }

    pub(crate) fn engine(&self) -> &Local {
        self.engine.as_ref().unwrap()
    }

    /// Gives the last handle away.
    pub(crate) fn take_engine(&mut self) -> Local {
        self.engine.take().unwrap()
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The slug.
    pub(crate) fn app(&self) -> PathBuf {
        self.folder.join("app")
    }

    /// A folder that the processes see as `$SHARED`, and may write.
    pub(crate) fn shared(&self) -> PathBuf {
        self.folder.join("shared")
    }

    /// Puts a file into the slug.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.app().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// A release with these types, their commands and quantities.
    pub(crate) fn target(&self, number: u32, types: &[(&str, &str, u16)]) -> Target {
        let mut config = Env::default();
        config.set("MARK".parse().unwrap(), self.mark.as_bytes()).unwrap();
        let kinds = || types.iter().map(|(kind, ..)| kind.parse().unwrap());
        let commands = types.iter().map(|(_, command, _)| (*command).to_owned());
        let quantities = types.iter().map(|(.., quantity)| *quantity);
        let release = Release {
            deploy: Deploy { app: "shop".parse().unwrap(), name: DeployName::local() },
            number: ReleaseNumber(number),
            slug: SlugId(Digest::of(self.mark.as_bytes())),
            commit: None,
            config,
            process_types: kinds().zip(commands).collect(),
            formation: Formation(kinds().zip(quantities).collect()),
        };
        Target {
            release: Arc::new(release),
            stack: Vec::new(),
            mounts: vec![
                Mount::read_only(self.app(), "/app"),
                Mount::read_write(self.shared(), "/shared"),
            ],
            slug_env: BTreeMap::from([("SHARED".to_owned(), "/shared".to_owned())]),
            slug_path: Vec::new(),
            profile: Vec::new(),
            checks: BTreeMap::new(),
            limits: tolv_run::TypeLimits::default(),
        }
    }

    pub(crate) fn converge(&self, target: Target) -> Result<Outcome, Error> {
        self.runtime.block_on(self.engine().converge(target))
    }

    /// Runs `command` to its end, as `run.1`.
    pub(crate) fn run(&self, command: &str) -> Result<Exit, Error> {
        let target = self.target(1, &[]);
        let name = "run.1".parse().unwrap();
        let one_off = OneOff { target, name, command: command.to_owned(), limit: None };
        self.runtime.block_on(self.engine().run_once(one_off))
    }

    /// Stops everything, and waits for the last line.
    pub(crate) fn stop(&mut self) {
        self.runtime.block_on(self.engine().stop());
        self.read_to_end();
    }

    pub(crate) fn read_to_end(&mut self) {
        if let Some(reader) = self.reader.take() {
            poll(SOON, "the end of the lines", || reader.is_finished().then_some(()));
        }
    }

    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        self.engine().endpoints().borrow().processes.clone()
    }

    /// The only process of this name.
    #[track_caller]
    pub(crate) fn endpoint(&self, name: &str) -> Endpoint {
        let mut all = self.endpoints();
        all.retain(|process| process.process.to_string() == name);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// Waits until the only process of this name is in this state, after so many restarts.
    #[track_caller]
    pub(crate) fn wait_for(&self, name: &str, state: ProcessState, restarts: u32) -> Endpoint {
        poll(SOON, &format!("{name} to be {state}"), || {
            let process = self.endpoint(name);
            (process.state == state && process.restarts == restarts).then_some(process)
        })
    }

    /// Whose answer requests would get now, in the order of the list.
    pub(crate) fn answers(&self) -> Vec<String> {
        let endpoints = self.engine().endpoints().borrow().clone();
        endpoints.web().map(answer).collect()
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap().clone()
    }

    /// What the app wrote, as this process.
    pub(crate) fn output(&self, process: &str) -> Vec<String> {
        self.texts(process, Source::App)
    }

    /// What the platform said of this process.
    pub(crate) fn said(&self, process: &str) -> Vec<String> {
        self.texts(process, Source::Tolv)
    }

    fn texts(&self, process: &str, source: Source) -> Vec<String> {
        let lines = self.lines();
        let its = lines.iter().filter(|line| &*line.process == process && line.source == source);
        its.map(text).collect()
    }

    /// Waits for a line, of the app or the platform.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, process: &str, wanted: &str) {
        poll(SOON, &format!("`{wanted}` of {process}"), || {
            let lines = self.lines();
            let mut its = lines.iter().filter(|line| &*line.process == process);
            its.any(|line| text(line) == wanted).then_some(())
        });
    }

    /// Processes that bear the mark: their pids and command lines.
    pub(crate) fn left(&self) -> Vec<String> {
        left(&self.mark)
    }

    #[track_caller]
    pub(crate) fn wait_until_none_is_left(&self) {
        poll(SOON, "every process to be gone", || self.left().is_empty().then_some(()));
    }
}

/// What the process answers to a request.
#[track_caller]
pub(crate) fn answer(process: &Endpoint) -> String {
    let Some(network) = process.connector.network() else {
        return http::get(process.address, "shop.localhost", "/").unwrap().text();
    };
    let socket = network.tcp_socket(&process.address).unwrap();
    rustix::io::ioctl_fionbio(&socket, false).unwrap();
    rustix::net::connect(&socket, &process.address).unwrap();
    http::get_over(socket.into(), "shop.localhost", "/").unwrap().text()
}

pub(crate) fn text(line: &Line) -> String {
    String::from_utf8_lossy(&line.text).into_owned()
}

pub(crate) fn names(processes: &[tolv_model::name::ProcessName]) -> Vec<String> {
    processes.iter().map(ToString::to_string).collect()
}

/// Processes with this mark in their environment or their arguments.
pub(crate) fn left(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let Ok(arguments) = fs::read(path.join("cmdline")) else { continue };
        let mut bytes = fs::read(path.join("environ")).unwrap_or_default();
        bytes.extend(&arguments);
        if bytes.windows(mark.len()).any(|window| window == mark.as_bytes()) {
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            found.push(format!("{}: {arguments}", entry.file_name().display()));
        }
    }
    found
}
