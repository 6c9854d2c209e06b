//! What an app can reach, at each level, through the real command.

use crate::cli::as_nobody;
use crate::{SOON, Up, codebase, shop};
use tolv_testkit::Tolv;

#[test]
fn the_slug_is_read_only_and_tmp_is_private() {
    let home = codebase(
        "web: python3 server.py\n\
         worker: touch here 2>&1; touch /tmp/mine && ls /tmp; echo \"uid $(id -u) in $PWD\"; sleep 1000\n",
    );
    let up = Up::start(&shop(&home), &[]);
    if rustix::process::geteuid().is_root() {
        let line = up.sees("app[worker.1]: uid ");
        assert!(!line.contains("uid 0 ") && line.ends_with("in /app"), "{line}");
        up.sees("Read-only file system");
        let tmp: Vec<_> = up
            .tolv
            .lines()
            .into_iter()
            .filter(|line| line.text.contains("app[worker.1]: ") && line.text.ends_with(": mine"))
            .collect();
        assert_eq!(tmp.len(), 1);
    }
    assert!(!std::path::Path::new("/tmp/mine").exists());
}

#[test]
fn an_ordinary_user_gets_the_same_app() {
    let home = codebase("web: python3 server.py\n");
    let mut command = as_nobody(&home);
    let state = home.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(65534), Some(65534)).ok();
    command.env("TOLV_HOME", &state).arg("up").arg(shop(&home)).args(["--listen", "127.0.0.1:0"]);
    let mut tolv = Tolv::start(&mut command);
    let line = tolv.wait_for_line(|line| line.contains("is up at"), SOON).text;
    let port: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let response = tolv_testkit::http::get(address, "shop.localhost", "/").unwrap();
    assert!(response.text().starts_with("web.1 "), "{}", response.text());
    tolv.signal(rustix::process::Signal::INT);
    assert_eq!(tolv.wait(SOON).code(), Some(130));
}

#[test]
fn every_level_runs_the_same_app() {
    for level in ["strict", "user", "landlock", "none"] {
        let home = codebase("web: python3 server.py\n");
        let up = Up::start(&shop(&home), &["--sandbox", level]);
        assert!(up.text("/").starts_with("web.1 "), "{level}");
    }
}
