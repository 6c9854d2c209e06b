//! Ruby: gems by Bundler, from `Gemfile.lock`, without the groups `development` and `test`.
//!
//! Gems are a layer, keyed by the Ruby, its Bundler and every file that the Gemfile may read, and linked to
//! `/app/vendor/bundle`, where Heroku has them. `vendor/cache` is honoured: where it holds all gems,
//! nothing is fetched. Rails gets its assets compiled, and what it needs to run as a server.

use std::ffi::OsString;
use std::path::Path;

use tolv_model::env::EnvName;
use tolv_model::name::ProcessType;
use tolv_model::procfile::Procfile;

use self::lock::Lock;
use super::{below, files_below, hooks};
use crate::Error;
use crate::plan::{LayerPlan, Plan, Step};
use crate::toolchains::Toolchains;
use crate::toolchains::ruby::Ruby;
use crate::tree::Tree;

mod lock;

pub(super) const NAME: &str = "ruby";
const VERSION: u32 = 1;
/// Where the gems are in the app.
const GEMS: &str = "vendor/bundle";
const CACHE: &str = "vendor/cache";
/// Groups of gems that running needs not.
const WITHOUT: &str = "development:test";
/// Programs that run Ruby.
pub(super) const PROGRAMS: [&str; 9] =
    ["ruby", "bundle", "rails", "rake", "puma", "rackup", "unicorn", "sidekiq", "thin"];
/// What a build that loads Rails gets in place of secrets: it serves nobody.
const NO_SECRET: &str = "a-build-has-no-secret";

/// Compiles assets where the codebase has a task for it: Rake alone knows.
const ASSETS: &str = "require 'rake'
app = Rake.application
app.init('rake', [])
app.load_rakefile
if Rake::Task.task_defined?('assets:precompile')
  Rake::Task['assets:precompile'].invoke
else
  puts 'The codebase has no task assets:precompile'
end";

/// Whether the codebase is an app in Ruby. A Gemfile beside another language's manifest may be there for
/// a tool alone.
pub(super) fn detect(tree: &Tree) -> bool {
    let others = [
        "uv.lock",
        "requirements.txt",
        "pyproject.toml",
        "Pipfile",
        "package.json",
        "Cargo.toml",
        "go.mod",
        "static.json",
        "index.html",
    ];
    tree.is_file("Gemfile")
        && (["config.ru", "config/application.rb"].iter().any(|path| tree.is_file(path))
            || !others.iter().any(|path| tree.is_file(path))
            || is_run(tree))
}

/// Whether a line of the Procfile starts a Ruby program. Its mistakes are told elsewhere.
fn is_run(tree: &Tree) -> bool {
    let bytes = tree.read("Procfile").ok().flatten().unwrap_or_default();
    let Ok(procfile) = Procfile::parse(&bytes) else { return false };
    procfile.iter().any(|(_, command)| super::unbuilt::runs_with(tree, &PROGRAMS, command))
}

/// Whether building its assets takes Node.js.
pub(super) fn takes_node(tree: &Tree) -> Result<bool, Error> {
    let lock = Lock::parse(&tree.text("Gemfile.lock")?.unwrap_or_default());
    let gems = ["jsbundling-rails", "cssbundling-rails", "webpacker", "shakapacker", "vite_rails"];
    Ok(gems.iter().any(|gem| lock.has(gem)))
}

/// A layer of gems, and what compiles assets.
///
/// # Errors
///
/// [`Error::Plan`] for a Gemfile without its lock, [`Error::Toolchain`] where there is no such Ruby.
pub(super) fn plan(tree: &Tree, toolchains: &mut Toolchains<'_>) -> Result<Plan, Error> {
    let mut plan = Plan::new(NAME, VERSION);
    let gemfile = tree.text("Gemfile")?.unwrap_or_default();
    let Some(text) = tree.text("Gemfile.lock")? else {
        return Err(Error::Plan {
            builder: NAME,
            problem: "there is a `Gemfile` and no `Gemfile.lock`".to_owned(),
            help: "run `bundle lock --add-platform x86_64-linux` and commit `Gemfile.lock`; look that \
                   `.gitignore` does not name it"
                .to_owned(),
        });
    };
    let lock = Lock::parse(&text);
    let want = lock::want(tree, &gemfile)?;
    let ruby = toolchains.ruby(want.as_ref())?;
    plan.notes.push(match &want {
        Some(want) => format!("Ruby {}, as wanted: {} ({})", ruby.version, want.text, want.from),
        None => format!(
            "Ruby {}, the newest here: `ruby \"{0}\"` in the Gemfile keeps it so",
            ruby.version
        ),
    });
    if let (true, Some(want)) = (ruby.is_near, &want) {
        plan.warnings.push(format!(
            "`{}` names Ruby {}, and this machine has {}: the nearest of that line is taken",
            want.from, want.text, ruby.version
        ));
    }
    if tree.is_file(".bundle/config") {
        plan.warnings
            .push("`.bundle/config` is not used: it is of whoever committed it".to_owned());
    }
    plan.notes.push(format!("Gems of Gemfile.lock, by Bundler {}", ruby.bundler));
    plan.toolchains.extend(ruby.mount.clone());
    let is_vendored = vendored(tree, &lock);
    if let Vendored::Partly(missing) = &is_vendored {
        let more = if missing.len() > 5 { ", …" } else { "" };
        let named: Vec<_> = missing.iter().take(5).map(String::as_str).collect();
        plan.warnings.push(format!(
            "`{CACHE}` lacks {}{more}: they are fetched; `bundle cache --all-platforms` adds them",
            named.join(", ")
        ));
    }
    let layer = layer(tree, toolchains, &ruby, &gemfile, &lock, &is_vendored);
    environment(&mut plan, &toolchains.layout.app, &ruby, &lock);
    let app = toolchains.layout.app.clone();
    plan.build_path.extend([layer.path.join("gems").join(bin(&ruby)), ruby.bin.clone()]);
    plan.layers.push(layer);
    steps(&mut plan, tree, &app, &lock)?;
    process_types(&mut plan, tree, &lock);
    Ok(plan)
}

/// What `vendor/cache` holds.
enum Vendored {
    None,
    /// All but these.
    Partly(Vec<String>),
    Whole,
}

/// Whether all gems of a server are in the codebase. Of a gem for several platforms, one will do.
fn vendored(tree: &Tree, lock: &Lock) -> Vendored {
    let names = tree.names(CACHE);
    if !names.iter().any(|name| name.ends_with(".gem")) {
        return Vendored::None;
    }
    let is_there = |name: &str, version: &String| names.contains(&format!("{name}-{version}.gem"));
    let mut missing: Vec<String> = lock
        .served
        .iter()
        .filter(|(name, _)| !lock.gems[name].iter().any(|version| is_there(name, version)))
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    missing.dedup();
    match missing.is_empty() {
        true => Vendored::Whole,
        false => Vendored::Partly(missing),
    }
}

/// The folder of the gems' programs, below where Bundler installs them.
fn bin(ruby: &Ruby) -> String {
    format!("ruby/{}/bin", ruby.abi)
}

/// What Bundler is told in a build and at run time alike.
fn settings(ruby: &Ruby) -> [(&'static str, OsString); 5] {
    [
        ("BUNDLE_DEPLOYMENT", "true".into()),
        ("BUNDLE_WITHOUT", WITHOUT.into()),
        // The codebase's own settings are of whoever committed them.
        ("BUNDLE_IGNORE_CONFIG", "true".into()),
        ("BUNDLE_DISABLE_VERSION_CHECK", "true".into()),
        // The one that is here reads every lock: none is fetched behind the plan's back.
        ("BUNDLER_VERSION", ruby.bundler.clone().into()),
    ]
}

/// The layer of gems.
fn layer(
    tree: &Tree,
    toolchains: &Toolchains<'_>,
    ruby: &Ruby,
    gemfile: &str,
    lock: &Lock,
    vendored: &Vendored,
) -> LayerPlan {
    let mut files = lock::read_files(tree, gemfile, lock);
    files.extend(files_below(tree, CACHE));
    let mut parts: Vec<Vec<u8>> = vec![
        format!("{NAME} {VERSION}").into_bytes(),
        format!("ruby {} {} bundler {}", ruby.version, ruby.abi, ruby.bundler).into_bytes(),
        ruby.bin.as_os_str().as_encoded_bytes().to_vec(),
    ];
    for path in &files {
        let digest = tree.digest(path).map(|digest| digest.to_string()).unwrap_or_default();
        parts.extend([path.clone().into_bytes(), digest.into_bytes()]);
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let (key, path) = toolchains.layer(&parts);
    let (project, gems) = (path.join("project"), path.join("gems"));
    let mut words = vec!["bundle", "install", "--quiet"];
    words.extend(matches!(vendored, Vendored::Whole).then_some("--local"));
    let mut install = Step::new("Installing gems", &project, words);
    for (name, value) in settings(ruby) {
        install = install.env(name, value);
    }
    install = install
        .env("BUNDLE_PATH", &gems)
        .env("BUNDLE_GEMFILE", project.join("Gemfile"))
        .env("BUNDLE_APP_CONFIG", project.join(".bundle"))
        .env("BUNDLE_JOBS", "4")
        .env("BUNDLE_NO_PRUNE", "true");
    let install = hints(install, ruby);
    let below_project = |path: &String| (path.clone(), below("project", path));
    LayerPlan {
        name: "Gems".to_owned(),
        key,
        path,
        copies: files.iter().map(below_project).collect(),
        files: Vec::new(),
        at_run: true,
        sees_app: false,
        steps: vec![install, tidy(&gems, ruby)],
        remove: vec!["project".to_owned()],
        links: vec![(GEMS.to_owned(), "gems".to_owned())],
    }
}

/// Removes what of an installation differs from time to time and nobody runs: logs of compilers, the
/// archives that were installed.
fn tidy(gems: &Path, ruby: &Ruby) -> Step {
    const TIDY: &str = "require 'fileutils'
root = ARGV.fetch(0)
exit unless File.directory?(root)
FileUtils.rm_rf([File.join(root, 'cache'), File.join(root, 'bundler', 'cache')])
Dir.glob(File.join(root, '{extensions,gems}', '**', '{gem_make.out,mkmf.log,Makefile,*.o}'))
   .each { |file| File.delete(file) if File.file?(file) && !File.symlink?(file) }";
    let root = gems.join("ruby").join(&ruby.abi);
    let words: [&std::ffi::OsStr; 4] =
        ["ruby".as_ref(), "-e".as_ref(), TIDY.as_ref(), root.as_ref()];
    Step::new("", gems.parent().unwrap_or(gems), words)
}

fn hints(step: Step, ruby: &Ruby) -> Step {
    let headers = match ruby.has_headers {
        true => "a gem needs a library or a compiler that is not here: the lines above name it",
        false => {
            "a gem is compiled, and this Ruby has no headers: `apt install ruby-dev`, or a gem that \
             brings a binary (`bundle lock --add-platform x86_64-linux`)"
        }
    };
    step.hint("Your bundle only supports platforms", PLATFORM)
        .hint("does not match", "the lock and the Gemfile differ: run `bundle install` and commit both")
        .hint("The dependencies in your gemfile changed", "run `bundle install` and commit `Gemfile.lock`")
        .hint("You are trying to install in deployment mode", "run `bundle install` and commit `Gemfile.lock`")
        .hint("Your Ruby version is", "ask for the Ruby that is here in the Gemfile, or install that one")
        .hint("mkmf.rb can't find header files", headers)
        .hint("Failed to build gem native extension", headers)
        .hint("mkmf", headers)
        .hint("Could not find", "`vendor/cache` lacks a gem, or the gem server does not have it")
        .hint(
            "Could not reach host",
            "no gem server is in reach: `bundle cache --all-platforms` puts the gems into the codebase",
        )
        .hint(
            "Could not fetch specs",
            "no gem server is in reach: `bundle cache --all-platforms` puts the gems into the codebase",
        )
}

const PLATFORM: &str =
    "run `bundle lock --add-platform x86_64-linux` (or `aarch64-linux`) and commit `Gemfile.lock`";

/// What every step and every process gets.
fn environment(plan: &mut Plan, app: &Path, ruby: &Ruby, lock: &Lock) {
    for (name, value) in settings(ruby) {
        plan.build_env.insert(name.to_owned(), value.clone());
        plan.env.insert(name.to_owned(), value.to_string_lossy().into_owned());
    }
    let gems = format!("{GEMS}/ruby/{}", ruby.abi);
    for (name, inside) in [("BUNDLE_PATH", GEMS), ("GEM_PATH", &gems)] {
        plan.build_env.insert(name.to_owned(), app.join(inside).into_os_string());
        plan.env.insert(name.to_owned(), format!("/app/{inside}"));
    }
    let is_rails = lock.has("railties");
    let rails = [
        ("RAILS_ENV", "production"),
        ("RAILS_LOG_TO_STDOUT", "enabled"),
        ("RAILS_SERVE_STATIC_FILES", "enabled"),
    ];
    let rails = rails.into_iter().filter(|_| is_rails);
    for (name, value) in [("RACK_ENV", "production")].into_iter().chain(rails) {
        plan.build_env.insert(name.to_owned(), value.into());
        plan.env.insert(name.to_owned(), value.to_owned());
    }
    // Rails does not start in production without it.
    plan.secrets.extend("SECRET_KEY_BASE".parse::<EnvName>().ok().filter(|_| is_rails));
    // Threads of Ruby hold memory in as many arenas as there are otherwise.
    plan.env.insert("MALLOC_ARENA_MAX".to_owned(), "2".to_owned());
    plan.path.extend(["/app/bin".to_owned(), format!("/app/{GEMS}/{}", bin(ruby))]);
    if ruby.mount.is_some() {
        plan.path.push(ruby.bin.to_string_lossy().into_owned());
    }
}

/// The hooks, and assets.
fn steps(plan: &mut Plan, tree: &Tree, app: &Path, lock: &Lock) -> Result<(), Error> {
    plan.steps.extend(hooks::steps(tree, app, hooks::PRE_COMPILE)?);
    let compiled = tree.names("public/assets").into_iter().find(|name| {
        name == ".manifest.json"
            || name.starts_with("manifest")
            || name.starts_with(".sprockets-manifest")
    });
    if let Some(name) = compiled {
        plan.notes.push(format!("Assets are in the codebase: public/assets/{name}"));
    } else if lock.has("railties") && tree.is_file("Rakefile") {
        let words = ["bundle", "exec", "ruby", "-e", ASSETS];
        let mut step = Step::new("Compiling assets", app, words)
            .env("SECRET_KEY_BASE", NO_SECRET)
            .env("SECRET_KEY_BASE_DUMMY", "1");
        if let Some(url) = no_database(lock) {
            step = step.env("DATABASE_URL", url);
        }
        let config = "a build has no config, for config belongs to a deploy: give the variable a default, \
                      or let what asks for it do without while assets are compiled";
        step = step
            .hint("KeyError", config)
            .hint("key not found", config)
            .hint("Connection refused", "let nothing ask the database while assets are compiled")
            .hint("ExecJS::RuntimeUnavailable", "add a `package.json`, so that Node.js is there, or `mini_racer`")
            .hint("", "make `RAILS_ENV=production bundle exec rake assets:precompile` work without config");
        plan.steps.push(step);
        plan.prune.push("tmp/cache".to_owned());
    }
    plan.steps.extend(hooks::steps(tree, app, hooks::POST_COMPILE)?);
    Ok(())
}

/// An address for whatever parses one while Rails is loaded: nothing listens there.
fn no_database(lock: &Lock) -> Option<&'static str> {
    let adapters = [
        ("pg", "postgres://nobody:nothing@127.0.0.1/none"),
        ("mysql2", "mysql2://nobody:nothing@127.0.0.1/none"),
        ("trilogy", "trilogy://nobody:nothing@127.0.0.1/none"),
        ("sqlite3", "sqlite3:none.sqlite3"),
    ];
    adapters.into_iter().find(|(gem, _)| lock.has(gem)).map(|(_, url)| url)
}

/// What runs where the Procfile does not say.
fn process_types(plan: &mut Plan, tree: &Tree, lock: &Lock) {
    let web = if lock.has("railties") && tree.is_file("config/application.rb") {
        "bundle exec rails server -b 0.0.0.0 -p $PORT -e $RAILS_ENV"
    } else if tree.is_file("config.ru") && lock.has("puma") {
        "bundle exec puma --bind tcp://0.0.0.0:$PORT config.ru"
    } else if tree.is_file("config.ru") {
        "bundle exec rackup --host 0.0.0.0 --port $PORT config.ru"
    } else {
        return;
    };
    plan.process_types.insert(ProcessType::web(), web.to_owned());
}

#[cfg(test)]
mod tests;
