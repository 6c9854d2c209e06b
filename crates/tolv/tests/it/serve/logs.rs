//! `tolv logs`: what is in the log of a deploy, whatever ended meanwhile, and who follows it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// Says what it is asked to say.
pub(super) const TALKER: &str = r#"
import http.server, os, sys, urllib.parse
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        count = int(urllib.parse.parse_qs(url.query).get("count", ["1"])[0])
        # The platform's own look at it is not to be heard.
        for number in range(count if url.path != "/" else 0):
            sys.stdout.buffer.write(b"says %s %d\n" % (url.path[1:].encode(), number))
        sys.stdout.flush()
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

fn talker() -> Shop {
    let shop = Shop::new("web: python3 talker.py\nworker: sleep 1000\n", &[]);
    std::fs::write(shop.dir.join("talker.py"), TALKER).unwrap();
    git::commit(&shop.dir);
    shop.pushed(&["tolv", "main"]);
    shop
}

/// `tolv logs -f`, killed at the end.
struct Follow {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Follow {
    fn start(shop: &Shop, args: &[&str]) -> Self {
        let mut all = vec!["logs", "-f"];
        all.extend(args);
        let mut command = shop.serve.command(&shop.dir, &all);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (send, lines) = std::sync::mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                send.send(line).ok();
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line with this text.
    fn sees(&mut self, text: &str) {
        poll(SOON, text, || {
            self.seen.extend(self.lines.try_iter());
            self.seen.iter().any(|line| line.contains(text)).then_some(())
        });
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_log_has_everything_in_its_order_and_answers_questions() {
    let shop = talker();
    shop.text("shop.localhost", "/hello?count=3");
    let all = poll(SOON, "the request's line", || {
        let all = shop.tolv(&["logs"]);
        all.contains("tolv[router]: at=info method=GET path=\"/hello?count=3\"").then_some(all)
    });
    let place = |text: &str| all.find(text).unwrap_or_else(|| panic!("{text} in {all}"));
    let order = [
        "tolv[release]: Release v1 created by owner",
        "tolv[web.1]: Starting process with command `python3 talker.py`",
        "tolv[web.1]: State changed from starting to up",
        "app[web.1]: says hello 0",
        "app[web.1]: says hello 2",
    ];
    assert!(order.windows(2).all(|pair| place(pair[0]) < place(pair[1])), "{all}");

    let last = shop.tolv(&["logs", "-n", "2", "--process", "web", "--source", "app"]);
    assert_eq!(last.lines().count(), 2, "{last}");
    assert!(last.contains("says hello 1") && last.contains("says hello 2"), "{last}");
    let found = shop.tolv(&["logs", "--since", "10m", "--grep", r"hello [12]$"]);
    assert_eq!(found.lines().count(), 2, "{found}");
    assert_eq!(shop.tolv(&["logs", "--until", "10m"]), "");
    shop.tolv(&["config", "set", "A=1"]);
    let second = shop.tolv(&["logs", "--release", "v2", "--process", "web.1"]);
    assert!(second.contains("State changed from starting to up"), "{second}");
    assert!(!second.contains("says hello"), "{second}");
    let set = shop.tolv(&["logs", "--process", "release"]);
    assert!(set.contains("Set A config vars"), "{set}");

    let json = shop.tolv(&["logs", "-n", "1", "--grep", "hello 2", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&line["process"], &line["release"]), (&"web.1".into(), &1.into()), "{json}");

    for (args, text) in [
        (&["logs", "--grep", "("][..], "grep is no pattern"),
        (&["logs", "--source", "router"], "is not app or tolv\n  hint: lines of the router"),
        (&["logs", "--since", "soon"], "neither a moment"),
        (&["logs", "--since", "1m", "--until", "1h"], " is before since "),
        (&["logs", "-n", "99999"], "99999"),
    ] {
        let ran = shop.ran(args);
        assert!(!ran.status.success() && ran.err.contains(text), "{args:?}: {}", ran.err);
    }
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let shop = talker();
    for args in [&["logs"][..], &["logs", "-f"], &["logs", "--json"], &["ps"]] {
        let mut command = shop.serve.command(&shop.dir, args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        // One that follows notices it at the next line.
        let status = poll(SOON, "its end", || {
            shop.text("shop.localhost", "/more");
            child.try_wait().unwrap()
        });
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((status.code(), said.as_str()), (Some(141), ""), "{args:?}");
    }
    let mut command = shop.serve.command(&shop.dir, &["ps"]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ran = command.stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1));
    assert!(said.starts_with("error: standard output: No space left"), "{said}");
}

#[test]
fn the_log_outlives_processes_deploys_and_the_platform() {
    let mut shop = talker();
    shop.text("shop.localhost", "/before?count=2");
    shop.change("note.txt", "two");
    shop.pushed(&["tolv", "main"]);
    shop.serve.end(Signal::KILL);
    shop.serve.begin();
    poll(SOON, "the app to be back", || shop.get("shop.localhost", "/after").ok());
    // The answer may be there before the line is.
    let all = poll(SOON, "the last line", || {
        let all = shop.tolv(&["logs", "-n", "1000"]);
        all.contains("says after 0").then_some(all)
    });
    for text in ["says before 0", "says before 1", "Release v2 created"] {
        assert!(all.contains(text), "{text} in {all}");
    }
    assert!(!all.contains("L10"), "{all}");
}

#[test]
fn who_follows_sees_each_line_once_across_a_deploy_and_a_restart_of_the_platform() {
    let mut shop = talker();
    let mut follow = Follow::start(&shop, &["-n", "0", "--source", "app"]);
    let mut want = Vec::new();
    let mut say = |shop: &Shop, follow: &mut Follow, word: &str| {
        poll(SOON, "an answer", || {
            let answer = shop.get("shop.localhost", &format!("/{word}?count=300")).ok()?;
            (answer.status == 200).then_some(())
        });
        follow.sees(&format!("says {word} 299"));
        want.extend((0..300).map(|number| format!("says {word} {number}")));
    };
    // It follows from some moment on: from the first line of it that is seen.
    poll(SOON, "it to follow", || {
        shop.text("shop.localhost", "/ready");
        follow.seen.extend(follow.lines.try_iter());
        follow.seen.iter().any(|line| line.contains("says ready")).then_some(())
    });
    say(&shop, &mut follow, "one");
    shop.change("note.txt", "two");
    shop.pushed(&["tolv", "main"]);
    say(&shop, &mut follow, "two");
    shop.serve.end(Signal::INT);
    shop.serve.begin();
    say(&shop, &mut follow, "three");
    let said = |line: &String| {
        let text = line.split("app[web.1]: ").nth(1).unwrap_or(line).to_owned();
        (!text.starts_with("says ready")).then_some(text)
    };
    assert_eq!(follow.seen.iter().filter_map(said).collect::<Vec<_>>(), want);
}

#[test]
fn a_follower_that_does_not_read_loses_lines_for_itself_alone_and_is_told_how_many() {
    // A log of 1 MiB: 32 segments of 64 KiB at the least make it 2 MiB.
    let shop = Shop::new("web: python3 talker.py\n", &[("TOLV_LOG_MIB", "1")]);
    std::fs::write(shop.dir.join("talker.py"), TALKER).unwrap();
    git::commit(&shop.dir);
    shop.pushed(&["tolv", "main"]);
    let mut slow = Follow::start(&shop, &["-n", "0", "--source", "app"]);
    poll(SOON, "it to follow", || {
        shop.text("shop.localhost", "/ready");
        slow.seen.extend(slow.lines.try_iter());
        slow.seen.iter().any(|line| line.contains("says ready")).then_some(())
    });
    slow.signal(Signal::STOP);
    // More than the sockets and the log hold.
    const ROUNDS: usize = 30;
    for round in 0..ROUNDS {
        shop.text("shop.localhost", &format!("/round-{round}?count=20000"));
    }
    slow.signal(Signal::CONT);
    shop.text("shop.localhost", "/last");
    slow.sees("says last 0");
    let came = slow.seen.iter().filter(|line| line.contains("says round-")).count();
    let dropped: usize = slow
        .seen
        .iter()
        .filter_map(|line| {
            line.split("overflow): ").nth(1)?.split(' ').next()?.parse::<usize>().ok()
        })
        .sum();
    assert!(came > 0 && dropped > 0, "{came} came, {dropped} were dropped");
    assert_eq!(came + dropped, ROUNDS * 20_000);
    // Nobody else lost any: the platform's own count knows of none.
    let stats = shop.json(&["logs", "stats"]);
    assert_eq!(stats["total"]["dropped"]["lines"], 0, "{stats}");
}

/// A request to the API that is sent, and of whose answer nothing is read yet.
pub(super) fn ask(shop: &Shop, token: &str, path: &str) -> TcpStream {
    let address = shop.serve.url();
    let mut stream = TcpStream::connect(address.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// The whole answer.
pub(super) fn answer(mut stream: TcpStream) -> http::Response {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    http::parse(&answer, false).unwrap()
}

/// MiB of memory that the platform has.
fn memory(shop: &Shop) -> u64 {
    let status = format!("/proc/{}/status", shop.serve.running().pid());
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn a_page_is_small_whatever_is_asked_and_written_and_no_line_is_lost() {
    const LINES: usize = 600;
    let shop = Shop::new("web: exec python3 server.py\n", &[]);
    // Of bytes that are six times as long in JSON.
    let flood = format!(
        "import sys\nfor n in range({LINES}): sys.stdout.buffer.write(b'%06d' % n + b'\\x01' * 9980 + b'\\n')\n"
    );
    shop.change("flood.py", &flood);
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["run", "--detach", "python3", "flood.py"]);
    poll(SOON, "the last line", || {
        let last = format!("{:06}\u{1}", LINES - 1);
        shop.tolv(&["logs", "-n", "1", "--grep", "^[0-9]{6}\\x01", "--json"])
            .contains(&last.replace('\u{1}', "\\u0001"))
            .then_some(())
    });
    let view = shop.json(&["tokens", "create", "--role", "view"]);
    let view = view["secret"].as_str().unwrap();
    let path = "/v1/apps/shop/deploys/production/logs";
    let choice = "grep=%5E%5B0-9%5D%7B6%7D%5Cx01";

    // Page by page.
    let (mut numbers, mut pages) = (Vec::new(), 0);
    let mut next = format!("{path}?tail=10000&{choice}");
    loop {
        let response = answer(ask(&shop, view, &next));
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(response.body.len() < 8 << 20, "{} bytes", response.body.len());
        let page: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        for line in page["lines"].as_array().unwrap() {
            let text = line["text"]["text"].as_str().unwrap();
            assert_eq!(text.len(), 9986);
            numbers.push(text[..6].parse::<usize>().unwrap());
        }
        pages += 1;
        if page["more"] == false {
            break;
        }
        next = format!("{path}?limit=10000&cursor={}&{choice}", page["cursor"].as_str().unwrap());
    }
    assert!(pages >= 6, "{pages}");
    assert_eq!(numbers, (0..LINES).collect::<Vec<_>>());
    // The command puts them together.
    let all = shop.tolv(&["logs", "-n", &LINES.to_string(), "--process", "run", "--source", "app"]);
    assert_eq!(all.lines().count(), LINES);

    // Nobody's answer is in memory as a whole.
    let before = memory(&shop);
    let unread: Vec<_> = (0..12).map(|_| ask(&shop, view, &format!("{path}?tail=10000"))).collect();
    for stream in &unread {
        assert_eq!(stream.peek(&mut [0; 1]).unwrap(), 1);
    }
    let grown = memory(&shop).saturating_sub(before);
    assert!(grown < 150, "{before} MiB and {grown} more");
    drop(unread);

    // A place that no page gave out.
    for cursor in ["0-0.99999999999", "0-0.18446744073709551615", "0-18446744073709551615"] {
        for more in ["limit=1", "follow=true"] {
            let refused = answer(ask(&shop, view, &format!("{path}?{more}&cursor={cursor}")));
            assert_eq!(refused.status, 400, "{cursor}: {}", refused.text());
            assert!(refused.text().contains("is not a place in a log"), "{}", refused.text());
        }
    }
    let skipped = answer(ask(&shop, view, &format!("{path}?limit=1&cursor=0-0.2000000")));
    assert_eq!(skipped.status, 200, "{}", skipped.text());
}

#[test]
fn the_accounts_are_exact() {
    let shop = talker();
    shop.text("shop.localhost", "/sum?count=1000");
    let bytes: usize = (0..1000).map(|number| format!("says sum {number}\n").len()).sum();
    let stats = poll(SOON, "all of it to be counted", || {
        let stats = shop.json(&["logs", "stats"]);
        (stats["processes"]["web.1"]["stored"]["lines"] == 1000).then_some(stats)
    });
    let web = &stats["processes"]["web.1"];
    assert_eq!(web["written"], serde_json::json!({"lines": 1000, "bytes": bytes}), "{stats}");
    assert_eq!(web["written"], web["stored"]);
    let shown = shop.tolv(&["logs", "--source", "app", "--process", "web.1", "-n", "5000"]);
    assert_eq!(shown.lines().count(), 1000);
    // One-offs have no end of names: those of a type are one account.
    for word in ["one", "two"] {
        shop.tolv(&["run", "--detach", "echo", word]);
    }
    poll(SOON, "both of them to be counted", || {
        let stats = shop.json(&["logs", "stats"]);
        assert!(stats["processes"]["run.1"].is_null(), "{stats}");
        (stats["processes"]["run"]["written"]["bytes"] == "one\ntwo\n".len()).then_some(())
    });
    let table = shop.tolv(&["logs", "stats"]);
    assert!(table.contains("web.1") && table.contains("bytes on the disk"), "{table}");
}
