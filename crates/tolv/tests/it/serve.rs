//! `tolv serve`, driven as its users do: `git push`, the command line, requests to the apps.

mod answers;
mod api;
mod build_config;
mod buildpacks;
mod config;
mod cron;
mod crowd;
mod database;
mod deploys;
mod disk;
mod drains;
mod drill;
mod ending;
mod first;
mod handover;
mod helpers;
mod hostile;
mod interrupt;
mod limits;
mod liveness;
mod logs;
mod metrics;
mod names;
mod network;
mod outages;
mod power;
mod profile;
mod proof;
mod push;
mod records;
mod refs;
mod release_phase;
mod replaced;
mod restart;
mod root_folder;
mod rows;
mod run;
mod slow;
mod stack;
mod status;
mod streams;
mod stuck;
mod submodules;
mod survival;
mod tokens;
mod two_pushes;
mod unwritable;
mod upgrade;
mod websocket;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tolv_testkit::serve::{Ran, run};
use tolv_testkit::{Serve, git, http, poll};

use crate::{SERVER, SOON};

/// A platform with an app `shop` and its codebase, nothing deployed yet.
struct Shop {
    serve: Serve,
    dir: PathBuf,
}

impl Shop {
    /// With the app that says its PORT, and these lines in its Procfile, one process of each.
    fn new(procfile: &str, extra: &[(&str, &str)]) -> Self {
        Self::on(Serve::start(env!("CARGO_BIN_EXE_tolv"), extra), procfile)
    }

    fn on(serve: Serve, procfile: &str) -> Self {
        let dir = serve.folder("shop");
        std::fs::write(dir.join("Procfile"), procfile).unwrap();
        std::fs::write(dir.join("server.py"), SERVER).unwrap();
        if let Some(app_json) = one_of_each(procfile) {
            std::fs::write(dir.join("app.json"), app_json).unwrap();
        }
        git::commit(&dir);
        serve.tolv(&dir, &["create", "shop"]);
        Self { serve, dir }
    }

    /// A site of one file: nothing starts faster.
    fn site(text: &str, extra: &[(&str, &str)]) -> Self {
        let serve = Serve::start(env!("CARGO_BIN_EXE_tolv"), extra);
        let dir = serve.folder("shop");
        std::fs::write(dir.join("index.html"), text).unwrap();
        git::commit(&dir);
        serve.tolv(&dir, &["create", "shop"]);
        Self { serve, dir }
    }

    fn tolv(&self, args: &[&str]) -> String {
        self.serve.tolv(&self.dir, args)
    }

    fn ran(&self, args: &[&str]) -> Ran {
        self.serve.ran(&self.dir, args)
    }

    fn json(&self, args: &[&str]) -> serde_json::Value {
        let mut all = args.to_vec();
        all.push("--json");
        let text = self.tolv(&all);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// `git push` in the codebase, with the user's own settings.
    fn push(&self, args: &[&str]) -> Ran {
        push_from(&self.serve, &self.dir, args)
    }

    /// A push that has to succeed; what the remote said.
    #[track_caller]
    fn pushed(&self, args: &[&str]) -> String {
        let ran = self.push(args);
        assert!(ran.status.success(), "git push {args:?}:\n{}{}", ran.out, ran.err);
        ran.err
    }

    fn get(&self, host: &str, target: &str) -> std::io::Result<http::Response> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.serve.http()));
        http::get(address, host, target)
    }

    /// The body of a request that has to succeed.
    #[track_caller]
    fn text(&self, host: &str, target: &str) -> String {
        let response = self.get(host, target).unwrap();
        assert_eq!(response.status, 200, "{host}{target}: {}", response.text());
        response.text()
    }

    /// Commits a change of one file.
    fn change(&self, file: &str, text: &str) -> String {
        std::fs::write(self.dir.join(file), text).unwrap();
        git::commit(&self.dir)
    }
}

/// An app.json for a Procfile of which not only `web` is to start.
fn one_of_each(procfile: &str) -> Option<String> {
    let types = procfile.lines().filter_map(|line| line.split_once(':')).map(|(kind, _)| kind);
    let formation: serde_json::Map<_, _> = types
        .filter(|kind| !matches!(*kind, "web" | "release"))
        .map(|kind| (kind.to_owned(), serde_json::json!({"quantity": 1})))
        .collect();
    (!formation.is_empty()).then(|| serde_json::json!({ "formation": formation }).to_string())
}

fn push_command(serve: &Serve, dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.arg("push").args(args).current_dir(dir);
    serve.user(&mut command);
    // The credential helper is the command line, which looks here for its token.
    command.env("TOLV_TOKEN", serve.token()).env("TOLV_SERVER", serve.url());
    command
}

fn push_from(serve: &Serve, dir: &Path, args: &[&str]) -> Ran {
    run(&mut push_command(serve, dir, args))
}

/// Waits until a deploy answers with this text.
fn until_text(shop: &Shop, host: &str, wanted: &str) {
    poll(SOON, &format!("{host} answers {wanted:?}"), || {
        let response = shop.get(host, "/").ok()?;
        (response.status == 200 && response.text().contains(wanted)).then_some(())
    });
}
