//! What a codebase declares, read before anything is built.

use std::collections::BTreeMap;

use tolv_model::app_json::{self, AppJson, Generator, Variable};
use tolv_model::env::{Env, EnvName};

use tolv_sandbox::Cancel;

use crate::pipeline::Host;
use crate::source::git::Git;
use crate::source::reader::{self, Reader};
use crate::{Error, Source, files};

/// A source's `app.json`; the default where there is none.
///
/// # Errors
///
/// [`Error::Manifest`] where it does not parse; git's.
pub fn declared(source: &Source, host: &Host, cancel: &Cancel) -> Result<AppJson, Error> {
    let bytes = match source {
        Source::Pushed { repository, commit, root } => {
            let path = root.as_ref().map(|root| root.join(app_json::FILE));
            let path = path.as_deref().unwrap_or(app_json::FILE);
            reader::file(Reader::Shut(repository), commit, path.as_bytes(), cancel)?
        }
        Source::Commit { dir, commit } => {
            let git = Git { path: host.search_path.clone(), home: host.user_home.clone() };
            match (git.find_any(dir)?, git.commit(dir, commit)?) {
                (Some(found), Some(commit)) => {
                    let reader = Reader::Own(&git, &found.git_dir);
                    let path = [&found.prefix, app_json::FILE.as_bytes()].concat();
                    reader::file(reader, &commit, &path, cancel)?
                }
                _ => None,
            }
        }
        Source::WorkingTree { dir } => {
            let path = dir.join(app_json::FILE);
            match files::read(&path) {
                Ok(bytes) => Some(bytes),
                // What is a link is none for the build either.
                Err(error) if files::is_missing_or_link(&error) => None,
                Err(error) => return Err(Error::io("read", &path)(error)),
            }
        }
    };
    match bytes {
        Some(bytes) => AppJson::parse(&bytes).map_err(|error| Error::Manifest(Box::new(error))),
        None => Ok(AppJson::default()),
    }
}

/// What a deploy's config lacks of what an app declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Required, and nobody but the operator knows the value.
    pub missing: Vec<EnvName>,
    /// To be set to the declared value.
    pub defaults: Vec<(EnvName, String)>,
    /// To be set to a random secret.
    pub generate: Vec<EnvName>,
}

/// Compares what is declared with what is set.
pub fn wanted(declared: &BTreeMap<EnvName, Variable>, have: &Env) -> Wanted {
    let mut wanted = Wanted::default();
    for (name, variable) in declared.iter().filter(|(name, _)| !have.has(name)) {
        match variable {
            Variable { generator: Some(Generator::Secret), .. } => {
                wanted.generate.push(name.clone());
            }
            Variable { value: Some(value), .. } => {
                wanted.defaults.push((name.clone(), value.clone()));
            }
            Variable { required: true, .. } => wanted.missing.push(name.clone()),
            Variable { .. } => {}
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_not_wanted_and_the_rest_is_sorted_out() {
        let declared = AppJson::parse(
            br#"{"env": {"SET": "x", "DEFAULT": "blue", "MUST": {"description": "d"},
                "MAY": {"required": false}, "KEY": {"generator": "secret"}}}"#,
        )
        .unwrap()
        .env;
        let mut have = Env::default();
        have.set("SET".parse().unwrap(), "").unwrap();
        let wanted = wanted(&declared, &have);
        assert_eq!(wanted.missing, ["MUST".parse().unwrap()]);
        assert_eq!(wanted.defaults, [("DEFAULT".parse().unwrap(), "blue".to_owned())]);
        assert_eq!(wanted.generate, ["KEY".parse().unwrap()]);
    }
}
