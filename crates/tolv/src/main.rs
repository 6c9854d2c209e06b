//! `tolv`: the command line. Arguments and environment become settings, settings become a call of
//! the platform, its events become text or JSON. No logic of the stages is here.

mod args;
mod build;
mod cli;
mod lock;
mod output;
mod recover;
mod serve;
mod settings;
mod stack;
mod status;
mod up;
mod upgrade;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tolv_model::static_json::StaticJson;
use tolv_platform::repo::{HOOK, hook};

use crate::args::{Cli, Command};
use crate::settings::Settings;

fn main() -> ExitCode {
    // Before anything else: the spawner must stay a small process with one thread.
    if std::env::args_os().nth(1).is_some_and(|word| word == "spawner") {
        tolv_sandbox::spawner_main(&[tolv_run::SHIM]);
    }
    let called = std::env::args_os().next().map(std::path::PathBuf::from);
    if called.is_some_and(|path| path.file_name().is_some_and(|name| name == HOOK)) {
        return ExitCode::from(hook(
            settings::push_socket().as_deref(),
            settings::push_secret().as_deref(),
        ));
    }
    let parsed = match Cli::try_parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            // clap's own exit statuses: 0 for help and version, 2 for a usage error.
            error.print().ok();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let settings = match Settings::read() {
        Ok(settings) => settings,
        Err(error) => return output::fail(&error, None),
    };
    match parsed.command {
        Command::Serve(args) => {
            raise_descriptors();
            tolv_sandbox::take_short_slices();
            serve::serve(args, &settings)
        }
        Command::Platform(command) => cli::run(command, &settings),
        Command::Up(args) => {
            raise_descriptors();
            tolv_sandbox::take_short_slices();
            up::up(args, &settings)
        }
        Command::Build(args) => build::build(args, &settings),
        Command::Lock(args) => lock::lock(args, &settings),
        Command::Status(args) => status::status(&args, &settings),
        Command::Stack(args) => stack::stack(&args, &settings),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "tolv", &mut script);
            match std::io::stdout().write_all(&script) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        Command::StaticServer { root, config } => static_server(root, config.as_deref(), &settings),
    }
}

fn static_server(
    root: std::path::PathBuf,
    config: Option<&std::path::Path>,
    settings: &Settings,
) -> ExitCode {
    let Some(port) = settings.port else {
        return output::fail(&PortMissing, None);
    };
    let rules = match config.map(static_rules).transpose() {
        Ok(rules) => rules.unwrap_or_default(),
        Err(error) => return output::fail(&error, None),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&error, None),
    };
    runtime.block_on(async {
        let serve = async {
            let listener = tokio::net::TcpListener::bind(("0.0.0.0", port)).await?;
            let mut term =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            let shutdown = async move {
                term.recv().await;
            };
            tolv_static_server::serve(root, rules, listener, shutdown).await
        };
        match serve.await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => output::fail(&error, None),
        }
    })
}

/// What `static.json` says. The build has checked it.
fn static_rules(path: &std::path::Path) -> std::io::Result<StaticJson> {
    let text = std::fs::read_to_string(path)?;
    StaticJson::parse(&text).map_err(|why| std::io::Error::other(format!("static.json: {why}")))
}

/// The static server was started by hand, without a platform around it.
#[derive(Debug, thiserror::Error)]
#[error("PORT is not set to a number from 1 to 65535")]
struct PortMissing;

/// The soft limit of descriptors becomes the hard one: the router counts its connections by it, and
/// each process has a limit of its own. Where it cannot be, there are fewer connections.
fn raise_descriptors() {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).ok();
}
