//! `tolv build`: a codebase becomes a slug; its id and contents are printed.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use tolv_build::{Built, Caps, Proofs, Request, Source, StateFolderError};
use tolv_model::service::HostServices;
use tolv_model::slug::short;
use tolv_platform::home::private_umask;
use tolv_sandbox::{Cancel, Machine, Spawner};

use crate::args::{Build, Sandbox};
use crate::output::{self, BuildView};
use crate::settings::{ITSELF, Settings};

/// Builds and prints. The build's output goes to stderr, the result to stdout.
pub(crate) fn build(args: Build, settings: &Settings) -> ExitCode {
    match run(&args, settings) {
        Ok(built) => output::print(&if args.json { json(&built) } else { text(&built) }),
        Err(failure) => failure.print(),
    }
}

/// Why there is no result.
pub(crate) enum Failure {
    Sandbox(tolv_sandbox::Error),
    Io(io::Error),
    Folder(StateFolderError),
    Build(tolv_build::Error),
}

impl Failure {
    /// Prints it.
    pub(crate) fn print(&self) -> ExitCode {
        match self {
            Self::Sandbox(error) => output::fail(error, None),
            Self::Io(error) => output::fail(error, None),
            Self::Folder(error) => output::fail(error, error.help().as_deref()),
            Self::Build(error @ tolv_build::Error::Cancelled) => {
                output::error_text(error, None);
                ExitCode::from(130)
            }
            Self::Build(error) => output::fail(error, error.help()),
        }
    }
}

fn run(args: &Build, settings: &Settings) -> Result<Built, Failure> {
    let source = match &args.commit {
        Some(commit) => Source::Commit { dir: args.dir.clone(), commit: commit.clone() },
        None => Source::WorkingTree { dir: args.dir.clone() },
    };
    let request = request(source, &args.dir, &args.sandbox, args.limits.caps(), settings)?;
    let mut view = BuildView::new();
    tolv_build::build(&request, &mut |event| {
        view.show(&event, &mut io::stderr()).ok();
    })
    .map_err(Failure::Build)
}

/// A request for the codebase in a folder, which Ctrl-C cancels.
pub(crate) fn request(
    source: Source,
    dir: &Path,
    sandbox: &Sandbox,
    caps: Caps,
    settings: &Settings,
) -> Result<Request, Failure> {
    private_umask();
    let home = settings.home_of(dir).claim().map_err(Failure::Folder)?;
    let spawner = Spawner::start(Path::new(ITSELF), &["spawner"]).map_err(Failure::Sandbox)?;
    let machine = Machine::probe(&spawner, sandbox.network).map_err(Failure::Sandbox)?;
    let (level, _) = machine.choose(sandbox.choice).map_err(Failure::Sandbox)?;
    let cancel = Cancel::new().map_err(Failure::Io)?;
    cancel_on_signals(cancel.clone()).map_err(Failure::Io)?;
    spawner.hide(&home).map_err(Failure::Sandbox)?;
    let host = settings.host();
    Ok(Request {
        source,
        toolchains: host.toolchains(&home),
        stacks: host.stacks(&home),
        home,
        spawner,
        level,
        host,
        caps,
        cancel,
        proofs: Proofs::default().of_level(level),
        host_services: HostServices::default(),
        buildpacks: Vec::new(),
        config: tolv_build::BuildConfig::default(),
    })
}

/// Cancels at the first SIGINT or SIGTERM, from a thread that waits for nothing else.
fn cancel_on_signals(cancel: Cancel) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut int), Ok(mut term)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
            cancel.cancel();
        });
    })?;
    Ok(())
}

fn text(built: &Built) -> String {
    let manifest = &built.manifest;
    let mut text = format!("{}\n", built.slug);
    let mut row = |name: &str, value: &str| {
        writeln!(text, "  {name:<14} {value}").ok();
    };
    row("commit", built.commit.as_deref().unwrap_or("none"));
    row("files", &format!("{} in {} bytes", manifest.files(), manifest.size()));
    if let Some(stack) = &manifest.stack {
        row("stack", &stack.to_string());
    }
    for layer in &manifest.layers {
        row("layer", &format!("{} content {}", short(&layer.key), short(&layer.content)));
    }
    for (kind, command) in &manifest.process_types {
        row(kind.as_str(), command);
    }
    row("tree", &built.dir.display().to_string());
    text
}

fn json(built: &Built) -> String {
    let manifest = &built.manifest;
    let value = serde_json::json!({
        "slug": built.slug.to_string(),
        "commit": built.commit,
        "files": manifest.files(),
        "bytes": manifest.size(),
        "stack": manifest.stack.as_ref().map(ToString::to_string),
        "layers": manifest.layers,
        "process_types": manifest.process_types,
        "env": manifest.env,
        "path": manifest.path,
        "tree": built.dir,
        "warnings": built.warnings,
    });
    format!("{value}\n")
}
