//! What may be typed to a platform: its commands as types.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use tolv_model::name::{AppName, DeployName, ProcessType};
use tolv_model::release::ReleaseNumber;
use tolv_model::root_folder::RootFolder;
use tolv_model::size::Size;

use super::typed::Named;

/// Where to: every command of a platform takes these.
#[derive(Clone, Debug, Args)]
pub(crate) struct At {
    /// The platform; without this, that of the folder's git remote, or of the last login
    #[arg(long, global = true, value_name = "URL", env = "TOLV_SERVER")]
    pub(crate) server: Option<String>,

    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Which deploy, besides.
#[derive(Clone, Debug, Args)]
pub(crate) struct Which {
    /// The deploy, as `shop/production`, an app for its production, or `local` for what `tolv up`
    /// runs here; without this, that of the folder's git remote, or what `tolv up` runs here
    #[arg(short, long, global = true, value_name = "APP/DEPLOY", env = "TOLV_DEPLOY")]
    pub(crate) deploy: Option<Named>,

    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv login http://127.0.0.1:1212 --token tolv_…\n  \
    echo tolv_… | tolv login https://tolv.example.org")]
pub(crate) struct Login {
    /// Where the platform's API is
    pub(crate) url: String,

    /// The token; without this it is read from standard input
    #[arg(long, env = "TOLV_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv create shop\n  tolv create shop --first staging\n  \
    tolv create api --root services/api")]
pub(crate) struct Create {
    /// The app's name
    pub(crate) name: AppName,

    /// Its first deploy's name
    #[arg(long = "first", value_name = "DEPLOY", default_value = "production")]
    pub(crate) first: DeployName,

    /// The folder that is the codebase, from the root of the repository; without this, the whole of it
    #[arg(long, value_name = "FOLDER")]
    pub(crate) root: Option<RootFolder>,

    /// The git remote that is added to the repository in this folder: `tolv` without this, and the
    /// app's name with --root
    #[arg(long)]
    pub(crate) remote: Option<String>,

    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv deploys\n  tolv deploys create staging --from \
    shop/production --values")]
pub(crate) struct Deploys {
    #[command(subcommand)]
    pub(crate) command: Option<DeploysCommand>,

    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeploysCommand {
    /// Make another deploy of the app
    Create {
        /// Its name
        name: DeployName,

        /// Copy the formation of this deploy
        #[arg(long, value_name = "APP/DEPLOY")]
        from: Option<Named>,

        /// And its config values
        #[arg(long, requires = "from")]
        values: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv deploy\n  tolv deploy -d shop/staging\n\n\
    The commit is pushed with git; what is not committed is not deployed.")]
pub(crate) struct Deploy {
    /// Deploy the current commit though files differ from it
    #[arg(long)]
    pub(crate) allow_dirty: bool,

    /// Another codebase than before is meant
    #[arg(long)]
    pub(crate) new_root: bool,

    /// Leave out the release phase
    #[arg(long)]
    pub(crate) no_release_phase: bool,

    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv promote shop/staging\n  tolv promote shop/staging -d \
    shop/production")]
pub(crate) struct Promote {
    /// The deploy whose slug is released
    pub(crate) from: Named,

    /// Leave out the release phase
    #[arg(long)]
    pub(crate) no_release_phase: bool,

    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv releases\n  tolv releases info v3\n  \
    tolv releases verify\n  tolv releases diff v3 v5\n  tolv releases retry")]
pub(crate) struct Releases {
    #[command(subcommand)]
    pub(crate) command: Option<ReleasesCommand>,

    /// How many
    #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub(crate) number: u16,

    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReleasesCommand {
    /// Show one release
    Info {
        /// Which
        release: ReleaseNumber,
    },
    /// Prove that no release was changed since it was made: the ledger, slugs and layers
    Verify,
    /// Release the commit of the current release again: what was changed of its slug or its layers is
    /// built again
    Repair,
    /// Accept a ledger that does not hold as it is, so that the deploy starts again
    Accept {
        /// The deploy's name, to confirm
        #[arg(long, value_name = "APP/DEPLOY")]
        confirm: String,
    },
    /// Show what differs between two releases
    Diff {
        /// The earlier
        from: ReleaseNumber,
        /// The later
        to: ReleaseNumber,
    },
    /// Try a release that failed again: its slug, with the config as it is now
    Retry {
        /// Which; the newest without it
        release: Option<ReleaseNumber>,
        /// Leave out the release phase
        #[arg(long)]
        no_release_phase: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv rollback\n  tolv rollback v3\n\n\
    A rollback makes a new release equal to the earlier one: its slug and its config.")]
pub(crate) struct Rollback {
    /// To which release; the last one that succeeded before this without it
    pub(crate) release: Option<ReleaseNumber>,

    /// Leave out the release phase
    #[arg(long)]
    pub(crate) no_release_phase: bool,

    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv config\n  tolv config set GREETING='hello world' \
    COLOR=blue\n  tolv config set --secret API_KEY=- < key.txt\n  tolv config get GREETING\n  \
    tolv config unset COLOR\n  tolv config import .env\n  tolv config export > .env\n\n\
    Several changes at once are one release.")]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) command: Option<ConfigCommand>,

    /// Show values too
    #[arg(long)]
    pub(crate) values: bool,

    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print one value, as it is
    Get {
        /// Its name
        name: String,
    },
    /// Set variables; `NAME=-` takes the value from standard input
    Set {
        /// The values may never be read again
        #[arg(long)]
        secret: bool,
        /// Builds get them too, from the next one on: they are a part of the slug
        #[arg(long)]
        build: bool,
        /// Leave out the release phase
        #[arg(long)]
        no_release_phase: bool,
        /// `NAME=VALUE`
        #[arg(required = true, value_name = "NAME=VALUE")]
        pairs: Vec<std::ffi::OsString>,
    },
    /// Unset variables
    Unset {
        /// Leave out the release phase
        #[arg(long)]
        no_release_phase: bool,
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Set the variables of a `.env` file
    Import {
        /// Which file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// The values may never be read again
        #[arg(long)]
        secret: bool,
        /// Leave out the release phase
        #[arg(long)]
        no_release_phase: bool,
    },
    /// Print the variables as a `.env` file
    Export,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv logs -f\n  tolv logs --process web --since 10m\n  \
    tolv logs --release v12 --source app --grep 'timeout|refused'\n  tolv logs --json | jq -r .text\n  \
    tolv logs stats\n\nA slow terminal holds up no app: what it was too slow for is counted.")]
pub(crate) struct Logs {
    #[command(subcommand)]
    pub(crate) command: Option<LogsCommand>,

    /// The last N lines that fit; 100, or with --since all, without this
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(..=10_000))]
    pub(crate) number: Option<u16>,

    /// Go on with what comes, until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Not before: a moment, as 2026-01-31T12:00:00Z, or a time ago, as 10m, 2h, 3d
    #[arg(long, value_name = "TIME", value_parser = super::typed::moment)]
    pub(crate) since: Option<jiff::Timestamp>,

    /// Before
    #[arg(long, value_name = "TIME", value_parser = super::typed::moment)]
    pub(crate) until: Option<jiff::Timestamp>,

    /// Of a process, as `web.1`, or of all of a type, as `web`; `router` and `release` too
    #[arg(short, long, value_name = "PROCESS")]
    pub(crate) process: Option<String>,

    /// app, or tolv for what the platform said
    #[arg(long)]
    pub(crate) source: Option<String>,

    /// Of a release, as `v12`
    #[arg(long)]
    pub(crate) release: Option<ReleaseNumber>,

    /// With this regular expression in the line
    #[arg(long, value_name = "PATTERN")]
    pub(crate) grep: Option<String>,

    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogsCommand {
    /// Show how much each process wrote, and what of it is stored or was dropped
    Stats,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv scale web=2 worker=1\n  tolv scale worker=0\n  \
    tolv scale web=2:1G worker=1:standard-2x\n\nA size is a figure, which is memory, or one of \
    Heroku's names; a change of it is a release.")]
pub(crate) struct Scale {
    /// `TYPE=N` or `TYPE=N:SIZE`; types that are not named keep theirs
    #[arg(required = true, value_name = "TYPE=N[:SIZE]")]
    pub(crate) quantities: Vec<String>,

    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv limits\n  tolv limits web --memory 768M --cpu 2\n  \
    tolv limits worker --processes 256 --tmp 1G\n  tolv limits run --memory 2G\n  \
    tolv limits web --reset\n\nA change is a release; a rollback takes it back. `run` is the type of \
    one-off runs, `release`\nthat of the release phase, `cron-NAME` that of a schedule.")]
pub(crate) struct Limits {
    /// The process type to change; without it, show those of all
    #[arg(value_name = "TYPE")]
    pub(crate) process_type: Option<ProcessType>,

    /// All at once: a figure, which is memory, one of Heroku's names, or `memory=1G,cpu=2`
    #[arg(long, value_name = "SIZE", requires = "process_type")]
    pub(crate) size: Option<Size>,

    /// Memory, as in `768M`; what is written to /tmp and /dev/shm counts
    #[arg(long, value_name = "SIZE", requires = "process_type")]
    pub(crate) memory: Option<String>,

    /// Most CPU time in cores, as in `0.5` or `2`
    #[arg(long, value_name = "CORES", requires = "process_type")]
    pub(crate) cpu: Option<String>,

    /// Share of the CPU where others want it too, against 100
    #[arg(long, value_name = "N", requires = "process_type")]
    pub(crate) cpu_weight: Option<String>,

    /// Most processes and threads
    #[arg(long, value_name = "N", requires = "process_type")]
    pub(crate) processes: Option<String>,

    /// Most open files of each process
    #[arg(long, value_name = "N", requires = "process_type")]
    pub(crate) files: Option<String>,

    /// Room in /tmp, as in `256M`
    #[arg(long, value_name = "SIZE", requires = "process_type")]
    pub(crate) tmp: Option<String>,

    /// Room in /dev/shm, as in `64M`
    #[arg(long, value_name = "SIZE", requires = "process_type")]
    pub(crate) shm: Option<String>,

    /// Go back to what app.json and the platform say, before the others are set
    #[arg(long, requires = "process_type")]
    pub(crate) reset: bool,

    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv restart\n  tolv restart web\n  tolv restart web.1")]
pub(crate) struct Restart {
    /// A process type or a process; all without it
    pub(crate) processes: Option<String>,

    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv cron\n  tolv cron history nightly\n  \
    tolv cron run nightly\n\nSchedules are in app.json; they are those of the current release.")]
pub(crate) struct Cron {
    #[command(subcommand)]
    pub(crate) command: Option<CronCommand>,

    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CronCommand {
    /// Show what became of its ticks
    History {
        /// Its name
        name: String,
        /// How many
        #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
        number: u16,
    },
    /// Print what one run of it wrote, to its end
    Output {
        /// Its name
        name: String,
        /// Which run
        id: String,
    },
    /// Run it now, and pass its exit status on
    Run {
        /// Its name
        name: String,
        /// Do not wait for its end
        #[arg(long)]
        detach: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv operations\n  tolv operations show op_…\n  \
    tolv operations cancel op_…")]
pub(crate) struct Operations {
    #[command(subcommand)]
    pub(crate) command: Option<OperationsCommand>,

    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OperationsCommand {
    /// Show the output of one, to its end
    Show {
        /// Which
        id: String,
    },
    /// Give one up
    Cancel {
        /// Which
        id: String,
    },
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tolv destroy shop/staging\n  tolv destroy shop --confirm shop"
)]
pub(crate) struct Destroy {
    /// An app, or one of its deploys
    pub(crate) name: String,

    /// The same name again; asked for on a terminal
    #[arg(long, value_name = "NAME")]
    pub(crate) confirm: Option<String>,

    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Debug, Args)]
#[command(
    subcommand_negates_reqs = true,
    after_help = "Examples:\n  tolv run python manage.py migrate\n  tolv run bash\n  \
    tolv run -- python -c 'print(\"a  b\")'\n  tolv run psql < dump.sql\n  \
    tolv run --detach --record ./nightly\n  tolv run attach run.3\n\n\
    The words are executed as they are, without a shell. In front of a terminal the process has\n\
    one too; elsewhere it has pipes. A connection that breaks is made again, and the run goes on\n\
    without it. A program that is called like a command of this is run by: tolv run -- list\n\n\
    Exit codes: that of the process, 128 and the signal's number where one ended it; 125 where\n\
    Tolv failed, 126 and 127 where the command cannot be executed or was not found."
)]
pub(crate) struct Run {
    #[command(subcommand)]
    pub(crate) command: Option<RunCommand>,

    /// With this release; the current one without it
    #[arg(long, value_name = "RELEASE")]
    pub(crate) release: Option<ReleaseNumber>,

    /// Set a variable for this run, over those of the release
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<std::ffi::OsString>,

    /// Print the run's id and do not wait: its output goes to the log
    #[arg(long)]
    pub(crate) detach: bool,

    /// Keep the output, up to 4 MiB
    #[arg(long)]
    pub(crate) record: bool,

    /// How much of the machine it may take, as in `1G` or `memory=1G,cpu=2`; over the limits of
    /// `run`
    #[arg(long, value_name = "SIZE")]
    pub(crate) size: Option<Size>,

    /// Give it a terminal though standard output is none
    #[arg(short = 't', long, conflicts_with_all = ["no_tty", "detach"])]
    pub(crate) tty: bool,

    /// Give it pipes though this is a terminal
    #[arg(short = 'T', long)]
    pub(crate) no_tty: bool,

    /// The command and its words
    #[arg(
        required = true,
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) argv: Vec<std::ffi::OsString>,

    #[command(flatten)]
    pub(crate) which: Which,
}

impl Run {
    /// Whether nothing is said of a new run.
    pub(crate) fn is_plain(&self) -> bool {
        let flags = [self.detach, self.record, self.tty, self.no_tty];
        !flags.contains(&true)
            && self.release.is_none()
            && self.size.is_none()
            && self.env.is_empty()
            && self.argv.is_empty()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunCommand {
    /// List runs
    List {
        /// How many
        #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
        number: u16,
    },
    /// Take a run up again: its output from where it was left, its input, its terminal
    Attach {
        /// Its id, or its name as in `run.3`
        id: String,
    },
    /// Stop a run
    Stop {
        /// Its id, or its name as in `run.3`
        id: String,
        /// At once, without the grace period
        #[arg(long)]
        kill: bool,
    },
    /// Show one run
    Show {
        /// Its id, or its name as in `run.3`
        id: String,
    },
    /// Print what is kept of a run's output
    Output {
        /// Its id, or its name as in `run.3`
        id: String,
    },
}
