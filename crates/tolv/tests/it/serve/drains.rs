//! `tolv drains`: lines at receivers elsewhere, through outages of either side.

mod repeats;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::TcpListener;
use std::time::Instant;

use rustix::process::Signal;
use tolv_testkit::receiver::Request;
use tolv_testkit::{Receiver, Rsyslog};

use super::logs::TALKER;
use super::*;

/// For lines to be at a receiver that was away: the back-off is part of it.
const LATE: std::time::Duration = std::time::Duration::from_secs(90);

fn talker(extra: &[(&str, &str)]) -> Shop {
    let shop = Shop::new("web: python3 talker.py\n", extra);
    std::fs::write(shop.dir.join("talker.py"), TALKER).unwrap();
    git::commit(&shop.dir);
    shop.pushed(&["tolv", "main"]);
    shop
}

/// Lets the app say lines that nobody said before.
fn say(shop: &Shop, word: &str, count: usize) {
    shop.text("shop.localhost", &format!("/{word}?count={count}"));
}

fn add(shop: &Shop, url: &str) -> String {
    let made = shop.json(&["drains", "add", url]);
    made["id"].as_str().unwrap().to_owned()
}

fn drain(shop: &Shop, id: &str) -> serde_json::Value {
    let all = shop.json(&["drains"]);
    let items = all["items"].as_array().unwrap();
    items.iter().find(|drain| drain["id"] == id).unwrap_or_else(|| panic!("{all}")).clone()
}

fn number(drain: &serde_json::Value, key: &str) -> usize {
    usize::try_from(drain[key].as_u64().unwrap()).unwrap()
}

/// The texts of these words and numbers among messages.
fn said(messages: &[String], word: &str) -> BTreeSet<usize> {
    let number = |message: &String| {
        let (_, rest) = message.split_once(&format!("says {word} "))?;
        rest.trim_end().parse().ok()
    };
    messages.iter().filter_map(number).collect()
}

/// Takes messages off bytes as RFC 6587 says.
fn split(bytes: &[u8]) -> Vec<String> {
    let (mut messages, mut rest) = (Vec::new(), bytes);
    while let Some(place) = rest.iter().position(|&byte| byte == b' ') {
        let length: usize = std::str::from_utf8(&rest[..place]).unwrap().parse().unwrap();
        let Some(message) = rest[place + 1..].get(..length) else { break };
        messages.push(String::from_utf8(message.to_vec()).unwrap());
        rest = &rest[place + 1 + length..];
    }
    messages
}

/// Waits until everything was sent; the drain as it is then.
fn until_sent(shop: &Shop, id: &str) -> serde_json::Value {
    poll(LATE, "everything is sent", || {
        let drain = drain(shop, id);
        (number(&drain, "behind") == 0 && drain["state"] == "up").then_some(drain)
    })
}

#[test]
fn rsyslog_gets_every_line_across_an_outage() {
    let shop = talker(&[]);
    let mut rsyslog = Rsyslog::start();
    let id = add(&shop, &format!("syslog://127.0.0.1:{}", rsyslog.port()));
    say(&shop, "before", 20_000);
    poll(SOON, "lines come", || (!said(&rsyslog.messages(), "before").is_empty()).then_some(()));
    // Killed with what its machine has acknowledged and it has not read.
    rsyslog.freeze();
    let sent = number(&drain(&shop, &id), "sent");
    say(&shop, "frozen", 500);
    poll(SOON, "lines are under way", || {
        (number(&drain(&shop, &id), "sent") >= sent + 500).then_some(())
    });
    rsyslog.kill();
    say(&shop, "away", 20_000);
    poll(SOON, "the failure shows", || {
        let drain = drain(&shop, &id);
        let says = drain["error"].as_str().unwrap_or_default().contains("cannot connect");
        (drain["state"] == "failing" && says).then_some(())
    });
    poll(SOON, "the log tells", || {
        shop.tolv(&["logs", "--process", "drain"]).contains("is tried again").then_some(())
    });
    rsyslog.begin();
    say(&shop, "after", 1_000);
    for (word, count) in [("before", 20_000), ("frozen", 500), ("away", 20_000), ("after", 1_000)] {
        poll(LATE, word, || (said(&rsyslog.messages(), word).len() == count).then_some(()));
    }
    poll(SOON, "the log tells", || {
        shop.tolv(&["logs", "--process", "drain"]).contains("works again").then_some(())
    });
    // Sent is what was received, each content once.
    poll(SOON, "the counts agree", || {
        let drain = drain(&shop, &id);
        let unique: BTreeSet<_> = rsyslog.messages().into_iter().collect();
        (number(&drain, "sent") == unique.len() && number(&drain, "behind") == 0).then_some(())
    });
    let drain = drain(&shop, &id);
    assert_eq!(number(&drain, "dropped"), 0, "{drain}");
    let sample = rsyslog.messages().into_iter().find(|line| line.contains("says after 7")).unwrap();
    assert!(sample.starts_with("<14>1 20"), "{sample}");
    assert!(sample.contains("Z shop.production app web.1 - - says after 7"), "{sample}");
}

/// The lines of logplex frames that were taken, and how many requests were needless repeats.
fn frames(requests: &[Request]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut messages = Vec::new();
    for request in requests.iter().filter(|request| request.status == 200) {
        let parts = split(&request.body);
        assert_eq!(request.header("logplex-msg-count"), Some(parts.len().to_string().as_str()));
        assert_eq!(request.header("content-type"), Some("application/logplex-1"));
        if seen.insert(request.header("logplex-frame-id").unwrap().to_owned()) {
            messages.extend(parts);
        }
    }
    messages
}

#[test]
fn a_receiver_over_https_gets_every_line_once_a_frame() {
    let mut shop = talker(&[]);
    let mut receiver = Receiver::http(true);
    let url = format!(
        "https://ada:hunter2secret@127.0.0.1:{}/in?token=t0ps3cret&ca={}",
        receiver.port(),
        receiver.certificate().display()
    );
    let ran = shop.tolv(&["drains", "add", &url]);
    assert!(!ran.contains("hunter2secret") && !ran.contains("t0ps3cret"), "{ran}");
    let id = ran.split_whitespace().next().unwrap().to_owned();
    say(&shop, "first", 3_000);
    let got = |word: &str, receiver: &Receiver| said(&frames(&receiver.requests()), word).len();
    poll(SOON, "lines come", || (got("first", &receiver) == 3_000).then_some(()));
    // It answers 500: the same frames come again.
    receiver.answer("500");
    say(&shop, "sick", 1_000);
    poll(SOON, "frames are sent again", || {
        let mut requests = receiver.requests();
        requests.retain(|request| request.status == 500);
        let ids: BTreeSet<_> =
            requests.iter().map(|request| request.header("logplex-frame-id")).collect();
        (requests.len() > ids.len()).then_some(())
    });
    assert!(drain(&shop, &id)["error"].as_str().unwrap().contains("500"));
    // It is gone, then the platform is too.
    receiver.kill();
    say(&shop, "gone", 1_000);
    shop.serve.end(Signal::KILL);
    receiver.answer("200");
    shop.serve.begin();
    until_text(&shop, "shop.localhost", "ok");
    receiver.begin();
    say(&shop, "last", 10);
    for (word, count) in [("first", 3_000), ("sick", 1_000), ("gone", 1_000), ("last", 10)] {
        poll(LATE, word, || (got(word, &receiver) == count).then_some(()));
    }
    let state = until_sent(&shop, &id);
    poll(SOON, "the counts agree", || {
        let unique: BTreeSet<_> = frames(&receiver.requests()).into_iter().collect();
        (number(&drain(&shop, &id), "sent") == unique.len()).then_some(())
    });
    assert_eq!(number(&state, "dropped"), 0);
    let requests = receiver.requests();
    let request = &requests[0];
    assert_eq!(request.target, "/in?token=t0ps3cret");
    // `ada:hunter2secret`
    assert_eq!(request.header("authorization"), Some("Basic YWRhOmh1bnRlcjJzZWNyZXQ="));
    assert_eq!(request.header("logplex-drain-token"), Some(id.as_str()));
    assert!(request.header("user-agent").unwrap().starts_with("tolv/"));
    let sample = &frames(&requests)[0];
    assert!(sample.starts_with('<') && sample.contains(" shop.production "), "{sample}");
    // Nowhere is a secret to be seen.
    let seen = [
        shop.tolv(&["drains"]),
        shop.tolv(&["drains", "--json"]),
        shop.tolv(&["logs", "-n", "10000"]),
        shop.tolv(&["audit", "--json"]),
        String::from_utf8_lossy(&std::fs::read(shop.serve.state().join("db.sqlite")).unwrap())
            .into_owned(),
    ];
    for text in &seen {
        assert!(!text.contains("hunter2secret") && !text.contains("t0ps3cret"), "{text}");
    }
    assert!(seen[3].contains("drain.add"));
    // Removed, it sends no more.
    shop.tolv(&["drains", "remove", &id]);
    assert!(shop.tolv(&["drains"]).contains("No drains"));
    let before = receiver.requests().len();
    say(&shop, "unheard", 10);
    poll(SOON, "the log has it", || shop.tolv(&["logs"]).contains("says unheard 9").then_some(()));
    assert_eq!(receiver.requests().len(), before);
    let ran = shop.ran(&["drains", "remove", &id]);
    assert!(!ran.status.success() && ran.err.contains("no drain"), "{}", ran.err);
}

#[test]
fn bad_receivers_harm_themselves_alone() {
    let mut shop = talker(&[]);
    let good = Receiver::tcp(true);
    let otlp = Receiver::http(false);
    // It takes connections and reads nothing; and one that answers nothing.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = Receiver::http(false);
    silent.answer("hang");
    let strange = Receiver::tcp(true);
    let local = |port: u16| format!("127.0.0.1:{port}");
    let deaf_port = deaf.local_addr().unwrap().port();
    let ca = good.certificate().display().to_string();
    let wrong = add(&shop, &format!("syslog+tls://{}", local(strange.port())));
    let other = add(&shop, &format!("syslog+tls://{}?ca={ca}", local(strange.port())));
    for url in
        [format!("syslog://{}", local(deaf_port)), format!("http://{}/", local(silent.port()))]
    {
        add(&shop, &url);
    }
    let refused = add(&shop, "syslog://127.0.0.1:1");
    let good_id =
        add(&shop, &format!("syslog+tls://localhost:{}?form=heroku&ca={ca}", good.port()));
    let otlp_id = add(&shop, &format!("otlp+http://{}", local(otlp.port())));
    say(&shop, "many", 50_000);
    poll(LATE, "the good one has all", || {
        (said(&split(&good.bytes()), "many").len() == 50_000).then_some(())
    });
    let sample = split(&good.bytes()).into_iter().find(|m| m.contains("says many 7")).unwrap();
    assert!(sample.starts_with("<190>1 ") && sample.ends_with('\n'), "{sample}");
    assert!(sample.contains("+00:00 shop.production app web.1 - says many 7"), "{sample}");
    poll(LATE, "the other has all", || {
        let requests = otlp.requests();
        let bodies = requests
            .iter()
            .map(|request| serde_json::from_slice::<serde_json::Value>(&request.body).unwrap());
        let mut texts = Vec::new();
        for body in bodies {
            let records = &body["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
            let records = records.as_array().unwrap();
            texts.extend(records.iter().map(|record| record["body"]["stringValue"].to_string()));
        }
        let texts: Vec<_> = texts.iter().map(|text| text.trim_matches('"').to_owned()).collect();
        (said(&texts, "many").len() == 50_000).then_some(())
    });
    assert_eq!(otlp.requests()[0].target, "/v1/logs");
    for (id, wanted) in [(&wrong, "certificate"), (&other, "certificate"), (&refused, "refused")] {
        poll(SOON, "the error shows", || {
            let drain = drain(&shop, id);
            let error = drain["error"].as_str().unwrap_or_default().to_owned();
            (error.contains(wanted) && drain["state"] == "failing").then_some(())
        });
    }
    assert!(strange.bytes().is_empty(), "nothing goes to one that is not known");
    until_sent(&shop, &good_id);
    until_sent(&shop, &otlp_id);
    // Nothing of it keeps the platform from ending, and a drain ends in order where it can.
    let start = Instant::now();
    shop.serve.end(Signal::TERM);
    assert!(start.elapsed() < std::time::Duration::from_secs(8), "{:?}", start.elapsed());
    let before = split(&good.bytes());
    shop.serve.begin();
    until_text(&shop, "shop.localhost", "ok");
    say(&shop, "again", 10);
    poll(SOON, "lines come", || (said(&split(&good.bytes()), "again").len() == 10).then_some(()));
    let again = split(&good.bytes());
    assert_eq!(said(&again[before.len()..], "many").len(), 0, "the last end was in order");
}

#[test]
fn lines_that_made_room_are_counted() {
    let shop = talker(&[("TOLV_LOG_MIB", "1")]);
    let receiver = Receiver::http(false);
    receiver.answer("hang");
    let id = add(&shop, &format!("http://127.0.0.1:{}/", receiver.port()));
    for word in ["a", "b", "c", "d", "e", "f"] {
        say(&shop, word, 30_000);
    }
    receiver.answer("200");
    let state = until_sent(&shop, &id);
    let dropped = number(&state, "dropped");
    assert!(dropped > 10_000, "{state}");
    let messages = poll(SOON, "the counts agree", || {
        let messages = frames(&receiver.requests());
        let unique: BTreeSet<_> = messages.iter().collect();
        let gaps = unique
            .iter()
            .filter(|message| message.contains(" tolv drain - Error L10"))
            .filter(|message| !message.contains("drain drn_"));
        let count = gaps.clone().count();
        (number(&drain(&shop, &id), "sent") + count == unique.len()).then_some(messages)
    });
    let gap = |message: &String| -> Option<usize> {
        let (_, rest) = message.split_once("Error L10 (drain buffer overflow): ")?;
        rest.split_once(" line")?.0.parse().ok()
    };
    let unique: BTreeSet<_> = messages.iter().cloned().collect();
    let counted: usize = unique.iter().filter_map(gap).sum();
    assert_eq!(counted, dropped);
    let mut all = 0;
    for word in ["a", "b", "c", "d", "e", "f"] {
        all += said(&messages, word).len();
    }
    let web: usize =
        unique.iter().filter(|m| m.contains(" of web.1 dropped")).filter_map(gap).sum();
    assert_eq!(all + web, 180_000, "delivered and dropped are what was written");
    poll(SOON, "the log tells", || {
        shop.tolv(&["logs", "--process", "drain"])
            .contains("Error L10 (drain buffer overflow): drain drn_")
            .then_some(())
    });
}

#[test]
fn what_is_no_drain_is_said_so() {
    let shop = Shop::site("hello", &[]);
    for (url, wanted) in [
        ("logs.example.org", "begins with"),
        ("http://logs.example.org/", "https://"),
        (
            "syslog+tls://h?ca=/nonexistent/ca.pem",
            "not a regular file of at most 1 MiB with certificates",
        ),
        ("https://ada:hunter2@h?form=x", "`form`"),
    ] {
        let ran = shop.ran(&["drains", "add", url]);
        assert!(!ran.status.success() && ran.err.contains(wanted), "{url}: {}", ran.err);
        assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    }
    for _ in 0..20 {
        add(&shop, "syslog://127.0.0.1:1");
    }
    let ran = shop.ran(&["drains", "add", "syslog://127.0.0.1:1"]);
    assert!(ran.err.contains("20 drains"), "{}", ran.err);
    // From standard input, so that no list of processes shows it.
    let id = drain(&shop, shop.json(&["drains"])["items"][0]["id"].as_str().unwrap())["id"].clone();
    shop.tolv(&["drains", "remove", id.as_str().unwrap()]);
    let mut command = shop.serve.command(&shop.dir, &["drains", "add", "-"]);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"syslog://127.0.0.1:2\n").unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success() && text.contains("127.0.0.1:2"), "{text}");
    shop.tolv(&["destroy", "shop", "--confirm", "shop"]);
}

/// `tolv drains add` as an admin of the app alone.
fn added_by(shop: &Shop, token: &str, url: &str) -> Ran {
    let mut command = shop.serve.command(&shop.dir, &["drains", "add", url, "--json"]);
    run(command.env("TOLV_TOKEN", token))
}

fn app_admin(shop: &Shop) -> String {
    let args = ["tokens", "create", "--role", "admin", "--app", "shop"];
    shop.json(&args)["secret"].as_str().unwrap().to_owned()
}

#[test]
fn a_drain_of_an_app_s_admin_reads_no_file_and_reaches_nothing_of_the_machine() {
    let shop = Shop::site("hello", &[]);
    shop.pushed(&["tolv", "main"]);
    let token = app_admin(&shop);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let fifo = shop.dir.join("fifo");
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).unwrap();
    for file in ["/dev/zero".to_owned(), fifo.display().to_string()] {
        let url = format!("syslog+tls://logs.example.org/?ca={file}");
        let ran = added_by(&shop, &token, &url);
        assert!(ran.err.contains("only a platform admin"), "{url}: {}", ran.err);
        // Nor does it hold up the platform where that admin names it.
        let ran = shop.ran(&["drains", "add", &url]);
        assert!(ran.err.contains("is not a regular file"), "{url}: {}", ran.err);
    }
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("syslog://127.0.0.1:{port}"),
        format!("syslog://[::ffff:127.0.0.1]:{port}"),
        format!("syslog://0.0.0.0:{port}"),
        "syslog://169.254.169.254:80".to_owned(),
    ] {
        let ran = added_by(&shop, &token, &url);
        assert!(!ran.status.success(), "{url}: {}", ran.out);
        assert!(ran.err.contains("TOLV_HOST_SERVICES"), "{url}: {}", ran.err);
    }
    // A name is looked up at each connection.
    let urls = [format!("http://localhost:{port}/"), format!("syslog://localhost:{port}")];
    let ids = urls.map(|url| {
        let ran = added_by(&shop, &token, &url);
        assert!(ran.status.success(), "{url}: {}", ran.err);
        let made: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        made["id"].as_str().unwrap().to_owned()
    });
    shop.tolv(&["restart"]);
    for id in ids {
        poll(SOON, "the drain is refused", || {
            let drain = drain(&shop, &id);
            let says = drain["error"].as_str()?.contains("TOLV_HOST_SERVICES");
            (says && number(&drain, "sent") == 0).then_some(())
        });
    }
    let none = listener.accept().unwrap_err();
    assert_eq!(none.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_drain_of_an_app_s_admin_reaches_what_the_operator_lists() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let services = address.to_string();
    let shop = Shop::site("hello", &[("TOLV_HOST_SERVICES", &services)]);
    shop.pushed(&["tolv", "main"]);
    let token = app_admin(&shop);
    let ran = added_by(&shop, &token, &format!("syslog://localhost:{}", address.port()));
    assert!(ran.status.success(), "{}", ran.err);
    listener.set_nonblocking(true).unwrap();
    shop.tolv(&["restart"]);
    poll(SOON, "the drain connects", || listener.accept().ok().map(drop));
}

/// Says numbered lines by itself, 10,000 a second, whoever is away meanwhile.
const CHATTER: &str = r#"
import http.server, os, sys, threading, time, urllib.parse
def chat(count):
    for first in range(0, count, 200):
        lines = (b"says chat %d\n" % number for number in range(first, first + 200))
        sys.stdout.buffer.write(b"".join(lines))
        sys.stdout.flush()
        time.sleep(0.02)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        if url.path == "/chat":
            count = int(urllib.parse.parse_qs(url.query)["count"][0])
            threading.Thread(target=chat, args=(count,), daemon=True).start()
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// A receiver that says something now and then, and never finishes a handshake, is no receiver.
#[test]
fn a_receiver_that_never_finishes_its_handshake_fails() {
    use std::io::Write as _;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                // The head of a record of TLS, and then one byte of it after the other.
                let record = [&[22, 3, 3, 0x10, 0, 2, 0, 0x0f, 0xfc][..], &[0; 4096]].concat();
                for byte in record {
                    if stream.write_all(&[byte]).is_err() {
                        return;
                    }
                    std::thread::park_timeout(std::time::Duration::from_millis(100));
                }
            });
        }
    });
    let shop = talker(&[]);
    let id = add(&shop, &format!("syslog+tls://127.0.0.1:{port}"));
    say(&shop, "a", 1);
    let state = || drain(&shop, &id)["state"].as_str().unwrap().to_owned();
    poll(SOON, "the first try", || (state() == "connecting").then_some(()));
    poll(SOON, "the failure", || {
        let state = state();
        assert_ne!(state, "up");
        (state == "failing").then_some(())
    });
    let error = drain(&shop, &id)["error"].as_str().unwrap().to_owned();
    assert!(error.contains("does not finish the handshake"), "{error}");
}

#[test]
fn a_drain_sets_no_header_of_http_itself() {
    let shop = Shop::site("one", &[]);
    for header in ["host", "Content-Length", "TRANSFER-ENCODING", "proxy-authorization"] {
        let ran =
            shop.ran(&["drains", "add", &format!("https://logs.example.org/?header.{header}=x")]);
        assert!(!ran.status.success());
        assert!(ran.err.contains("belongs to HTTP itself"), "{}", ran.err);
    }
}
