//! Output of processes, router and platform as one stream.

use rustix::process::Signal;
use tolv_testkit::poll;

use crate::{SOON, Up, codebase, output, shop, tolv};

#[test]
fn lines_come_whole_with_time_source_and_process() {
    let home = codebase("web: python3 server.py\nworker: printf 'one\\npart'; sleep 1000\n");
    let up = Up::start(&shop(&home), &[]);
    let line = up.sees("app[worker.1]: one");
    let (time, rest) = line.split_once(' ').unwrap();
    assert!(time.ends_with("+00:00") && time.len() == 32, "{line}");
    assert_eq!(rest, "app[worker.1]: one");
    // Unfinished, and shown all the same.
    up.sees("app[worker.1]: part");
    up.text("/");
    let access = up.sees("tolv[router]: at=info method=GET path=\"/\"");
    for part in
        ["host=shop.localhost", "process=web.1", "status=200", "request_id=", "protocol=http"]
    {
        assert!(access.contains(part), "{access}");
    }
}

#[test]
fn json_is_one_object_a_line_and_nothing_else() {
    let home = codebase("web: python3 server.py\nworker: printf 'a\\377b\\n'; sleep 1000\n");
    let mut up = Up::start(&shop(&home), &["--json"]);
    up.text("/");
    up.sees("at=info");
    up.sees("worker.1");
    up.tolv.signal(Signal::INT);
    up.tolv.wait(SOON);
    let mut seen = 0;
    for line in up.tolv.lines().iter().filter(|l| l.stream == tolv_testkit::Stream::Out) {
        let value: serde_json::Value =
            serde_json::from_str(&line.text).unwrap_or_else(|bad| panic!("{bad}: {}", line.text));
        for key in ["time", "source", "process", "stream"] {
            assert!(value.get(key).is_some(), "{key} is not in {value}");
        }
        seen += 1;
    }
    assert!(seen > 8, "{seen}");
}

#[test]
fn a_flood_is_delivered_or_counted() {
    let home = codebase(
        "web: python3 server.py\nworker: seq -f 'line %.0f of the flood' 1 200000; sleep 1000\n",
    );
    let up = Up::start(&shop(&home), &[]);
    up.sees("line 200000 of the flood");
    let lines = up.tolv.lines();
    let numbers: Vec<u64> = lines
        .iter()
        .filter_map(|line| line.text.split("app[worker.1]: line ").nth(1))
        .filter_map(|rest| rest.split(' ').next()?.parse().ok())
        .collect();
    assert!(numbers.is_sorted(), "out of order");
    let dropped: u64 = lines
        .iter()
        .filter(|line| line.text.contains("L10"))
        .filter_map(|line| {
            line.text
                .split(|c: char| !c.is_ascii_digit())
                .filter_map(|n| n.parse::<u64>().ok())
                .next_back()
        })
        .sum();
    assert_eq!(numbers.len() as u64 + dropped, 200_000, "delivered {}", numbers.len());
}

#[test]
fn a_reader_that_stops_does_not_stop_the_app() {
    let home = codebase("web: python3 server.py\nworker: yes flood; true\n");
    // A pipe that nobody reads.
    let (_unread, write) = std::io::pipe().unwrap();
    let port = tolv_testkit::free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut child = tolv()
        .arg("up")
        .arg(shop(&home))
        .args(["--listen", &listen])
        .stdin(std::process::Stdio::null())
        .stdout(write)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let ask = || {
        let address = listen.parse().unwrap();
        tolv_testkit::http::get(address, "shop.localhost", "/").ok().filter(|r| r.status == 200)
    };
    for _ in 0..20 {
        poll(SOON, "an answer", ask);
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let status = poll(SOON, "the end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn colours_only_where_they_are_wanted() {
    let home = codebase("web: python3 server.py\n");
    let plain = Up::start(&shop(&home), &[]);
    assert!(!plain.tolv.lines().iter().any(|line| line.text.contains('\x1b')));
    drop(plain);
    let mut command = tolv();
    command.arg("up").arg(shop(&home)).env("CLICOLOR_FORCE", "1");
    let coloured = Up::start_with(&mut command, SOON);
    assert!(coloured.tolv.lines().iter().any(|line| line.text.contains('\x1b')));
}

#[test]
fn output_that_is_closed_ends_it() {
    let home = codebase("web: python3 server.py\nworker: yes\n");
    let mut command = std::process::Command::new("sh");
    let script = format!(
        "'{}' up '{}' --listen 127.0.0.1:0 | head -n 20",
        env!("CARGO_BIN_EXE_tolv"),
        shop(&home).display()
    );
    let ended = output(command.args(["-c", &script]));
    assert!(ended.status.success());
    poll(SOON, "tolv to be gone", || {
        crate::processes_with(&shop(&home).display().to_string()).is_empty().then_some(())
    });
}

#[test]
fn a_crash_is_said_and_the_process_comes_back() {
    // Long enough to be up before it dies.
    let worker = "worker: echo begin; sleep 2; echo dying >&2; exit 3\n";
    let home = codebase(&format!("web: python3 server.py\n{worker}"));
    let up = Up::start(&shop(&home), &[]);
    up.sees("app[worker.1]: dying");
    up.sees("tolv[worker.1]: Process exited with status 3");
    up.sees("tolv[worker.1]: State changed from up to crashed; restart at once");
    poll(SOON, "it to begin again", || {
        let lines = up.tolv.lines();
        let begun = lines.iter().filter(|line| line.text.contains("app[worker.1]: begin"));
        (begun.count() == 2).then_some(())
    });
    assert!(up.text("/").starts_with("web.1"), "the other type was taken down");
}
