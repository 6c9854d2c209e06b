//! Process types times quantities, each process with its own PORT.

use std::collections::BTreeSet;

use crate::{SOON, Up, codebase, output, shop, tolv};
use tolv_testkit::poll;

#[test]
fn three_web_processes_have_three_ports_and_share_the_requests() {
    let home = codebase("web: python3 server.py\nworker: sleep 1000\n");
    let up = Up::start(&shop(&home), &["--formation", "web=3,worker=2"]);
    for worker in ["worker.1", "worker.2"] {
        up.sees(&format!("tolv[{worker}]: Starting process with command `sleep 1000`"));
    }
    let mut answers = BTreeSet::new();
    poll(SOON, "an answer from each process", || {
        answers.insert(up.text("/"));
        (answers.len() == 3).then_some(())
    });
    let ports: BTreeSet<_> = answers.iter().filter_map(|text| text.split(' ').nth(1)).collect();
    assert_eq!(ports.len(), 3, "{answers:?}");
    let names: BTreeSet<_> = answers.iter().filter_map(|text| text.split(' ').next()).collect();
    assert_eq!(names, BTreeSet::from(["web.1", "web.2", "web.3"]));
}

#[test]
fn two_formations_run_at_once_in_two_folders() {
    let (one, two) = (codebase("web: python3 server.py\n"), codebase("web: python3 server.py\n"));
    let (one, two) = (Up::start(&shop(&one), &[]), Up::start(&shop(&two), &[]));
    assert_ne!(one.address, two.address);
    assert_ne!(one.text("/"), two.text("/"), "the same PORT");
}

#[test]
fn a_busy_default_port_gives_the_next_free_one() {
    let home = codebase("web: python3 server.py\n");
    // Whether or not something else has 8080, the second cannot have the first one's.
    let started = |state: &str| {
        let mut command = tolv();
        command.arg("up").arg(shop(&home)).env("TOLV_HOME", home.path().join(state));
        let tolv = tolv_testkit::Tolv::start(&mut command);
        let line = tolv.wait_for_line(|line| line.contains("is up at"), SOON).text;
        (tolv, line.rsplit(':').next().unwrap().parse::<u16>().unwrap())
    };
    let ((_first, first), (_second, second)) = (started("one"), started("two"));
    assert!(first >= 8080 && second > first, "{first} {second}");
}

#[test]
fn a_type_that_ends_with_status_0_is_complete_and_the_release_phase_is_shown_once() {
    let procfile = "release: echo migrating\nweb: python3 server.py\nseed: echo seeded\n";
    let home = codebase(&format!("{procfile}later: sleep 2; echo went on\n"));
    let up = Up::start(&shop(&home), &[]);
    up.sees("tolv[seed.1]: State changed from starting to complete");
    up.sees("tolv[later.1]: State changed from up to complete");
    let ps = output(tolv().args(["ps", "--json"]).current_dir(shop(&home)));
    let ps: serde_json::Value = serde_json::from_slice(&ps.stdout).unwrap();
    let state = |name: &str| {
        let items = ps["items"].as_array().unwrap();
        items.iter().find(|process| process["name"] == name).unwrap()["state"].clone()
    };
    assert_eq!((state("seed.1"), state("later.1")), ("complete".into(), "complete".into()));
    // What is complete is not run again by what has nothing to do with it.
    let scaled = output(tolv().args(["scale", "web=2"]).current_dir(shop(&home)));
    assert!(scaled.status.success(), "{}", crate::stderr(&scaled));
    let lines = up.tolv.lines();
    let count = |text: &str| lines.iter().filter(|line| line.text.contains(text)).count();
    assert_eq!(count("app[seed.1]: seeded"), 1);
    let said = lines.iter().filter(|line| line.text.ends_with("migrating"));
    let said: Vec<_> = said.filter(|line| !line.text.contains("echo migrating")).collect();
    assert_eq!(said.len(), 1, "{said:?}");
}

#[test]
fn a_web_process_that_ends_with_status_0_is_a_failure() {
    let home = codebase("web: true\nseed: true\n");
    let ended = output(tolv().arg("up").arg(shop(&home)).args(["--listen", "127.0.0.1:0"]));
    assert!(!ended.status.success());
    assert!(crate::stderr(&ended).contains("web.1"), "{}", crate::stderr(&ended));
}

#[test]
fn app_json_gives_the_first_quantity_and_the_flag_wins() {
    let home = codebase("web: python3 server.py\nclock: sleep 1000\n");
    home.write(
        "shop/app.json",
        r#"{"formation": {"web": {"quantity": 2}, "clock": {"quantity": 0}}}"#,
    );
    let up = Up::start(&shop(&home), &[]);
    up.sees("tolv[web.2]: State changed from starting to up");
    assert!(!up.tolv.lines().iter().any(|line| line.text.contains("clock.1")));
    drop(up);
    let up = Up::start(&shop(&home), &["--formation", "clock=1,web=1"]);
    up.sees("tolv[clock.1]: Starting");
    assert!(!up.tolv.lines().iter().any(|line| line.text.contains("web.2")));
}
