//! `tolv up`: signals in, events out; the platform does the rest.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tolv_logs::{Form, Line, View};
use tolv_platform::{Error, Event, Options, Stop};

use crate::args::Up;
use crate::output::{self, BuildView};
use crate::settings::Settings;

/// Events between the platform and the writing thread. When a slow terminal fills it, lines wait
/// in the log.
const EVENTS: usize = 1024;
/// Events that are written together.
const AT_ONCE: usize = 512;
/// For a terminal to take the last lines, once everything is stopped.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Runs until a signal, a failure or the end of its output.
pub(crate) fn up(args: Up, settings: &Settings) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&error, None),
    };
    let options = Options {
        home: settings.home_of(&args.dir),
        dir: args.dir,
        formation: args.formation,
        listen: args.listen,
        env_file: args.env_file,
        watch: args.watch,
        sandbox: args.sandbox.choice,
        host: settings.host(),
    };
    let form = match args.json {
        true => Form::Json,
        false => Form::Text { color: settings.color(), terminal: io::stdout().is_terminal() },
    };
    let code = runtime.block_on(run(options, form));
    // A thread that is stuck in a write to a stopped terminal must not keep the program.
    runtime.shutdown_background();
    code
}

async fn run(options: Options, form: Form) -> ExitCode {
    let (events, received) = mpsc::channel(EVENTS);
    let (stop, stopping) = watch::channel(Stop::No);
    let stop = std::sync::Arc::new(stop);
    let (mut int, mut term) =
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(int), Ok(term)) => (int, term),
            (Err(error), _) | (_, Err(error)) => return output::fail(&error, None),
        };
    let (mut written, writer) = write_events(received, form, std::sync::Arc::clone(&stop));
    if let Err(error) = writer {
        return output::fail(&error, None);
    }
    let mut first_signal = None;
    let outcome = {
        let up = tolv_platform::up(options, events, stopping);
        tokio::pin!(up);
        loop {
            let (status, next) = tokio::select! {
                outcome = &mut up => break outcome,
                _ = int.recv() => (130, "Stopping; Ctrl-C again kills"),
                _ = term.recv() => (0, "Stopping"),
            };
            let before = *stop.borrow();
            first_signal.get_or_insert(status);
            stop.send_replace(match before {
                Stop::No => Stop::Gracefully,
                Stop::Gracefully | Stop::Now => Stop::Now,
            });
            if before == Stop::No && io::stderr().is_terminal() {
                writeln!(io::stderr(), "{next}").ok();
            }
        }
    };
    tokio::time::timeout(LAST_LINES, &mut written).await.ok();
    match outcome {
        Ok(()) => ExitCode::from(first_signal.unwrap_or(0)),
        Err(error) => {
            report(&error);
            ExitCode::from(error.exit_status())
        }
    }
}

/// Prints why `up` ended by itself, a process's last lines and what to do among it.
fn report(error: &Error) {
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
    output::error_text(error, error.hint().as_deref());
}

/// Writes events on a thread of its own: standard output may block for as long as it likes. When
/// it is closed, everything is told to stop.
fn write_events(
    mut events: mpsc::Receiver<Event>,
    form: Form,
    stop: std::sync::Arc<watch::Sender<Stop>>,
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
                stop.send_if_modified(|now| {
                    let first = *now == Stop::No;
                    if first {
                        *now = Stop::Gracefully;
                    }
                    first
                });
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
        match (event, self.form) {
            (Event::Line(line), _) => self.view.write(line, out),
            (Event::Build(event), Form::Text { .. }) => {
                self.build.show(event, out).ok();
            }
            (Event::Build(event), Form::Json) => {
                for line in output::render(event).split(|&byte| byte == b'\n') {
                    if !line.is_empty() {
                        self.view.write(&Line::tolv("build", line), out);
                    }
                }
            }
            (Event::Ready { url, release }, Form::Text { .. }) => {
                let text = match url {
                    Some(url) => format!("-----> Release {release} is up at {url}\n"),
                    None => format!("-----> Release {release} is up (no web process)\n"),
                };
                out.extend(text.bytes());
            }
            (Event::Ready { url, release }, Form::Json) => {
                let text = match url {
                    Some(url) => format!("Release {release} is up at {url}"),
                    None => format!("Release {release} is up (no web process)"),
                };
                self.view.write(&Line::tolv("release", text), out);
            }
            (Event::Failed(error), Form::Text { .. }) => {
                out.extend(
                    format!(" !     {error}\n !     The release before it goes on\n").bytes(),
                );
            }
            (Event::Failed(error), Form::Json) => {
                self.view.write(&Line::tolv("release", error.as_str()), out);
            }
        }
    }
}
