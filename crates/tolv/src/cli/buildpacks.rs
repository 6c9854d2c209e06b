//! Buildpacks: what builds an app, where the operator says so.

use clap::{Args, Subcommand};
use tolv_api::Buildpacks as Listed;
use tolv_model::buildpack::{Buildpack, BuildpackError};

use super::Done;
use super::args::Which;
use super::failure::Failure;
use super::show::json;
use super::target::Target;
use crate::settings::Settings;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv buildpacks\n  tolv buildpacks add heroku/nodejs\n  \
    tolv buildpacks add --index 1 https://github.com/heroku/heroku-buildpack-apt\n  \
    tolv buildpacks add ./buildpack\n  tolv buildpacks remove ./buildpack\n  \
    tolv buildpacks clear\n\n\
    Without any here, `.buildpacks` and `buildpacks` of app.json of each codebase say what builds it.\n\
    They are of the app, and of all its deploys, from the next build on.")]
pub(crate) struct Buildpacks {
    #[command(subcommand)]
    pub(crate) command: Option<BuildpacksCommand>,

    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BuildpacksCommand {
    /// List them in the order in which they run
    List,
    /// Add one behind the others
    Add {
        /// An https URL of a git repository (`#ref` behind it for a branch, tag or commit), a folder
        /// of the codebase, or a name of Heroku's
        buildpack: String,

        /// Its place, from 1
        #[arg(long, short, value_parser = clap::value_parser!(u16).range(1..))]
        index: Option<u16>,
    },
    /// Remove one
    Remove {
        /// As it is listed
        #[arg(required_unless_present = "index")]
        buildpack: Option<String>,

        /// Its place, from 1
        #[arg(long, short, conflicts_with = "buildpack", value_parser = clap::value_parser!(u16).range(1..))]
        index: Option<u16>,
    },
    /// Remove all: the codebase says what builds it
    Clear,
}

pub(super) fn buildpacks(args: Buildpacks, settings: &Settings) -> Done {
    let target = Target::of_deploy(&args.which, settings)?;
    let app = target.deploy()?.app;
    let path = format!("/v1/apps/{app}/buildpacks");
    let mut list: Listed = target.client.get(&path)?;
    let all = &mut list.buildpacks;
    match args.command {
        None | Some(BuildpacksCommand::List) => return show(&target, &list),
        Some(BuildpacksCommand::Add { buildpack, index }) => {
            let parsed: Buildpack = buildpack
                .parse()
                .map_err(|error: BuildpackError| Failure::new(error.to_string()))?;
            if all.iter().any(|known| known == parsed.as_str()) {
                return Err(Failure::new(format!("{app} has the buildpack `{parsed}` already")));
            }
            let place = index.map_or(all.len(), |index| usize::from(index) - 1);
            all.insert(place.min(all.len()), parsed.to_string());
        }
        Some(BuildpacksCommand::Remove { buildpack, index }) => {
            let place = match (&buildpack, index) {
                (Some(text), _) => all.iter().position(|known| known == text.trim()),
                (None, index) => index.map(|index| usize::from(index) - 1),
            };
            let place = place.filter(|place| *place < all.len()).ok_or_else(|| {
                Failure::new(format!("{app} has no such buildpack"))
                    .hint("list them: tolv buildpacks")
            })?;
            all.remove(place);
        }
        Some(BuildpacksCommand::Clear) => all.clear(),
    }
    let list: Listed = target.client.send("PUT", &path, &list)?;
    show(&target, &list)
}

fn show(target: &Target, list: &Listed) -> Done {
    if target.json {
        return Ok(json(list)?.into_bytes());
    }
    if list.buildpacks.is_empty() {
        return Ok(b"No buildpacks are set: each codebase says what builds it.\n".to_vec());
    }
    let lines = list.buildpacks.iter().enumerate();
    let lines = lines.map(|(place, text)| format!("{}. {text}\n", place + 1));
    Ok(lines.collect::<String>().into_bytes())
}
