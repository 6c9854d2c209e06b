//! `tolv serve`: settings in, the platform and its server until a signal.

use std::convert::Infallible;
use std::io::{self, IsTerminal as _, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tolv_logs::{Form, Line, View};
use tolv_platform::{
    Blobs, DatabaseUrl, Http, KEEP_ALIVE, Kind, Options, Platform, Said, SecretKey, Sizing, bind,
    keep_threads,
};
use tolv_server::Server;

use crate::args::Serve;
use crate::cli::Failure;
use crate::output;
use crate::settings::{ITSELF, Settings};
use crate::upgrade::{self, Heir, Predecessor, Sockets, Successor, connections};

/// Lines that are written together.
const AT_ONCE: usize = 512;
/// For operations under way to end before another program goes on.
const OPERATIONS: Duration = Duration::from_secs(10 * 60);
/// For answers under way when this one ends, and when another program goes on: a push waits for what
/// that one makes of it.
const ANSWERS: Duration = Duration::from_secs(30);
const ANSWERS_AT_UPGRADE: Duration = Duration::from_secs(40 * 60);
/// For requests and pushes that have begun to be answered before another program goes on.
const BEGUN: Duration = Duration::from_secs(3);
/// For what is killed to be gone.
const KILLED: Duration = Duration::from_secs(2);
/// For standard output to take the last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The API, until it has ended.
type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The signals that end a program.
struct Told {
    int: Signal,
    term: Signal,
}

impl Told {
    fn listen() -> io::Result<Self> {
        let int = signal(SignalKind::interrupt())?;
        Ok(Self { int, term: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }
}

/// For launches, git and files while no thread can be made.
const SPARE_THREADS: usize = 16;

/// Why it stops.
enum End {
    Told,
    /// Another platform has the database.
    Ousted(String),
    /// Another program goes on.
    Upgrade(Successor, Heir),
}

/// Runs until a signal, or until it cannot begin.
pub(crate) fn serve(args: Serve, settings: &Settings) -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_keep_alive(KEEP_ALIVE);
    let runtime = match builder.build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&error, None),
    };
    drop(runtime.spawn(keep_threads(SPARE_THREADS)));
    let code = match runtime.block_on(run(args, settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    };
    runtime.shutdown_background();
    code
}

async fn run(args: Serve, settings: &Settings) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(error.to_string());
    let mut told = Told::listen().map_err(|error| failed(&error))?;
    let mut upgrade = signal(SignalKind::user_defined2()).map_err(|error| failed(&error))?;
    // A terminal that is closed takes no platform along, and there is nothing to read again.
    let _unheard = [SignalKind::hangup(), SignalKind::user_defined1()].map(signal);
    let mut options = options(&args, settings)?;
    let home = options.home.path().display().to_string();
    let mut predecessor = None;
    // Before the platform: an address that is taken must not start and stop every app.
    let api = if args.successor {
        let none = |error: io::Error| {
            Failure::new(format!("nothing was handed on: {error}"))
                .hint("`--successor` is for an upgrade, which SIGUSR2 to a `tolv serve` begins")
        };
        let mut old = Predecessor::meet().map_err(none)?;
        let tried = Platform::try_out(&options).await;
        tried.map_err(|error| Failure { hint: error.hint(), ..Failure::new(error.chain()) })?;
        let Sockets { api, http } = old.sockets().map_err(none)?;
        predecessor = Some(old);
        options.http = Http::Socket(Arc::new(http));
        api
    } else {
        let bound = bind(args.listen).await.and_then(tokio::net::TcpListener::into_std);
        bound.map_err(|error| {
            Failure::new(format!("cannot listen on {}: {error}", args.listen)).hint(
                "another one may run: TOLV_LISTEN, TOLV_HTTP and TOLV_HOME give this one its own",
            )
        })?
    };
    let address = api.local_addr().map_err(|error| failed(&error))?;
    let listener = asynchronous(&api).map_err(|error| failed(&error))?;
    let url = args.url.clone().unwrap_or_else(|| format!("http://{}", reached_at(address)));
    let domain = options.domain.clone();
    let started = Platform::start(options).await;
    let (platform, lines) =
        started.map_err(|error| Failure { hint: error.hint(), ..Failure::new(error.chain()) })?;
    let form = match args.json {
        true => Form::Json,
        false => Form::Text { color: settings.color(), terminal: io::stdout().is_terminal() },
    };
    let (notices, noticed) = mpsc::unbounded_channel();
    let written = write_lines(lines, noticed, form).map_err(|error| failed(&error))?;
    let say = |text: String| {
        // The writer lives as long as the platform.
        notices.send(text).ok();
    };
    say(format!("State in {home}, sandbox level {}", platform.level()));
    for what in platform.missing() {
        say(format!("Without: {what}"));
    }
    for what in platform.sizes_beyond() {
        say(format!("Warning: {what}"));
    }
    let http = platform.http();
    say(format!("Apps at http://APP.{domain}:{}, router on {http}", http.port()));
    let token = match platform.first_token().await {
        // It is not the first start, then.
        Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Full) => None,
        token => {
            token.map_err(|error| Failure { hint: error.hint(), ..Failure::new(error.chain()) })?
        }
    };
    if let Some(token) = token {
        say(format!("The owner's token, shown this once: {token}"));
        say(format!("Next: tolv login {url} --token …"));
    }
    let faults = notices.clone();
    let server = Server::new(platform.clone(), url.clone(), move |text| {
        faults.send(format!("Fault: {text}")).ok();
    });
    let server =
        server.map_err(|error| Failure { hint: error.hint(), ..Failure::new(error.chain()) })?;
    let (stop, mut stopping) = watch::channel(None);
    let api_server = server.clone();
    let mut serving: Serving = Box::pin(async move {
        let stopped = async move {
            let grace = stopping.wait_for(Option::is_some).await;
            grace.ok().and_then(|grace| *grace).unwrap_or(ANSWERS)
        };
        server.serve(listener, stopped).await;
    });
    say(format!("API at {url}"));
    if !address.ip().to_canonical().is_loopback() {
        say(format!(
            "Warning: the API on {address} is not encrypted: tokens and code can be read on their \
             way. Let it listen on 127.0.0.1 (TOLV_LISTEN) behind a proxy that speaks HTTPS, whose \
             address TOLV_URL tells"
        ));
    }
    match predecessor {
        Some(old) => {
            notify(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
            let took = platform.clone();
            let taken = connections::receive(old.up(), move |connection| {
                // One whose client is gone needs nothing.
                took.adopt(connection).ok();
            });
            taken.map_err(|error| failed(&error))?;
        }
        None => notify(&[NotifyState::Ready]),
    }
    let end = loop {
        tokio::select! {
            // Which ends only when it is told to.
            () = &mut serving => break End::Told,
            () = told.wait() => break End::Told,
            by = platform.ousted() => break End::Ousted(by),
            _ = upgrade.recv() => {}
        }
        let (program, heir) = (settings.program.clone(), Heir::default());
        say(format!("Upgrade: starting {}", program.display()));
        let to_start = heir.clone();
        let trial = spawn_blocking(move || Successor::start(&program, &to_start));
        let end = tokio::select! {
            () = &mut serving => Err(End::Told),
            () = told.wait() => Err(End::Told),
            by = platform.ousted() => Err(End::Ousted(by)),
            started = trial => Ok(started),
        };
        let started = match end {
            Ok(started) => started,
            Err(end) => {
                heir.give_up();
                break end;
            }
        };
        // Another one meanwhile meant this trial.
        tokio::select! {
            biased;
            _ = upgrade.recv() => {}
            () = std::future::ready(()) => {}
        }
        let successor = match started.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(successor) => successor,
            Err(error) => {
                say(format!("Upgrade failed, this platform goes on: {error}"));
                continue;
            }
        };
        let under_way = platform.operations_under_way();
        if !under_way.is_empty() {
            let under_way: Vec<_> = under_way.iter().map(ToString::to_string).collect();
            say(format!(
                "Upgrade: waiting for {} (another SIGUSR2 cuts it off)",
                under_way.join(", ")
            ));
        }
        let end = tokio::select! {
            biased;
            () = told.wait() => Some(End::Told),
            by = platform.ousted() => Some(End::Ousted(by)),
            () = &mut serving => Some(End::Told),
            () = successor.is_gone() => {
                platform.begin_operations();
                let why = spawn_blocking(move || successor.why()).await;
                let why = why.unwrap_or_else(io::Error::other);
                say(format!("Upgrade failed, this platform goes on: {why}"));
                continue;
            }
            () = platform.finish_operations() => None,
            () = tokio::time::sleep(OPERATIONS) => None,
            _ = upgrade.recv() => None,
        };
        match end {
            Some(end) => {
                heir.give_up();
                break end;
            }
            None => break End::Upgrade(successor, heir),
        }
    };
    stop.send_replace(Some(match &end {
        End::Upgrade(..) => ANSWERS_AT_UPGRADE,
        End::Told | End::Ousted(_) => ANSWERS,
    }));
    let ousted = match &end {
        End::Ousted(by) => Some(
            Failure::new(format!("another platform runs on this database now: {by}"))
                .hint("while the database was away that one came; stop one of the two for good"),
        ),
        End::Told | End::Upgrade(..) => None,
    };
    if let End::Upgrade(successor, heir) = end {
        let to_hand_over = heir.clone();
        let (watch, watched) = oneshot::channel();
        let handed = async move {
            // What comes from here on waits for the new one.
            let begun = async {
                api_server.answered().await;
                // Every push that is on its way has begun by now.
                platform.decided_pushes().await;
            };
            tokio::time::timeout(BEGUN, begun).await.ok();
            drop(api_server);
            hand_over(platform, api, (successor, to_hand_over), notices, watch).await
        };
        let both = async {
            tokio::select! {
                (outcome, ()) = async { tokio::join!(handed, serving) } => outcome,
                never = abandon_with(watched) => match never {},
            }
        };
        let outcome = until_told_twice(told, heir, both).await;
        tokio::time::timeout(LAST_LINES, written).await.ok();
        return outcome;
    }
    drop(api);
    if let End::Ousted(by) = &end {
        say(format!(
            "Another platform runs on this database now: {by}. This one stops its own processes and \
             ends; it writes nothing more"
        ));
    }
    notify(&[NotifyState::Stopping]);
    say("Stopping; another signal kills".to_owned());
    let orderly = async { tokio::join!(serving, platform.end()) };
    tokio::select! {
        _ = orderly => {}
        () = told.wait() => {
            platform.kill();
            tokio::time::timeout(KILLED, platform.end()).await.ok();
        }
    }
    // With the platform its lines end.
    drop((platform, api_server, notices));
    tokio::time::timeout(LAST_LINES, written).await.ok();
    ousted.map_or(Ok(()), Err)
}

/// Whoever ends the platform meanwhile means the one that goes on; a second time, this one too.
async fn until_told_twice(
    mut told: Told,
    heir: Heir,
    handed: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let twice = async {
        told.wait().await;
        heir.terminate();
        told.wait().await;
        Ok(())
    };
    tokio::select! {
        outcome = handed => outcome,
        outcome = twice => outcome,
    }
}

/// Lets `successor` go on, and finishes what is under way here.
async fn hand_over(
    platform: Platform,
    api: TcpListener,
    (successor, heir): (Successor, Heir),
    notices: mpsc::UnboundedSender<String>,
    watched: oneshot::Sender<Watched>,
) -> Result<(), Failure> {
    // Before it: afterwards there is none any more.
    let Some(http) = platform.listener() else { return Ok(()) };
    platform.leave().await;
    let (told, said) = (heir.clone(), notices.clone());
    let say = move |text| {
        said.send(text).ok();
    };
    let handed = spawn_blocking(move || {
        let sockets = Sockets { api, http: http.try_clone()? };
        successor.go_on(&sockets, &told, say)
    });
    let handed = handed.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    let (handed, new) = handed.map_err(|error| {
        Failure::new(format!("the new platform does not go on: {error}"))
            .hint("what runs is left running: start `tolv serve` again")
    })?;
    let mut which = "";
    if let Some(error) = handed {
        notices.send(format!("Upgrade failed: the new platform does not go on: {error}")).ok();
        which = "it is this version again, and ";
    }
    let id = heir.id();
    notices
        .send(format!("Handed over to process {id}; {which}requests in flight finish here"))
        .ok();
    let (child, socket) = new.into_parts();
    // It is gone where this program is: then nobody watches.
    watched.send((child, platform.clone(), notices)).ok();
    let (to_heir, waiting) = mpsc::unbounded_channel();
    let passed_on = spawn_blocking(move || connections::send(&socket, waiting));
    platform.finish(to_heir).await;
    passed_on.await.ok();
    Ok(())
}

/// The program that takes requests, and the platform that was handed over to it.
type Watched = (Child, Platform, mpsc::UnboundedSender<String>);

/// Tells what still waits for the new program where that has crashed or was killed. An upgrade or an
/// orderly end of its own leaves nothing undone.
async fn abandon_with(watched: oneshot::Receiver<Watched>) -> Infallible {
    if let Ok((new, platform, notices)) = watched.await {
        let ended = spawn_blocking(move || upgrade::crash_of(&new)).await;
        if let Ok(Some(how)) = ended {
            notices.send(format!("The new program {how}: this one ends too")).ok();
            platform.abandon();
        }
    }
    std::future::pending().await
}

fn asynchronous(listener: &TcpListener) -> io::Result<tokio::net::TcpListener> {
    let listener = listener.try_clone()?;
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// Tells systemd, where it started this.
fn notify(states: &[NotifyState<'_>]) {
    // Without it nobody waits for this.
    sd_notify::notify(states).ok();
}

/// The database that the environment names.
pub(crate) fn database(settings: &Settings) -> Result<Option<DatabaseUrl>, Failure> {
    let parsed = settings.services.database.as_ref().map(|url| url.parse::<DatabaseUrl>());
    parsed.transpose().map_err(|error| Failure::new(format!("DATABASE_URL: {error}")))
}

/// The key that the environment holds.
pub(crate) fn secret_key(settings: &Settings) -> Result<Option<SecretKey>, Failure> {
    let text = settings.services.secret_key.as_ref();
    let key = text.map(|text| SecretKey::from_text(text, "TOLV_SECRET_KEY"));
    key.transpose().map_err(|error| Failure::new(error.to_string()))
}

fn options(args: &Serve, settings: &Settings) -> Result<Options, Failure> {
    let services = &settings.services;
    let (database, secret_key) = (database(settings)?, secret_key(settings)?);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if !args.domain.split('.').all(label) {
        return Err(Failure::new(format!("`{}` is not a domain in lower case", args.domain)));
    }
    Ok(Options {
        aside: tolv_api::local::aside,
        home: settings.serve_home(),
        database,
        secret_key,
        blobs: services
            .objects
            .clone()
            .map(|url| Blobs { url, options: services.object_options.clone() }),
        codebase: None,
        http: Http::At(args.http),
        domain: args.domain.clone(),
        sandbox: args.sandbox.choice,
        network: args.sandbox.network,
        host_services: args.host_services.clone(),
        image: PathBuf::from(ITSELF),
        host: settings.host(),
        caps: args.build.caps(),
        git: tolv_build::GitLimits {
            memory: args.git_memory << 20,
            work: Duration::from_secs(args.git_seconds),
            push: args.push_mib << 20,
            repository: args.repository_mib << 20,
            ..tolv_build::GitLimits::default()
        },
        min_free: args.min_free << 20,
        log_bytes: args.log_mib << 20,
        keep_releases: args.keep_releases,
        sizing: Sizing {
            default: args.size.unwrap_or_default(),
            most: args.max_size.unwrap_or_default(),
            build: args.build_size.unwrap_or_default(),
            builds: args.builds.map(usize::from),
            reserve: args.reserve.map(|mib| mib << 20),
        },
    })
}

/// Where this machine reaches what listens there: every address is none to connect to.
fn reached_at(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

/// Writes lines on a thread of its own: standard output may block for as long as it likes.
fn write_lines(
    mut lines: mpsc::Receiver<Said>,
    mut notices: mpsc::UnboundedReceiver<String>,
    form: Form,
) -> io::Result<oneshot::Receiver<()>> {
    let (done, written) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    thread::Builder::new().name("output".to_owned()).spawn(move || {
        let mut view = View::new(form);
        let (mut batch, mut text) = (Vec::new(), Vec::new());
        let mut open = true;
        loop {
            let notice = runtime.block_on(async {
                tokio::select! {
                    biased;
                    Some(notice) = notices.recv() => Some(notice),
                    count = lines.recv_many(&mut batch, AT_ONCE), if open => {
                        open = count > 0;
                        None
                    }
                    else => None,
                }
            });
            match (&notice, batch.is_empty()) {
                (None, true) if !open => break,
                (Some(notice), _) => {
                    view.write(&Line::tolv("platform", notice.as_str()), &mut text)
                }
                (None, _) => {}
            }
            for Said { deploy, line } in batch.drain(..) {
                let deploy = deploy.map(|deploy| deploy.to_string());
                view.write_of(deploy.as_deref(), &line, &mut text);
            }
            let mut out = io::stdout().lock();
            // Closed: the platform goes on, and nobody hears it.
            out.write_all(&text).and_then(|()| out.flush()).ok();
            text.clear();
        }
        done.send(()).ok();
    })?;
    Ok(written)
}
