//! What may be typed: the command line as types.
//!
//! Parsing only. What a flag means is decided in [`crate::settings`].

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use tolv_model::formation::Formation;
use tolv_model::service::HostServices;
use tolv_model::size::Size;
use tolv_sandbox::{Choice, NetworkChoice};

use crate::cli::args as cli;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "tolv",
    version,
    about = "The twelve-factor platform in one binary: build → release → run",
    after_help = "Start here:\n  tolv up              build, release and run the codebase in this folder\n  tolv up --watch      and again at every change\n  tolv status          what this machine can isolate and limit\n  tolv serve           the platform as a service\n\nEvery command explains itself with examples: tolv up --help",
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the platform as a service: many apps and deploys, an API, git over HTTP
    #[command(after_long_help = SERVE_EXAMPLES)]
    Serve(Serve),
    #[command(flatten)]
    Platform(Platform),
    /// Build, release and run a codebase in the foreground
    #[command(after_long_help = UP_EXAMPLES)]
    Up(Up),
    /// Build a codebase into a slug and print its id
    #[command(after_long_help = BUILD_EXAMPLES)]
    Build(Build),
    /// Write the lock of a codebase: every package at one version
    #[command(after_long_help = LOCK_EXAMPLES)]
    Lock(Lock),
    /// Show what this machine gives to isolate and limit processes, what not, and why; with
    /// --platform, what the running platform holds and lacks
    #[command(after_long_help = STATUS_EXAMPLES)]
    Status(Status),
    /// List and make stacks: the root file systems below builds and processes
    #[command(after_long_help = STACK_EXAMPLES)]
    Stack(Stack),
    /// Print a completion script for a shell
    #[command(after_long_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell to complete in
        shell: Shell,
    },
    /// The file server of the static builder: a process that binds PORT
    #[command(hide = true)]
    StaticServer {
        /// Folder to serve
        root: PathBuf,
        /// The `static.json` that says how
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// The commands of a platform that `tolv serve` runs.
#[derive(Debug, Subcommand)]
pub(crate) enum Platform {
    /// Log in to a platform
    Login(cli::Login),
    /// Forget the token of a platform
    Logout(cli::At),
    /// Show who one is to a platform
    Whoami(cli::At),
    /// Tell git the token: a credential helper (`gitcredentials`)
    #[command(hide = true)]
    GitCredential {
        /// get, store or erase
        action: String,
    },
    /// List apps
    Apps(cli::At),
    /// Make an app, its first deploy, and a git remote for it
    Create(cli::Create),
    /// List the deploys of an app, or make another
    Deploys(cli::Deploys),
    /// Build, release and run the current commit
    Deploy(cli::Deploy),
    /// Release what another deploy of the app runs, without a build
    Promote(cli::Promote),
    /// List releases; look at, prove and compare them
    Releases(cli::Releases),
    /// Make a release equal to an earlier one
    Rollback(cli::Rollback),
    /// List, read, set and unset config variables
    Config(cli::Config),
    /// List the buildpacks that the operator has set for an app; add and remove them
    Buildpacks(crate::cli::buildpacks::Buildpacks),
    /// List drains, which send the lines elsewhere too; add and remove them
    Drains(crate::cli::drains::Drains),
    /// Run a command in a fresh process of the deploy; list, take up again and stop such runs
    Run(cli::Run),
    /// List processes
    #[command(after_help = "Example:\n  tolv ps -d shop/production")]
    Ps(cli::Which),
    /// Show what processes, the router and the platform said, and follow it
    Logs(cli::Logs),
    /// Change how many processes of each type run
    Scale(cli::Scale),
    /// Show or change how much of the machine processes may take
    Limits(cli::Limits),
    /// Replace processes by new ones of the same release
    Restart(cli::Restart),
    /// Stop every process of a deploy; ends with the last of them
    Stop(cli::Which),
    /// Start a deploy that was stopped
    Start(cli::Which),
    /// Open a deploy in the browser, or print where it is
    Open(cli::Which),
    /// List schedules, see how they went, run one now
    Cron(cli::Cron),
    /// List what was done to a deploy; follow or cancel it
    Operations(cli::Operations),
    /// List, make and revoke tokens
    Tokens(crate::cli::tokens::Tokens),
    /// Show who did what
    Audit(crate::cli::tokens::Audit),
    /// Destroy an app or a deploy
    Destroy(cli::Destroy),
}

const SERVE_EXAMPLES: &str = "\
Examples:
  tolv serve                                         on this machine alone
  TOLV_HTTP=0.0.0.0:80 TOLV_DOMAIN=apps.example.org tolv serve
  DATABASE_URL=postgres://tolv@db/tolv tolv serve    state in PostgreSQL

The first start prints the owner's token, once. Ctrl-C or SIGTERM stop everything in order; the
next start brings every deploy back without a build. SIGUSR2 lets a new version of the program go
on in its place, without a refused request.

Environment: TOLV_HOME, TOLV_TOOLCHAINS, TOLV_STACK, TOLV_STACKS, TOLV_LISTEN, TOLV_HTTP, TOLV_DOMAIN, DATABASE_URL, OBJECT_STORE_URL,
TOLV_SECRET_KEY, TOLV_SANDBOX, TOLV_MIN_FREE (MiB), TOLV_LOG_MIB,
TOLV_KEEP_RELEASES, TOLV_PUSH_MIB, TOLV_REPOSITORY_MIB, TOLV_GIT_MEMORY (MiB), TOLV_GIT_SECONDS,
TOLV_BUILD_MIB, TOLV_BUILD_FILES, TOLV_REQUIRE_LOCK,
TOLV_SIZE, TOLV_MAX_SIZE, TOLV_BUILD_SIZE, TOLV_BUILDS, TOLV_RESERVE (MiB), TOLV_NETWORK,
TOLV_HOST_SERVICES.";

const STATUS_EXAMPLES: &str = "\
Examples:
  tolv status                              what this machine can isolate and limit
  tolv status --platform                   the platform on this machine, without a token
  tolv status --platform --server https://tolv.example.org
  tolv status --platform --json | jq -r '.checks[] | select(.state != \"ok\").summary'

Exit status with --platform, as of a check of a monitor: 0 ok, 1 warn, 2 fail or no answer, 3 not
known, as without a token.";

const UP_EXAMPLES: &str = "\
Examples:
  tolv up                                  the codebase in this folder
  tolv up examples/guestbook               the one in that folder
  tolv up --formation web=3,worker=2       three web processes, two workers
  tolv up --listen 127.0.0.1:0             on any free port
  tolv up --env-file .env.mine             config from that file instead of .env
  tolv up --watch                          rebuild and replace at every change
  tolv up --json | jq -r .text             one JSON object a line

While it runs, commands in the codebase's folder go to it: tolv run -- sh, tolv ps, tolv logs -f,
tolv scale web=2, tolv releases. Beside deploys elsewhere it is `-d local`.

The `release` process type runs first, with the same slug and config as the others; when it
fails, nothing starts. Each process gets its own PORT. One Ctrl-C stops everything in order; a
second one kills.

Exit codes: 0 stopped by SIGTERM, 1 failed (or the exit code of the first process that failed to
start), 2 usage, 130 stopped by Ctrl-C.";

const BUILD_EXAMPLES: &str = "\
Examples:
  tolv build                     the codebase in this folder, as it stands in the working tree
  tolv build --commit HEAD       the last commit, whatever the working tree holds
  tolv build --json | jq .slug   the slug id alone

Two builds of one commit give the same id.";

const LOCK_EXAMPLES: &str = "\
Examples:
  tolv lock                      the codebase in this folder
  tolv lock --upgrade            with the newest versions that its ranges allow
  git add -A && git commit -m \"Lock the packages\"

Python: requirements.txt gives requirements.lock, pyproject.toml gives uv.lock or poetry.lock,
Pipfile gives Pipfile.lock. Without --upgrade the lock has what the last build resolved, and a lock
that is there keeps its versions as far as they still fit. The tools that it takes are Tolv's own.";

const STACK_EXAMPLES: &str = "\
Examples:
  tolv stack list                      what is here, the newest first
  tolv stack info host                 its packages, and what the machine has newer
  tolv stack info host@3f9a1c0b42de    of one version
  tolv stack info --package convert    the packages of this machine with a program
  tolv stack make heroku-24            make it before a build needs it

The stacks that this machine's packages make are host, heroku-22 and heroku-24. Builds take place on
the one that TOLV_STACK names, and what they give runs on it.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  tolv completions bash > /etc/bash_completion.d/tolv
  tolv completions zsh > ~/.zfunc/_tolv
  tolv completions fish > ~/.config/fish/completions/tolv.fish";

/// What a build may take.
#[derive(Debug, Args)]
pub(crate) struct BuildLimits {
    /// Most MiB of a codebase, of its slug, and of each dependency layer
    #[arg(long, value_name = "MIB", env = "TOLV_BUILD_MIB", default_value_t = 2048,
        value_parser = clap::value_parser!(u64).range(1..=1 << 20), hide_short_help = true)]
    pub(crate) build_mib: u64,

    /// Most files of a codebase, of its slug, and of each dependency layer
    #[arg(long, value_name = "N", env = "TOLV_BUILD_FILES", default_value_t = 200_000,
        value_parser = clap::value_parser!(u64).range(1..=10_000_000), hide_short_help = true)]
    pub(crate) build_files: u64,

    /// Refuse a codebase without a lock; else its packages are resolved once, and the result is
    /// kept and used again
    #[arg(long, env = "TOLV_REQUIRE_LOCK", hide_short_help = true,
        value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) require_lock: bool,
}

impl BuildLimits {
    /// The limits of a build.
    pub(crate) fn caps(&self) -> tolv_build::Caps {
        let default = tolv_build::Caps::default();
        let slug = self.build_mib << 20;
        tolv_build::Caps {
            slug,
            file: default.file.min(slug),
            files: self.build_files,
            require_lock: self.require_lock,
            ..default
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where the API and git listen
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "TOLV_LISTEN",
        default_value = "127.0.0.1:1212"
    )]
    pub(crate) listen: SocketAddr,

    /// Where the router listens
    #[arg(long, value_name = "ADDRESS:PORT", env = "TOLV_HTTP", default_value = "127.0.0.1:8080")]
    pub(crate) http: SocketAddr,

    /// Deploys answer under APP.DOMAIN and APP-DEPLOY.DOMAIN
    #[arg(long, value_name = "DOMAIN", env = "TOLV_DOMAIN", default_value = "localhost")]
    pub(crate) domain: String,

    /// Where users reach the API; `http://` and the address it listens on without it
    #[arg(long, value_name = "URL", env = "TOLV_URL")]
    pub(crate) url: Option<String>,

    /// MiB that are kept free on the disk: a push is refused before it is fuller
    #[arg(long, value_name = "MIB", env = "TOLV_MIN_FREE", default_value_t = 512)]
    pub(crate) min_free: u64,

    /// MiB of each deploy's log that are kept; the oldest lines make room
    #[arg(long = "log", value_name = "MIB", env = "TOLV_LOG_MIB", default_value_t = 256,
        value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub(crate) log_mib: u64,

    /// How much of the machine a process may take of which nothing else is said: a figure, which is
    /// memory, or parts as in `memory=512M,cpu-weight=100,processes=1024,files=16384,tmp=256M,shm=64M`,
    /// the default
    #[arg(long, value_name = "SIZE", env = "TOLV_SIZE")]
    pub(crate) size: Option<Size>,

    /// The most that an app may ask for; the machine but for the reserve without it
    #[arg(long, value_name = "SIZE", env = "TOLV_MAX_SIZE")]
    pub(crate) max_size: Option<Size>,

    /// How much of the machine a build may take; half of it for all of them together without it
    #[arg(long, value_name = "SIZE", env = "TOLV_BUILD_SIZE")]
    pub(crate) build_size: Option<Size>,

    /// Builds at once; by cores and memory without it
    #[arg(long, value_name = "N", env = "TOLV_BUILDS",
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) builds: Option<u16>,

    /// MiB of memory that neither apps nor builds get; a tenth of the machine, from 128 to 1024,
    /// without it
    #[arg(long, value_name = "MIB", env = "TOLV_RESERVE",
        value_parser = clap::value_parser!(u64).range(..=1 << 24))]
    pub(crate) reserve: Option<u64>,

    /// Releases of each deploy whose slugs are kept
    #[arg(long, value_name = "N", env = "TOLV_KEEP_RELEASES", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_releases: u32,

    /// Services of this machine that apps may reach where their config names them, as in
    /// 127.0.0.1:5432,127.0.0.1:6379; processes with networks of their own reach no other
    #[arg(
        long,
        value_name = "ADDRESS:PORT,…",
        env = "TOLV_HOST_SERVICES",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) host_services: HostServices,
    /// Most MiB of one push
    #[arg(long = "push-size", value_name = "MIB", env = "TOLV_PUSH_MIB", default_value_t = 2048,
        value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub(crate) push_mib: u64,

    /// MiB of what an app pushed, on the disk, from which on no more is taken
    #[arg(long = "repository-size", value_name = "MIB", env = "TOLV_REPOSITORY_MIB",
        default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub(crate) repository_mib: u64,

    /// Seconds that git may work on a push, and one more for each MiB of it
    #[arg(long, value_name = "SECONDS", env = "TOLV_GIT_SECONDS", default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) git_seconds: u64,

    /// Most MiB of memory of each git command on what was pushed
    #[arg(long, value_name = "MIB", env = "TOLV_GIT_MEMORY", default_value_t = 1024,
        value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    pub(crate) git_memory: u64,

    #[command(flatten)]
    pub(crate) build: BuildLimits,

    #[command(flatten)]
    pub(crate) sandbox: Sandbox,

    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,

    /// Go on for the platform at the other end of standard input
    #[arg(long, hide = true)]
    pub(crate) successor: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Folder of the codebase
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,

    /// How many processes of each type, as in `web=2,worker=1`; a type left out keeps what
    /// app.json says, or 1
    #[arg(long, value_name = "TYPE=N,…")]
    pub(crate) formation: Option<Formation>,

    /// Where the router listens; port 0 takes any. The default moves to the next free port when
    /// 8080 is busy
    #[arg(long, value_name = "ADDRESS:PORT", env = "TOLV_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,

    /// File of config variables; without this, `.env` in DIR if there is one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) env_file: Option<PathBuf>,

    /// Build and replace the processes whenever a file of the codebase changes
    #[arg(long)]
    pub(crate) watch: bool,

    #[command(flatten)]
    pub(crate) limits: BuildLimits,

    #[command(flatten)]
    pub(crate) sandbox: Sandbox,

    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Folder of the codebase
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,

    /// Build this commit instead of the working tree
    #[arg(long, value_name = "COMMIT")]
    pub(crate) commit: Option<String>,

    #[command(flatten)]
    pub(crate) limits: BuildLimits,

    #[command(flatten)]
    pub(crate) sandbox: Sandbox,

    /// Print the result as one JSON object; progress goes to stderr
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Lock {
    /// Folder of the codebase
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,

    /// Take the newest versions that the ranges allow
    #[arg(long)]
    pub(crate) upgrade: bool,

    #[command(flatten)]
    pub(crate) limits: BuildLimits,

    #[command(flatten)]
    pub(crate) sandbox: Sandbox,

    /// Print the result as one JSON object; progress goes to stderr
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stack {
    #[command(subcommand)]
    pub(crate) command: StackCommand,

    /// Folder of the stacks; that of the platform here without it
    #[arg(long, value_name = "FOLDER", env = "TOLV_STACKS", value_hint = ValueHint::DirPath, global = true)]
    pub(crate) stacks: Option<PathBuf>,

    /// Print the result as one JSON object
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StackCommand {
    /// List the versions of stacks that are here
    List,
    /// Show what a stack holds, and what the machine has newer
    Info {
        /// A name, which is its newest version, or `NAME@DIGEST`
        #[arg(value_name = "STACK", default_value = "host")]
        stack: String,

        /// Show the packages of this machine with this program instead
        #[arg(long, value_name = "PROGRAM", conflicts_with = "stack")]
        package: Option<String>,
    },
    /// Make a version of a stack from what this machine has now
    Make {
        /// Which
        #[arg(value_name = "NAME", default_value = "host")]
        name: tolv_model::stack::StackName,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Show what the running platform holds and lacks instead: the one whose state folder is here
    /// (TOLV_HOME), or the one that other commands go to; `--server` says which, and implies this
    #[arg(long)]
    pub(crate) platform: bool,

    #[command(flatten)]
    pub(crate) sandbox: Sandbox,

    #[command(flatten)]
    pub(crate) at: cli::At,
}

#[derive(Debug, Args)]
pub(crate) struct Sandbox {
    /// How much to isolate: auto (the best this machine gives), strict, user, landlock or none
    #[arg(long = "sandbox", value_name = "LEVEL", env = "TOLV_SANDBOX", default_value = "auto")]
    pub(crate) choice: Choice,

    /// Which network processes have at level strict: auto (their own, where this machine gives
    /// that), own, or machine
    #[arg(long, value_name = "NETWORK", env = "TOLV_NETWORK", default_value = "auto")]
    pub(crate) network: NetworkChoice,
}
