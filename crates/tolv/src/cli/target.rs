//! Which platform, which deploy, which token: from flags, the environment, the folder's git
//! remotes, what `tolv up` runs here and the last login, in this order.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use tolv_api::client::Client;
use tolv_api::{Whoami, local};
use tolv_build::StateFolder;
use tolv_model::name::{Deploy as DeployPath, DeployName};

use super::args::{At, Which};
use super::credentials::{Credentials, token_of_environment};
use super::failure::Failure;
use super::typed::Named;
use crate::settings::Settings;

/// A git remote that is a deploy's: `<server>/git/<app>/<deploy>.git`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) name: String,
    pub(crate) server: String,
    pub(crate) deploy: DeployPath,
}

impl Remote {
    /// A line of `git config --get-regexp ^remote\..*\.url$`.
    fn parse(line: &str) -> Option<Self> {
        let (key, url) = line.split_once(' ')?;
        let name = key.strip_prefix("remote.")?.strip_suffix(".url")?;
        let (server, path) = url.rsplit_once("/git/")?;
        let deploy = path.strip_suffix(".git")?.parse().ok()?;
        Some(Self { name: name.to_owned(), server: server.to_owned(), deploy })
    }
}

/// The remotes of the repository around the current folder that are deploys'.
fn remotes(settings: &Settings) -> Vec<Remote> {
    let asked = git(settings).args(["config", "--get-regexp", r"^remote\..*\.url$"]).output();
    let Ok(output) = asked else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().filter_map(Remote::parse).collect()
}

/// The one that is meant: the remote called `tolv`, or the only one there is; what `tolv up` runs
/// here is one too.
fn choose(mut remotes: Vec<Remote>, local: Option<&Local>) -> Result<Option<Remote>, Failure> {
    if let Some(found) = remotes.iter().position(|remote| remote.name == "tolv") {
        return Ok(Some(remotes.swap_remove(found)));
    }
    if remotes.len() + usize::from(local.is_some()) > 1 {
        let names = remotes.iter().map(|remote| &remote.deploy);
        let names: Vec<_> =
            names.chain(local.map(|local| &local.deploy)).map(|name| format!("`{name}`")).collect();
        let hint = match local {
            Some(_) => "say which one: -d APP/DEPLOY, or -d local for that of `tolv up`",
            None => "say which one: -d APP/DEPLOY",
        };
        return Err(Failure::new(format!("there are several deploys here: {}", names.join(", ")))
            .hint(hint));
    }
    Ok(remotes.pop())
}

/// What `tolv up` runs here.
struct Local {
    client: Client,
    deploy: DeployPath,
}

impl Local {
    /// That of the folder, or of one that it is in.
    fn find(settings: &Settings) -> Option<Self> {
        // What came with a codebase is not asked.
        let homes = settings.homes_here().into_iter().filter(StateFolder::is_usable);
        let folder = homes.into_iter().find_map(|home| local::reachable(home.path()))?;
        let client = Client::local(&folder);
        let me: Whoami = client.get("/v1/whoami").ok()?;
        let app = me.apps?.first()?.parse().ok()?;
        Some(Self { client, deploy: DeployPath { app, name: DeployName::local() } })
    }

    /// That one and no other.
    fn named(deploy: Option<&DeployPath>, settings: &Settings) -> Result<Self, Failure> {
        let found = Self::find(settings);
        let found = found.filter(|found| deploy.is_none_or(|deploy| *deploy == found.deploy));
        found.ok_or_else(|| {
            let what = deploy.map(|deploy| format!(" of {}", deploy.app)).unwrap_or_default();
            Failure::new(format!("no `tolv up`{what} runs here")).hint("start it: tolv up")
        })
    }

    fn target(self, json: bool) -> Target {
        Target { client: self.client, json, remote: None, named: Some(self.deploy) }
    }
}

/// Where they are, whichever of them is meant: on one platform, or on that of the one called
/// `tolv`.
fn platform(remotes: &[Remote]) -> Result<Option<String>, Failure> {
    let servers: BTreeSet<_> = remotes.iter().map(|remote| &remote.server).collect();
    let ours = remotes.iter().find(|remote| remote.name == "tolv");
    if servers.len() > 1 && ours.is_none() {
        let names: Vec<_> = servers.iter().map(|server| format!("`{server}`")).collect();
        let names = names.join(", ");
        return Err(Failure::new(format!(
            "this repository has deploys on several platforms: {names}"
        ))
        .hint("say which one: --server URL"));
    }
    Ok(ours.or(remotes.first()).map(|remote| remote.server.clone()))
}

/// The system's git, in the current folder.
pub(crate) fn git(settings: &Settings) -> Command {
    let mut command = Command::new("git");
    command.env("PATH", &settings.search_path).stdin(std::process::Stdio::null());
    command
}

/// A platform that commands go to.
pub(crate) struct Target {
    pub(crate) client: Client,
    pub(crate) json: bool,
    remote: Option<Remote>,
    named: Option<DeployPath>,
}

impl Target {
    /// The platform alone; where none is known, what `tolv up` runs here.
    pub(crate) fn of(at: &At, settings: &Settings) -> Result<Self, Failure> {
        let server = match &at.server {
            Some(_) => None,
            None => platform(&remotes(settings))?,
        };
        let is_unknown = at.server.is_none()
            && server.is_none()
            && Credentials::load(settings)?.last().is_none();
        match is_unknown.then(|| Local::find(settings)).flatten() {
            Some(local) => Ok(local.target(at.json)),
            None => Self::at(at, server, None, None, settings),
        }
    }

    /// The platform that knows an id: that of the deploy, where one is said.
    pub(crate) fn of_id(which: &Which, settings: &Settings) -> Result<Self, Failure> {
        let is_free = which.deploy.is_none() && which.at.server.is_none();
        let local = match &which.deploy {
            Some(Named::Local) => Some(Local::named(None, settings)?),
            _ if is_free && remotes(settings).is_empty() => Local::find(settings),
            _ => None,
        };
        match local {
            Some(local) => Ok(local.target(which.at.json)),
            None => Self::of(&which.at, settings),
        }
    }

    /// The platform and a deploy of it.
    pub(crate) fn of_deploy(which: &Which, settings: &Settings) -> Result<Self, Failure> {
        let at = &which.at;
        let named = match &which.deploy {
            Some(Named::Local) => return Ok(Local::named(None, settings)?.target(at.json)),
            Some(Named::Deploy(deploy))
                if deploy.name == DeployName::local() && at.server.is_none() =>
            {
                return Ok(Local::named(Some(deploy), settings)?.target(at.json));
            }
            Some(Named::Deploy(deploy)) => Some(deploy.clone()),
            None => None,
        };
        let all = remotes(settings);
        // Where the deploy is named, the folder only says where the platform is.
        let (remote, server) = match (&named, &at.server) {
            (Some(_), Some(_)) => (None, None),
            (Some(named), None) => {
                let own = all.iter().find(|remote| remote.deploy == *named);
                let own = own.map(|remote| remote.server.clone());
                (None, own.map_or_else(|| platform(&all), |own| Ok(Some(own)))?)
            }
            (None, Some(server)) => {
                let here = |remote: &Remote| remote.server == server.trim_end_matches('/');
                (choose(all.into_iter().filter(here).collect(), None)?, None)
            }
            (None, None) => {
                let local = Local::find(settings);
                let chosen = choose(all, local.as_ref())?;
                if let (None, Some(local)) = (&chosen, local) {
                    return Ok(local.target(at.json));
                }
                let server = chosen.as_ref().map(|remote| remote.server.clone());
                (chosen, server)
            }
        };
        Self::at(at, server, remote, named, settings)
    }

    /// On the platform that is asked for, that the folder says, or of the last login.
    fn at(
        at: &At,
        server: Option<String>,
        remote: Option<Remote>,
        named: Option<DeployPath>,
        settings: &Settings,
    ) -> Result<Self, Failure> {
        let known = Credentials::load(settings)?;
        let server =
            at.server.clone().or(server).or_else(|| known.last().map(str::to_owned)).ok_or_else(
                || {
                    Failure::new("which platform is meant is not known").hint(
                        "log in first: tolv login URL --token tolv_…; for what `tolv up` \
                             runs, go to its folder",
                    )
                },
            )?;
        let token = token_of_environment(settings)?;
        let token = token.or_else(|| known.token(&server).map(str::to_owned));
        Ok(Self { client: Client::new(&server, token), json: at.json, remote, named })
    }

    /// The deploy that is meant.
    pub(crate) fn deploy(&self) -> Result<DeployPath, Failure> {
        let remote = self.remote.as_ref().map(|remote| remote.deploy.clone());
        self.named.clone().or(remote).ok_or_else(|| {
            Failure::new("which deploy is meant is not known")
                .hint("say it, as in -d shop/production, or make one: tolv create NAME")
        })
    }

    /// The address of a deploy in the API.
    pub(crate) fn path(&self) -> Result<String, Failure> {
        let deploy = self.deploy()?;
        Ok(format!("/v1/apps/{}/deploys/{}", deploy.app, deploy.name))
    }
}

/// Whether a folder is in a git repository.
pub(crate) fn in_repository(settings: &Settings) -> bool {
    let asked = git(settings).args(["rev-parse", "--git-dir"]).output();
    asked.is_ok_and(|output| output.status.success())
}

/// A word as a shell reads it back: git gives credential helpers to one.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    match text.chars().all(plain) && OsStr::new(&*text) == path.as_os_str() {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(name: &str) -> Remote {
        let line = format!("remote.{name}.url http://h:1/git/shop/{name}.git");
        Remote::parse(&line).unwrap()
    }

    #[test]
    fn remotes_of_deploys_are_told_from_others() {
        let found = remote("staging");
        assert_eq!(found.server, "http://h:1");
        assert_eq!(found.deploy.to_string(), "shop/staging");
        for other in [
            "remote.origin.url git@github.com:a/b.git",
            "remote.x.url http://h/git/shop/production",
            "remote.x.url http://h/git/Shop/production.git",
            "nonsense",
        ] {
            assert_eq!(Remote::parse(other), None, "{other}");
        }
    }

    #[test]
    fn one_remote_is_meant_and_of_several_the_one_called_tolv() {
        let chosen = |remotes: &[&str]| choose(remotes.iter().map(|n| remote(n)).collect(), None);
        assert_eq!(chosen(&[]).unwrap(), None);
        assert_eq!(chosen(&["staging"]).unwrap().unwrap().name, "staging");
        assert_eq!(chosen(&["a", "tolv"]).unwrap().unwrap().name, "tolv");
        assert!(chosen(&["a", "b"]).is_err());
    }

    #[test]
    fn what_runs_here_is_meant_where_nothing_else_can_be() {
        let deploy = "shop/local".parse().unwrap();
        let local = Local { client: Client::local(Path::new("/nowhere")), deploy };
        let chosen =
            |remotes: &[&str]| choose(remotes.iter().map(|n| remote(n)).collect(), Some(&local));
        assert_eq!(chosen(&[]).unwrap(), None);
        assert_eq!(chosen(&["tolv"]).unwrap().unwrap().name, "tolv", "as without it");
        let doubt = chosen(&["staging"]).unwrap_err();
        assert!(doubt.text.contains("`shop/local`"), "{doubt:?}");
        assert!(doubt.hint.unwrap().contains("-d local"));
    }

    #[test]
    fn several_deploys_on_one_platform_leave_no_doubt_where_it_is() {
        let at = |name: &str, server: &str| Remote { server: server.to_owned(), ..remote(name) };
        assert_eq!(platform(&[]).unwrap(), None);
        assert_eq!(platform(&[remote("a"), remote("b")]).unwrap().unwrap(), "http://h:1");
        let two = [at("a", "http://one"), at("b", "http://two")];
        assert!(platform(&two).unwrap_err().text.contains("http://two"));
        let tolv = [at("a", "http://one"), at("tolv", "http://two")];
        assert_eq!(platform(&tolv).unwrap().unwrap(), "http://two");
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(shell_word(Path::new("/usr/bin/tolv")), "/usr/bin/tolv");
        assert_eq!(shell_word(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
