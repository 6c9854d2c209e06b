//! `tolv up`: signals in, what there is to see out; the platform of the codebase and its server do
//! the rest.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tolv_api::local;
use tolv_logs::{Form, Line, View};
use tolv_model::service::HostServices;
use tolv_platform::{
    Codebase, Error, Event, Http, Options, Output, Platform, Progress, Sizing, Stop,
};
use tolv_server::Server;

use crate::args::Up;
use crate::output::{self, BuildView};
use crate::settings::{ITSELF, Settings};

/// Events between the platform and the writing thread. When a slow terminal fills it, lines wait
/// in the log.
const EVENTS: usize = 1024;
/// For answers under way when it ends.
const ANSWERS: Duration = Duration::from_secs(30);
/// Events that are written together.
const AT_ONCE: usize = 512;
/// For a terminal to take the last lines, once everything is stopped.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Most bytes of the deploy's log.
const LOG_BYTES: u64 = 256 << 20;
/// Releases whose slugs are kept.
const KEEP_RELEASES: u32 = 10;

/// Runs until a signal, a failure or the end of its output.
pub(crate) fn up(args: Up, settings: &Settings) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&error, None),
    };
    let form = match args.json {
        true => Form::Json,
        false => Form::Text { color: settings.color(), terminal: io::stdout().is_terminal() },
    };
    let watch = args.watch;
    let code = match options(args, settings) {
        Ok(options) => runtime.block_on(run(options, watch, form)),
        Err(error) => fail(&error),
    };
    // A thread that is stuck in a write to a stopped terminal must not keep the program.
    runtime.shutdown_background();
    code
}

fn options(args: Up, settings: &Settings) -> Result<Options, Error> {
    let codebase = Codebase::open(&args.dir, args.env_file.as_deref(), args.formation)?;
    Ok(Options {
        home: settings.home_of(&args.dir),
        aside: |_| None,
        database: None,
        secret_key: None,
        blobs: None,
        codebase: Some(codebase),
        http: args.listen.map_or(Http::Free, Http::At),
        domain: "localhost".to_owned(),
        sandbox: args.sandbox.choice,
        network: args.sandbox.network,
        host_services: HostServices::All,
        image: PathBuf::from(ITSELF),
        host: settings.host(),
        caps: args.limits.caps(),
        git: tolv_build::GitLimits::default(),
        min_free: 0,
        log_bytes: LOG_BYTES,
        keep_releases: KEEP_RELEASES,
        sizing: Sizing::default(),
    })
}

async fn run(options: Options, watch: bool, form: Form) -> ExitCode {
    let (stop, stopping) = watch::channel(Stop::No);
    let stop = Arc::new(stop);
    let (mut int, mut term) =
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(int), Ok(term)) => (int, term),
            (Err(error), _) | (_, Err(error)) => return output::fail(&error, None),
        };
    // Under nohup it goes on when the terminal is closed.
    let mut hup = match is_ignored(SignalKind::hangup()) {
        true => None,
        false => signal(SignalKind::hangup()).ok(),
    };
    let _unheard = signal(SignalKind::user_defined1());
    let (platform, lines) = match Platform::start(options).await {
        Ok(started) => started,
        Err(error) => return fail(&error),
    };
    let (events, received) = mpsc::channel(EVENTS);
    let (mut written, writer) = write_events(received, form, Arc::clone(&stop));
    let server = Server::new(platform.clone(), local::URL.to_owned(), |fault| {
        writeln!(io::stderr(), "Fault: {fault}").ok();
    });
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            platform.end().await;
            return fail(&error);
        }
    };
    let listener = match writer.and_then(|()| server.listen_at_home()) {
        Ok(listener) => listener,
        Err(error) => {
            platform.end().await;
            let home = platform.home().display();
            let text = format!("the API's socket in `{home}` cannot be made: {error}");
            return output::fail_text(&text, Some("TOLV_HOME puts the state elsewhere"));
        }
    };
    let (output, said) = mpsc::channel(EVENTS);
    let mut shown = JoinSet::new();
    shown.spawn(tolv_platform::show(lines, said, events));
    let serving = {
        let (mut stopping, mut killing) = (stopping.clone(), stopping.clone());
        let serving = server.serve(listener, async move {
            stopping.wait_for(|now| *now > Stop::No).await.ok();
            ANSWERS
        });
        async move {
            tokio::select! {
                () = serving => {}
                _ = killing.wait_for(|now| *now == Stop::Now) => {}
            }
        }
    };
    let work = async {
        let mut stopping = stopping.clone();
        let outcome = tolv_platform::up(&platform, watch, &output, &mut stopping).await;
        gracefully(&stop);
        tolv_platform::down(&platform, &mut stopping).await;
        outcome
    };
    let mut first_signal = None;
    let outcome = {
        let both = async { tokio::join!(work, serving) };
        tokio::pin!(both);
        loop {
            let (status, next) = tokio::select! {
                (outcome, _) = &mut both => break outcome,
                _ = int.recv() => (130, "Stopping; Ctrl-C again kills"),
                _ = term.recv() => (0, "Stopping"),
                // The terminal was closed.
                () = heard(&mut hup) => (129, "Stopping"),
            };
            first_signal.get_or_insert(status);
            if gracefully(&stop) {
                if io::stderr().is_terminal() {
                    writeln!(io::stderr(), "{next}").ok();
                }
            } else {
                stop.send_replace(Stop::Now);
            }
        }
    };
    // With the platform its lines end.
    drop((platform, server, output));
    tokio::time::timeout(LAST_LINES, &mut written).await.ok();
    match outcome {
        Ok(()) => ExitCode::from(first_signal.unwrap_or(0)),
        Err(error) => fail(&error),
    }
}

/// Whether whoever started this program has it ignore a signal.
fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal.as_raw_value() - 1) & 1 == 1
}

/// Waits for the next one of a signal that may be ignored.
async fn heard(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Asks for the end, where nobody has yet.
fn gracefully(stop: &watch::Sender<Stop>) -> bool {
    stop.send_if_modified(|now| {
        let is_first = *now == Stop::No;
        if is_first {
            *now = Stop::Gracefully;
        }
        is_first
    })
}

/// Prints why `up` ended by itself, a process's last lines and what to do among it.
fn fail(error: &Error) -> ExitCode {
    if let Some(culprit) = error.culprit() {
        let mut view = View::new(Form::Text { color: false, terminal: io::stderr().is_terminal() });
        let mut text = Vec::new();
        if !culprit.last_lines.is_empty() {
            text.extend(format!("The last lines of {}:\n", culprit.process).bytes());
        }
        for line in &culprit.last_lines {
            view.write(line, &mut text);
        }
        io::stderr().write_all(&text).ok();
    }
    // It is not there to be asked for another try.
    let is_release_phase = matches!(error, Error::ReleasePhase { .. });
    let hint = error.hint().filter(|_| !is_release_phase);
    output::error_text(error, hint.as_deref());
    ExitCode::from(error.exit_status())
}

/// Writes events on a thread of its own: standard output may block for as long as it likes. When
/// it is closed, everything is told to stop.
fn write_events(
    mut events: mpsc::Receiver<Event>,
    form: Form,
    stop: Arc<watch::Sender<Stop>>,
) -> (oneshot::Receiver<()>, io::Result<()>) {
    let (done, written) = oneshot::channel();
    let thread = thread::Builder::new().name("output".to_owned()).spawn(move || {
        let mut writer = Writer { view: View::new(form), build: BuildView::new(), form };
        let (mut batch, mut text) = (Vec::new(), Vec::new());
        // What is there already goes out in one write.
        while events.blocking_recv_many(&mut batch, AT_ONCE) > 0 {
            for event in batch.drain(..) {
                writer.add(&event, &mut text);
            }
            let mut out = io::stdout().lock();
            if out.write_all(&text).and_then(|()| out.flush()).is_err() {
                gracefully(&stop);
                // Nobody reads any more, but the platform must not wait for that.
                while events.blocking_recv().is_some() {}
                break;
            }
            text.clear();
        }
        done.send(()).ok();
    });
    (written, thread.map(drop))
}

struct Writer {
    view: View,
    build: BuildView,
    form: Form,
}

impl Writer {
    /// Appends the event in the form that was asked for.
    fn add(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Line(line) => self.view.write(line, out),
            Event::Progress(Output { at, progress }) => match (progress, self.form) {
                (Progress::Bar(bar), _) => self.build.bar(bar),
                (Progress::Over(_), _) => {}
                (Progress::Output(line), Form::Text { .. }) => {
                    self.build.clear();
                    out.extend(output::harmless(line));
                    out.push(b'\n');
                }
                (Progress::Output(line), Form::Json) => {
                    let line = Line { time: *at, ..Line::tolv("build", &line[..]) };
                    self.view.write(&line, out);
                }
            },
        }
    }
}
