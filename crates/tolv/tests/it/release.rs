//! The release phase, config, and what a process is given.

use std::process::Command;

use tolv_testkit::Tolv;

use crate::{SOON, Up, codebase, output, shop, stderr, stdout, tolv};

#[test]
fn the_release_phase_runs_first_with_the_same_slug_and_config() {
    let home =
        codebase("web: python3 server.py\nrelease: echo \"migrating with $GREETING in $PWD\"\n");
    home.write("shop/.env", "GREETING='hello you'\n");
    let up = Up::start(&shop(&home), &[]);
    let lines = up.tolv.lines();
    let place = |text: &str| lines.iter().position(|line| line.text.contains(text));
    let (migrated, started) =
        (place("app[release.1]: migrating with hello you in "), place("tolv[web.1]: Starting"));
    assert!(migrated.is_some() && migrated < started, "{lines:?}");
}

#[test]
fn a_failing_release_phase_starts_nothing_and_gives_its_code() {
    let home = codebase("web: python3 server.py\nrelease: echo no; exit 23\n");
    let ended = output(tolv().arg("up").arg(shop(&home)).args(["--listen", "127.0.0.1:0"]));
    assert_eq!(ended.status.code(), Some(23), "{}", stderr(&ended));
    assert!(stdout(&ended).contains("app[release.1]: no"), "{}", stdout(&ended));
    assert!(!stdout(&ended).contains("web.1"), "{}", stdout(&ended));
    assert!(stderr(&ended).contains("the release phase failed"), "{}", stderr(&ended));
}

#[test]
fn the_environment_is_config_and_the_platforms_own_and_nothing_else() {
    let home = codebase("web: python3 server.py\n");
    home.write("shop/.env", "# mine\nexport A=1\nB=\"two\\nlines\"\n");
    let up = Up::start_with(tolv().arg("up").arg(shop(&home)).env("LEAK_ME", "secret"), SOON);
    let text = up.text("/env");
    let has = |name: &str| text.lines().any(|line| line.starts_with(&format!("{name}=")));
    for name in [
        "A",
        "PORT",
        "HOME",
        "PATH",
        "TOLV_APP",
        "TOLV_DEPLOY",
        "TOLV_RELEASE",
        "TOLV_PROCESS",
        "TOLV_SLUG",
        "DYNO",
    ] {
        assert!(has(name), "{name} is missing in\n{text}");
    }
    assert!(text.contains("B=two\nlines"), "{text}");
    assert!(text.contains("TOLV_APP=shop") && text.contains("TOLV_RELEASE=v1"), "{text}");
    assert!(!has("LEAK_ME") && !has("CARGO_HOME"), "{text}");
}

#[test]
fn what_the_platform_sets_cannot_be_set_by_config() {
    let home = codebase("web: python3 server.py\n");
    home.write("shop/.env", "PORT=5000\nDYNO=mine\nA=1\n");
    let up = Up::start(&shop(&home), &[]);
    up.sees(" !     `PORT` in `");
    let text = up.text("/env");
    assert!(text.lines().any(|line| line == "A=1") && text.contains("DYNO=web.1"), "{text}");
    assert!(!text.contains("PORT=5000"), "{text}");
}

#[test]
fn another_env_file_replaces_dot_env() {
    let home = codebase("web: python3 server.py\n");
    home.write("shop/.env", "A=1\n");
    let mine = home.write("mine.env", "C=3\n");
    let mut command = tolv();
    command.arg("up").arg(shop(&home)).arg("--env-file").arg(&mine);
    let up = Up::start_with(&mut command, SOON);
    let text = up.text("/env");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.contains(&"C=3") && !lines.contains(&"A=1"), "{text}");
}

#[test]
fn the_same_codebase_is_not_released_twice_by_a_second_up() {
    let home = codebase("web: python3 server.py\n");
    let first = Up::start(&shop(&home), &[]);
    let second = output(tolv().arg("up").arg(shop(&home)));
    assert_eq!(second.status.code(), Some(1));
    let text = stderr(&second);
    let pid = first.tolv.pid().as_raw_nonzero().to_string();
    assert!(text.contains(&pid) && text.contains("hint:"), "{text}");
    assert_eq!(first.get("/").unwrap().status, 200, "the first was disturbed");
}

#[test]
fn a_request_that_comes_before_the_app_is_up_is_held() {
    let home = codebase("web: sleep 1; exec python3 server.py\n");
    let port = tolv_testkit::free_port();
    let listen = format!("127.0.0.1:{port}");
    let up = Tolv::start(tolv().arg("up").arg(shop(&home)).args(["--listen", &listen]));
    let address = listen.parse().unwrap();
    let response = tolv_testkit::poll(SOON, "the router to listen", || {
        let host = format!("shop.localhost:{port}");
        tolv_testkit::http::send(address, "GET", "/", &[("Host", &host)], SOON).ok()
    });
    assert_eq!(response.status, 200, "{}", response.text());
    let ready = |line: &tolv_testkit::Line| line.text.contains("is up at");
    tolv_testkit::poll(SOON, "the line that says it is up", || {
        up.lines().iter().any(ready).then_some(())
    });
}

#[test]
fn curl_reaches_it_by_its_name() {
    let home = codebase("web: python3 server.py\n");
    let up = Up::start(&shop(&home), &[]);
    let url = format!("http://shop.localhost:{}/", up.address.port());
    let ended = output(Command::new("curl").args(["-sS", "--max-time", "20", &url]));
    assert!(stdout(&ended).starts_with("web.1 "), "{}{}", stdout(&ended), stderr(&ended));
}
