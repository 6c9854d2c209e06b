//! The program's file is replaced or removed while the platform runs, and nobody asks for an upgrade; and
//! what the platform keeps of git is lost.

use std::os::unix::fs::PermissionsExt as _;

use rustix::process::{Pid, Signal, kill_process};

use super::upgrade::{Installed, pids};
use super::*;

/// Makes a platform's program something else.
type Replace = fn(&Installed);

/// The command line, which is another program here.
fn user(shop: &Shop, args: &[&str]) -> Ran {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_tolv"));
    let mut command = Command::new(program);
    command.args(args).current_dir(&shop.dir);
    shop.serve.user(&mut command);
    command.env("TOLV_SERVER", shop.serve.url()).env("TOLV_TOKEN", shop.serve.token());
    run(&mut command)
}

fn process(shop: &Shop) -> Pid {
    let ran = user(shop, &["ps", "--json"]);
    let ps: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let pid = ps["items"][0]["pid"].as_u64().and_then(|pid| i32::try_from(pid).ok()).unwrap();
    Pid::from_raw(pid).unwrap()
}

#[test]
fn a_platform_serves_its_own_needs_whatever_is_in_the_place_of_its_program() {
    let installed = Installed::new();
    let serve = Serve::start(installed.path().to_str().unwrap(), &[]);
    let dir = serve.folder("shop");
    std::fs::write(dir.join("index.html"), "one").unwrap();
    git::commit(&dir);
    serve.tolv(&dir, &["create", "shop"]);
    // git asks the command line for the token, and finds it where it was.
    let helper = format!("!{} git-credential", env!("CARGO_BIN_EXE_tolv"));
    git::git(&dir, &["config", &format!("credential.{}.helper", serve.url()), &helper]);
    let mut shop = Shop { serve, dir };
    let mode = |installed: &Installed, mode| {
        std::fs::set_permissions(installed.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let replacements: [(&str, Replace); 5] = [
        ("as it was", |_| {}),
        ("not executable", |installed| {
            let mode = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(installed.path(), mode).unwrap();
        }),
        ("broken", |installed| installed.put("exit 1")),
        ("gone", |installed| std::fs::remove_file(installed.path()).unwrap()),
        ("a folder", |installed| std::fs::create_dir(installed.path()).unwrap()),
    ];
    for (what, replace) in replacements {
        replace(&installed);
        shop.change("index.html", what);
        shop.pushed(&["tolv", "main"]);
        until_text(&shop, "shop.localhost", what);
        let killed = process(&shop);
        kill_process(killed, Signal::KILL).unwrap();
        poll(SOON, "it to be started again", || {
            let ran = user(&shop, &["ps", "--json"]);
            let ps: serde_json::Value = serde_json::from_str(&ran.out).ok()?;
            let is_new = ps["items"][0]["pid"] != killed.as_raw_pid();
            (is_new && ps["items"][0]["state"] == "up").then_some(())
        });
        assert_eq!(shop.text("shop.localhost", "/"), what);
    }
    std::fs::remove_dir(installed.path()).unwrap();
    // The file is the upgrade's.
    installed.put_right();
    mode(&installed, 0o755);
    assert!(shop.serve.upgrade(|_| {}).success());
    shop.change("index.html", "upgraded");
    shop.pushed(&["tolv", "main"]);
    until_text(&shop, "shop.localhost", "upgraded");
    assert_eq!(pids(&shop).len(), 1);
}

#[test]
fn a_lost_repository_is_made_again_and_told() {
    let mut shop = Shop::new("web: python3 server.py\n", &[]);
    shop.pushed(&["tolv", "main"]);
    let git = shop.serve.state().join("git");
    // What a push needs besides.
    for lost in ["hooks", "pushes"] {
        std::fs::remove_dir_all(git.join(lost)).unwrap();
        shop.change("file", lost);
        shop.pushed(&["tolv", "main"]);
    }
    let status = |shop: &Shop| user(shop, &["status", "--platform"]).out;
    for lost in ["git/shop.git", "git"] {
        std::fs::remove_dir_all(shop.serve.state().join(lost)).unwrap();
        // A change of what runs needs no commit.
        let said = shop.tolv(&["config", "set", &format!("LOST={}", lost.len())]);
        assert!(said.contains("shop/production is at v"), "{said}");
        let text = "The repository of shop is gone from the state folder; an empty one is made";
        shop.tolv(&["deploys"]);
        shop.serve.running().wait_for_line(|line| line.contains(text), SOON);
        assert!(status(&shop).contains("the repositories of shop were gone"), "{}", status(&shop));
        shop.change("file", lost);
        shop.pushed(&["tolv", "main"]);
        assert!(!status(&shop).contains("were gone"), "{}", status(&shop));
    }
    // Releases of commits that are gone can be gone back to: their slugs are there.
    shop.tolv(&["rollback", "v1"]);
    assert!(shop.serve.upgrade(|_| {}).success());
}

/// The database and the key are there, the state folder is not: another machine's disk, for one.
#[test]
fn apps_of_a_new_state_folder_are_pushed_to() {
    let postgres = tolv_testkit::Postgres::start();
    let mut shop = Shop::site("one", &[("DATABASE_URL", postgres.url())]);
    shop.pushed(&["tolv", "main"]);
    shop.serve.end(Signal::INT);
    let state = shop.serve.state();
    let key = std::fs::read(state.join("secret-key")).unwrap();
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("secret-key"), key).unwrap();
    shop.serve.begin();
    // The same commit: nobody has it here any more.
    shop.pushed(&["tolv", "main"]);
    until_text(&shop, "shop.localhost", "one");
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
    until_text(&shop, "shop.localhost", "two");
}
