//! The commands that talk to a platform: each is one or a few calls of its API, and nothing that
//! the API cannot do.

mod apps;
pub(crate) mod args;
pub(crate) mod buildpacks;
mod config;
mod credentials;
mod cron;
mod deploys;
pub(crate) mod drains;
mod failure;
mod follow;
mod interrupt;
mod limits;
mod login;
mod logs;
pub(crate) mod platform;
mod processes;
mod releases;
mod run;
mod show;
mod target;
pub(crate) mod tokens;
mod typed;

use std::process::ExitCode;

pub(crate) use failure::Failure;

use crate::args::Platform;
use crate::output;
use crate::settings::Settings;

/// Runs one command; its result goes to standard output.
pub(crate) fn run(command: Platform, settings: &Settings) -> ExitCode {
    let done = match command {
        // Their exit status may be that of what they ran.
        Platform::Run(args) => return run::run(args, settings),
        Platform::Cron(args) => return cron::cron(args, settings),
        Platform::Login(args) => login::login(&args, settings),
        Platform::Logout(at) => login::logout(&at, settings),
        Platform::Whoami(at) => login::whoami(&at, settings),
        Platform::GitCredential { action } => login::git_credential(&action, settings),
        Platform::Apps(at) => apps::list(&at, settings),
        Platform::Create(args) => apps::create(&args, settings),
        Platform::Destroy(args) => apps::destroy(&args, settings),
        Platform::Deploys(args) => deploys::deploys(args, settings),
        Platform::Deploy(args) => deploys::deploy(&args, settings),
        Platform::Promote(args) => deploys::promote(&args, settings),
        Platform::Open(which) => deploys::open(&which, settings),
        Platform::Releases(args) => releases::releases(args, settings),
        Platform::Rollback(args) => releases::rollback(&args, settings),
        Platform::Config(args) => config::config(args, settings),
        Platform::Buildpacks(args) => buildpacks::buildpacks(args, settings),
        Platform::Drains(args) => drains::drains(args, settings),
        Platform::Ps(which) => processes::ps(&which, settings),
        Platform::Scale(args) => processes::scale(&args, settings),
        Platform::Limits(args) => limits::limits(&args, settings),
        Platform::Restart(args) => processes::restart(&args, settings),
        Platform::Stop(which) => processes::stop(&which, settings),
        Platform::Start(which) => processes::start(&which, settings),
        Platform::Logs(args) => logs::logs(&args, settings),
        Platform::Operations(args) => processes::operations(args, settings),
        Platform::Tokens(args) => tokens::tokens(args, settings),
        Platform::Audit(args) => tokens::audit(&args, settings),
    };
    match done {
        Ok(text) => output::print_bytes(&text),
        Err(failure) => failure.report(),
    }
}

/// What a command prints.
type Done = Result<Vec<u8>, Failure>;
