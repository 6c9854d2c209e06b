//! What `tolv up` runs: a folder on this machine, whose config is a file beside the code.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use tolv_model::app_json::{Generator, Variable};
use tolv_model::dotenv;
use tolv_model::env::{Env, EnvError, EnvName};
use tolv_model::formation::Formation;
use tolv_model::name::{AppName, Deploy, DeployName};
use tolv_model::source::{MAX_FILE, SourceError};

/// The codebase, or its config, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CodebaseError {
    /// DIR is missing, or not a folder.
    #[error("`{path}` is not a folder that can be read")]
    Dir {
        /// What was given.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file of config variables cannot be read.
    #[error("the config file `{path}` cannot be read")]
    EnvFile {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file of config variables does not parse.
    #[error("the config file does not parse")]
    EnvSyntax(#[source] Box<SourceError>),
    /// A config variable is refused.
    #[error("the config file cannot be used")]
    Config(#[source] EnvError),
}

/// A codebase and the config of its local deploy.
#[derive(Clone)]
pub struct Codebase {
    /// The folder, absolute and without symbolic links.
    pub(crate) dir: PathBuf,
    /// The deploy: `<folder>/local`.
    pub(crate) deploy: Deploy,
    /// Where the config is from.
    pub(crate) env_file: PathBuf,
    pub(crate) config: Env,
    /// What in the file is passed over, and why.
    pub(crate) ignored: Vec<String>,
    /// Quantities that win over app.json's.
    pub(crate) formation: Formation,
}

impl std::fmt::Debug for Codebase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Codebase({})", self.dir.display())
    }
}

impl Codebase {
    /// Opens the codebase in `dir`, with the config in `env_file`; in `.env`, where there is one,
    /// without it.
    ///
    /// # Errors
    ///
    /// One of [`CodebaseError`]'s.
    pub fn open(
        dir: &Path,
        env_file: Option<&Path>,
        formation: Option<Formation>,
    ) -> Result<Self, CodebaseError> {
        let dir = folder(dir)?;
        let path = env_file.map_or_else(|| dir.join(".env"), Path::to_owned);
        let (config, ignored) = config(&path, env_file.is_some())?;
        Ok(Self {
            deploy: Deploy { app: app_name(&dir), name: DeployName::local() },
            dir,
            env_file: path,
            config,
            ignored,
            formation: formation.unwrap_or_default(),
        })
    }

    /// The folder, absolute and without symbolic links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its deploy: `<folder>/local`.
    pub fn deploy(&self) -> &Deploy {
        &self.deploy
    }

    /// The config that the file asks for, before what app.json gives: of what was set before,
    /// secrets that app.json generates are kept.
    pub(crate) fn config(&self, before: &Env, declared: &BTreeMap<EnvName, Variable>) -> Env {
        let mut config = self.config.clone();
        for (name, value) in before.iter() {
            let is_generated = declared
                .get(name)
                .is_some_and(|variable| matches!(variable.generator, Some(Generator::Secret)));
            if is_generated && !config.has(name) {
                // It was taken before; where there is no room for it now, it is made anew, and that
                // says so.
                config.set_config(name.clone(), value.as_bytes()).ok();
            }
        }
        config
    }
}

fn folder(dir: &Path) -> Result<PathBuf, CodebaseError> {
    let error = |source| CodebaseError::Dir { path: dir.to_owned(), source };
    let path = dir.canonicalize().map_err(error)?;
    fs::read_dir(&path).map_err(error)?;
    Ok(path)
}

/// The app's name: the codebase's folder's, made to fit.
fn app_name(dir: &Path) -> AppName {
    AppName::from_text(&dir.file_name().unwrap_or_default().to_string_lossy())
}

/// The bytes of the file. One that is found and not named is a stranger's as the rest of the codebase is:
/// it is a regular file, for a pipe is never at its end. One that is named may be a pipe.
fn read_env(path: &Path, is_named: bool) -> io::Result<Vec<u8>> {
    let odd = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidData, text.to_owned()));
    if !is_named && !fs::metadata(path)?.is_file() {
        return odd("it is not a regular file");
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE { odd("it has more than 512 KiB") } else { Ok(bytes) }
}

/// The file's variables, and what in it is passed over. Foreman's files often set `PORT`: an app
/// of theirs runs here unchanged.
fn config(path: &Path, is_named: bool) -> Result<(Env, Vec<String>), CodebaseError> {
    let text = match read_env(path, is_named) {
        Ok(text) => text,
        Err(error) if !is_named && error.kind() == io::ErrorKind::NotFound => {
            return Ok((Env::default(), Vec::new()));
        }
        Err(source) => return Err(CodebaseError::EnvFile { path: path.to_owned(), source }),
    };
    let parsed = dotenv::parse(&text).map_err(|error| {
        CodebaseError::EnvSyntax(Box::new(error.named(path.display().to_string())))
    })?;
    let (mut config, mut ignored) = (Env::default(), Vec::new());
    for (name, value) in parsed {
        match config.set_config(name, value) {
            Ok(()) => {}
            Err(EnvError::Reserved(name)) => ignored.push(format!(
                "`{name}` in `{}` has no effect: the platform sets it",
                path.display()
            )),
            Err(error) => return Err(CodebaseError::Config(error)),
        }
    }
    Ok((config, ignored))
}

#[cfg(test)]
mod tests;
