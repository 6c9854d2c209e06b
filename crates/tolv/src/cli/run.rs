//! One-off runs: begun and joined with this terminal, listed, taken up again, stopped.

mod session;
mod terminal;

use std::ffi::OsString;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::process::ExitCode;

use jiff::Timestamp;
use tolv_api::{NewRun, Page, Run, Terminal, Value};
use tolv_model::env::EnvName;
use tolv_model::id::RunId;
use tolv_model::run::{Argv, Connection, State};

use self::session::{Left, Session};
use super::args::{Run as Args, RunCommand};
use super::failure::{Failure, harmless};
use super::follow;
use super::show::{json, moment, table};
use super::target::Target;
use crate::output::{self, UNREAD};
use crate::settings::Settings;

/// What this ends with where it is not the process that failed.
const OURS: u8 = 125;
/// Letters of a command in the list.
const SHOWN: usize = 60;

pub(super) fn run(args: Args, settings: &Settings) -> ExitCode {
    match carried_out(args, settings) {
        Ok(status) => ExitCode::from(status),
        Err(failure) if failure.status == UNREAD => failure.report(),
        Err(failure) => failure.status(OURS).report(),
    }
}

fn carried_out(mut args: Args, settings: &Settings) -> Result<u8, Failure> {
    let Some(command) = args.command.take() else { return begin(args, settings) };
    if !args.is_plain() {
        return Err(Failure::new("an option for a new run stands before a command about others")
            .hint("a program of that name is run by: tolv run -- NAME"));
    }
    // An id says all; a name says it within a deploy.
    let target = match &command {
        RunCommand::List { .. } => Target::of_deploy(&args.which, settings)?,
        RunCommand::Attach { id }
        | RunCommand::Stop { id, .. }
        | RunCommand::Output { id }
        | RunCommand::Show { id } => match id.parse::<RunId>() {
            Ok(_) => Target::of_id(&args.which, settings)?,
            Err(_) => Target::of_deploy(&args.which, settings)?,
        },
    };
    match command {
        RunCommand::List { number } => list(&target, number.into()),
        RunCommand::Attach { id } => attach(&target, &id),
        RunCommand::Stop { id, kill } => {
            let run = find(&target, &id)?;
            let path = format!("/v1/runs/{}?kill={kill}", run.id);
            let run: Run = target.client.delete(&path)?;
            let said = match run.state.is_over() {
                true => format!("{} of {} is over\n", run.process, run.deploy),
                false => format!("{} of {} is being stopped\n", run.process, run.deploy),
            };
            print(&if target.json { json(&run)? } else { said })
        }
        RunCommand::Output { id } => {
            let run = find(&target, &id)?;
            let bytes = target.client.run_record(&run.id)?;
            match target.json {
                true => print(&json(&serde_json::json!({"output": Value::of(&bytes)}))?),
                false => write(&bytes),
            }
        }
        RunCommand::Show { id } => {
            let run = find(&target, &id)?;
            print(&if target.json { json(&run)? } else { shown(&run) })
        }
    }
}

fn print(text: &str) -> Result<u8, Failure> {
    write(text.as_bytes())
}

fn write(bytes: &[u8]) -> Result<u8, Failure> {
    output::write(bytes).map(|()| 0).map_err(Failure::unwritten)
}

/// A run by its id, or by its name among the deploy's last.
fn find(target: &Target, id: &str) -> Result<Run, Failure> {
    if id.parse::<RunId>().is_ok() {
        return Ok(target.client.get(&format!("/v1/runs/{id}"))?);
    }
    let runs = follow::list::<Run>(target, &format!("{}/runs", target.path()?), 200)?;
    runs.items.into_iter().find(|run| run.process == id).ok_or_else(|| {
        let deploy = target.deploy().map(|deploy| deploy.to_string()).unwrap_or_default();
        Failure::new(format!("{deploy} has no run `{}`", harmless(id))).hint("see: tolv run list")
    })
}

fn begin(args: Args, settings: &Settings) -> Result<u8, Failure> {
    let target = Target::of_deploy(&args.which, settings)?;
    let path = target.path()?;
    let words = args.argv.into_iter().map(OsString::into_vec).collect();
    let argv = Argv::new(words).map_err(|error| Failure::new(error.to_string()))?;
    let env = args.env.into_iter().map(variable).collect::<Result<_, _>>()?;
    if args.tty && !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return Err(Failure::new("standard input is no terminal")
            .hint("without --tty the process gets it as a pipe"));
    }
    let wanted = args.tty || terminal::is_interactive();
    let terminal = (wanted && !args.no_tty && !args.detach && !target.json).then(|| {
        let size = terminal::size();
        Terminal { rows: size.rows, columns: size.columns, term: settings.term() }
    });
    let new = NewRun {
        argv,
        env,
        release: args.release.map(|number| number.0),
        terminal,
        detach: args.detach,
        record: args.record,
        size: args.size.map(|size| size.to_string()),
    };
    let run = target.client.begin_run(&path, &new, &key())?;
    if args.detach {
        if target.json {
            return print(&json(&run)?);
        }
        let said = format!(
            "{} of {}; its output: tolv logs --process {}\n",
            run.process, run.deploy, run.process
        );
        std::io::stderr().write_all(said.as_bytes()).ok();
        return print(&format!("{}\n", run.id));
    }
    let client = target.client.clone();
    let (attached, from, taken) = (1, 0, 0);
    join(&target, Session { client, run, attached, from, taken, json: target.json })
}

fn attach(target: &Target, id: &str) -> Result<u8, Failure> {
    let run = find(target, id)?;
    let attachment = target.client.attach_run(&run.id)?;
    let (client, json) = (target.client.clone(), target.json);
    let tolv_api::RunAttachment { attached, from, taken } = attachment;
    join(target, Session { client, run, attached, from, taken, json })
}

/// Until the run is over; its status.
fn join(target: &Target, session: Session) -> Result<u8, Failure> {
    let (client, id) = (session.client.clone(), session.run.id.clone());
    match session.talk()? {
        Left::Over(run) => over(target, &run),
        Left::Alone(status) => {
            let text = format!("tolv: the run goes on: tolv run attach {id}\n");
            std::io::stderr().write_all(text.as_bytes()).ok();
            Ok(status)
        }
        Left::Unread => {
            client.delete::<Run>(&format!("/v1/runs/{id}"))?;
            Ok(UNREAD)
        }
    }
}

fn over(target: &Target, run: &Run) -> Result<u8, Failure> {
    if target.json {
        let line = serde_json::json!({"run": run});
        print(&format!("{line}\n"))?;
    }
    let note = run.note.as_deref().map(harmless);
    match (run.state, run.status) {
        (State::Ended, Some(status)) => {
            if let Some(note) = note {
                let program = harmless(&run.argv.program().to_string());
                let text = format!("tolv: {program}: {note}\n");
                std::io::stderr().write_all(text.as_bytes()).ok();
            }
            Ok(status)
        }
        (state, _) => {
            let why = note.map(|note| format!(": {note}")).unwrap_or_default();
            let text = match state {
                State::Lost => format!("{} was lost{why}", run.process),
                _ => format!("{} did not run{why}", run.process),
            };
            Err(Failure::new(text))
        }
    }
}

fn variable(pair: OsString) -> Result<(String, Value), Failure> {
    let bytes = pair.into_vec();
    let cut = bytes.iter().position(|&byte| byte == b'=');
    let cut = cut.ok_or_else(|| {
        let text = String::from_utf8_lossy(&bytes);
        Failure::new(format!("`{}` is not NAME=VALUE", harmless(&text)))
    })?;
    let name = String::from_utf8_lossy(&bytes[..cut]).into_owned();
    name.parse::<EnvName>().map_err(|error| Failure::new(error.to_string()))?;
    Ok((name, Value::of(&bytes[cut + 1..])))
}

/// For a request that is sent again when its answer got lost.
fn key() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("run-{:016x}{:016x}", random(), random())
}

fn status(run: &Run) -> String {
    run.status.map_or_else(|| "-".to_owned(), |status| status.to_string())
}

fn duration(run: &Run) -> String {
    let Some(started) = run.started else { return "-".to_owned() };
    let end = run.ended.unwrap_or_else(Timestamp::now);
    let tenths = end.duration_since(started).as_millis().max(0) / 100;
    match tenths {
        0..1000 => format!("{}.{} s", tenths / 10, tenths % 10),
        1000..72_000 => format!("{} min", tenths / 600),
        _ => format!("{} h", tenths / 36_000),
    }
}

fn list(target: &Target, most: usize) -> Result<u8, Failure> {
    let page: Page<Run> = follow::list(target, &format!("{}/runs", target.path()?), most)?;
    if target.json {
        return print(&json(&page)?);
    }
    if page.items.is_empty() {
        return print("No runs yet. Begin one: tolv run COMMAND\n");
    }
    let row = |run: &Run| {
        vec![
            run.id.clone(),
            run.process.clone(),
            run.state.to_string(),
            status(run),
            format!("v{}", run.release),
            run.actor.clone(),
            moment(run.created),
            duration(run),
            run.argv.to_string().chars().take(SHOWN).collect(),
        ]
    };
    let rows: Vec<_> = page.items.iter().map(row).collect();
    let heads =
        ["RUN", "PROCESS", "STATE", "STATUS", "RELEASE", "BY", "CREATED", "DURATION", "COMMAND"];
    print(&table(&heads, &rows))
}

fn shown(run: &Run) -> String {
    let connection = match run.connection {
        Connection::Terminal => "a terminal",
        Connection::Pipes => "pipes",
        Connection::Detached => "detached",
    };
    let mut rows = vec![
        ("Run", run.id.clone()),
        ("Process", format!("{} of {}", run.process, run.deploy)),
        ("Command", run.argv.to_string()),
        ("Release", format!("v{}", run.release)),
        ("By", run.actor.clone()),
        ("State", run.state.to_string()),
        ("Status", status(run)),
        ("Created", run.created.to_string()),
        ("Duration", duration(run)),
        ("Connected", connection.to_owned()),
    ];
    if !run.env.is_empty() {
        rows.push(("Variables", run.env.join(", ")));
    }
    if let Some(note) = &run.note {
        rows.push(("Note", note.clone()));
    }
    if let Some(bytes) = run.recorded {
        rows.push(("Output", format!("{bytes} bytes: tolv run output {}", run.id)));
    }
    rows.iter().map(|(head, text)| format!("{head:<10} {}\n", harmless(text))).collect()
}
