//! `--watch`: every change becomes a release, and no request is lost over it.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tolv_testkit::{http, poll};

use crate::{SERVER, SOON, Up, codebase, shop, tolv};

#[test]
fn a_change_is_released_without_a_failed_request() {
    let home = codebase("web: python3 server.py\n");
    let up = Up::start(&shop(&home), &["--watch", "--formation", "web=2"]);
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (address, host) = (up.address, up.host.as_str());
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..4)
            .map(|_| {
                let (stop, asked) = (&stop, &asked);
                scope.spawn(move || {
                    let mut failed = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        asked.fetch_add(1, Ordering::Relaxed);
                        match http::get(address, host, "/") {
                            Ok(response) if response.status == 200 => {}
                            other => failed.push(format!("{other:?}")),
                        }
                    }
                    failed
                })
            })
            .collect();
        for release in 2..=4 {
            home.write("shop/server.py", format!("{SERVER}\n# {release}\n"));
            up.sees(&format!("Release v{release} is up"));
        }
        stop.store(true, Ordering::Relaxed);
        for thread in asking {
            assert_eq!(thread.join().unwrap(), [] as [String; 0]);
        }
    });
    assert!(asked.into_inner() > 50);
}

#[test]
fn a_change_that_does_not_come_up_leaves_the_old_release() {
    let home = codebase("web: python3 server.py\n");
    let up = Up::start(&shop(&home), &["--watch"]);
    home.write("shop/Procfile", "web python3 server.py\n");
    up.sees("Release v1 goes on");
    assert!(up.text("/").starts_with("web.1"));
    home.write("shop/Procfile", "web: exit 4\n");
    poll(SOON, "a second refusal", || {
        let lines = up.tolv.lines();
        (lines.iter().filter(|l| l.text.contains("Release v1 goes on")).count() == 2).then_some(())
    });
    assert!(up.text("/").starts_with("web.1"));
    home.write("shop/Procfile", "web: env NEW=1 python3 server.py\n");
    poll(SOON, "the new release", || up.text("/env").contains("NEW=1").then_some(()));
}

#[test]
fn the_folder_of_the_codebase_may_go_and_come_back() {
    for is_state_aside in [true, false] {
        let home = codebase("web: python3 server.py\n");
        let (dir, aside) = (shop(&home), home.path().join("aside"));
        let mut command = tolv();
        command.arg("up").arg(&dir).arg("--watch");
        if is_state_aside {
            command.env("TOLV_HOME", home.path().join("state"));
        }
        let up = Up::start_with(&mut command, SOON);
        let told = |what: &str, times| {
            poll(SOON, what, || {
                let lines = up.tolv.lines();
                let count = lines.iter().filter(|line| line.text.contains(what)).count();
                (count >= times).then(|| assert_eq!(count, times, "{lines:?}"))
            });
        };
        let released = |number| {
            let text = format!("web: env NEW={number} python3 server.py\n");
            home.write("shop/Procfile", text);
            let wanted = format!("NEW={number}");
            poll(SOON, &wanted, || up.text("/env").contains(&wanted).then_some(()));
        };
        fs::rename(&dir, &aside).unwrap();
        told("The folder of the codebase is gone", 1);
        assert!(up.text("/").starts_with("web.1"), "what runs goes on");
        fs::rename(&aside, &dir).unwrap();
        told("The folder of the codebase is back", 1);
        released(1);
        if !is_state_aside {
            continue;
        }
        // Another folder at the same path, after a while and at once.
        fs::remove_dir_all(&dir).unwrap();
        told("The folder of the codebase is gone", 2);
        assert!(up.text("/env").contains("NEW=1"), "what runs goes on");
        home.write("shop/server.py", SERVER);
        released(2);
        home.write("other/server.py", SERVER);
        home.write("other/Procfile", "web: env NEW=3 python3 server.py\n");
        fs::rename(&dir, &aside).unwrap();
        fs::rename(home.path().join("other"), &dir).unwrap();
        poll(SOON, "the other one", || up.text("/env").contains("NEW=3").then_some(()));
        released(4);
    }
}
