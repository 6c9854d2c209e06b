//! Nobody stands in a queue behind the visitors of somebody else.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::logs::{answer, ask};
use super::metrics::scraped;
use super::*;

/// Longer than anything takes that waits for nobody.
const PROMPT: Duration = Duration::from_secs(5);

/// So that a test can be a crowd itself.
fn raise_descriptors() {
    let own = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: own.maximum, ..own }).unwrap();
}

/// A visitor whose request is sent.
fn visit(shop: &Shop, host: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", shop.serve.http())).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// The code of the router's page that a visitor gets.
fn code(mut visitor: TcpStream) -> String {
    let mut answer = String::new();
    visitor.read_to_string(&mut answer).unwrap();
    let code = answer.split_once("<small>Code ").unwrap_or_else(|| panic!("{answer}")).1;
    code[..3].to_owned()
}

#[test]
fn a_first_release_that_fails_holds_no_visitors_of_others_and_none_for_long() {
    raise_descriptors();
    let shop = Shop::new("web: sh start.sh\n", &[]);
    shop.change("start.sh", "sleep 5; test -z \"$FAILS\" || exit 1; exec python3 server.py\n");
    shop.tolv(&["config", "set", "FAILS=1"]);
    shop.tolv(&["create", "other", "--remote", "other"]);
    let push = push_command(&shop.serve, &shop.dir, &["tolv", "main"]);
    let mut push = tolv_testkit::Tolv::start(&mut { push });
    poll(SOON, "its process", || {
        shop.tolv(&["logs", "-p", "web"]).contains("Starting process").then_some(())
    });
    let host = |n: usize| {
        format!("{}:{n}", if n.is_multiple_of(2) { "shop.localhost" } else { "SHOP.LocalHost." })
    };
    let visitors: Vec<_> = (0..1100).map(|n| visit(&shop, &host(n))).collect();
    // Those of another deploy, which boots too, are served meanwhile.
    let other = push_command(&shop.serve, &shop.dir, &["other", "main"]);
    let mut other = tolv_testkit::Tolv::start(&mut { other });
    poll(SOON, "the other deploy to answer", || {
        let response = shop.get("other.localhost", "/").unwrap();
        assert!(!response.text().contains("H20"), "{}", response.text());
        (response.status == 200).then_some(())
    });
    assert!(other.wait(SOON).success());
    assert!(!push.wait(SOON).success());
    // The release failed: nobody waits for it any more.
    let began = Instant::now();
    let mut codes = std::collections::BTreeMap::<String, usize>::new();
    for visitor in visitors {
        *codes.entry(code(visitor)).or_default() += 1;
    }
    assert_eq!(code(visit(&shop, "shop.localhost")), "H10");
    assert!(began.elapsed() < PROMPT, "{:?} {codes:?}", began.elapsed());
    assert!(codes["H20"] >= 1100 - 250 && codes["H10"] >= 8, "{codes:?}");
    assert_eq!(codes["H20"] + codes["H10"], 1100, "{codes:?}");
}

#[test]
fn a_flood_of_lines_has_threads_of_its_own_and_comes_whole() {
    let shop = Shop::new("web: exec python3 server.py\n", &[]);
    let tasks = format!("/proc/{}/task", shop.serve.running().pid());
    let entries = std::fs::read_dir(&tasks).unwrap().map(|entry| entry.unwrap().path());
    let names = entries.filter_map(|path| std::fs::read_to_string(path.join("comm")).ok());
    let names: Vec<_> = names.map(|name| name.trim().to_owned()).collect();
    for wanted in ["router", "lines", "output"] {
        assert!(names.iter().any(|name| name == wanted), "{wanted}: {names:?}");
    }
    // All of a flood comes, by few large reads.
    shop.change("flood.py", "for n in range(200000): print('line', n)\n");
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["run", "--detach", "python3", "flood.py"]);
    poll(SOON, "the last line", || {
        shop.tolv(&["logs", "-n", "5"]).contains("line 199999").then_some(())
    });
}

/// Runs the program with 1,024 descriptors and a router that listens everywhere.
fn few_descriptors(home: &tolv_testkit::Home) -> PathBuf {
    let path = home.path().join("tolv");
    let script = format!(
        "#!/bin/sh\nulimit -n 1024\nexport TOLV_HTTP=\"0.0.0.0:${{TOLV_HTTP##*:}}\"\nexec {} \"$@\"\n",
        env!("CARGO_BIN_EXE_tolv")
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// An address of this machine that is not the loopback.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent.
    socket.connect("198.51.100.1:9").expect("this machine has a network");
    socket.local_addr().unwrap().ip()
}

/// How long `what` takes, which waits for nobody.
fn promptly(what: &str, does: impl FnOnce()) {
    let began = Instant::now();
    does();
    assert!(began.elapsed() < PROMPT, "{what}: {:?}", began.elapsed());
}

#[test]
fn silent_connections_hold_up_neither_visitors_nor_the_platform() {
    raise_descriptors();
    let home = tolv_testkit::Home::new();
    let serve = Serve::start(few_descriptors(&home).to_str().unwrap(), &[]);
    let shop = Shop::on(serve, "web: python3 server.py\n");
    shop.pushed(&["tolv", "main"]);
    let (router, address) = (shop.serve.http(), own_address());
    let connections = scraped(&shop)["tolv_router_connections_max"];
    assert_eq!(connections, 204.0);
    let refused = "tolv_router_connections_refused_total{bound=\"peer\"}";

    // One address: it has its part, and the rest is told.
    let connect = || TcpStream::connect((address, router)).unwrap();
    let mut silent: Vec<_> = (0..120).map(|_| connect()).collect();
    promptly("a visitor from elsewhere", || drop(shop.text("shop.localhost", "/")));
    let samples = scraped(&shop);
    assert!(samples["tolv_router_connections"] <= 52.0, "{samples:#?}");
    assert!(samples[refused] + samples["tolv_router_connections_evicted_total"] >= 60.0);
    let why = "at=error code=H11 desc=\"Backlog too deep: too many connections from this address\"";
    shop.serve.running().wait_for_line(|line| line.contains(why), SOON);
    promptly("a visitor from there", || {
        poll(SOON, "the oldest to make room", || {
            let response = http::get((address, router).into(), "shop.localhost", "/").ok()?;
            (response.status == 200).then_some(())
        });
    });

    // This machine's own connections, where a proxy may be, to the router and to the API.
    silent.extend((0..1000).map(|_| TcpStream::connect(("127.0.0.1", router)).unwrap()));
    promptly("a visitor", || drop(shop.text("shop.localhost", "/")));
    promptly("a command", || drop(shop.tolv(&["ps"])));
    let api: SocketAddr = shop.serve.url().strip_prefix("http://").unwrap().parse().unwrap();
    silent.extend((0..1000).map(|_| TcpStream::connect(api).unwrap()));
    promptly("a visitor", || drop(shop.text("shop.localhost", "/")));
    promptly("a command", || drop(shop.tolv(&["ps"])));
    shop.change("server.py", &format!("{SERVER}# again\n"));
    shop.pushed(&["tolv", "main"]);
    assert!(scraped(&shop)["tolv_router_connections"] <= connections);
    drop(silent);
}

#[test]
fn one_token_follows_so_much_and_leaves_the_connections_to_others() {
    let home = tolv_testkit::Home::new();
    let serve = Serve::start(few_descriptors(&home).to_str().unwrap(), &[]);
    let shop = Shop::on(serve, "web: python3 server.py\n");
    // Two of one name: they are not one.
    let token = || {
        let made = shop.json(&["tokens", "create", "--name", "viewer", "--role", "view"]);
        made["secret"].as_str().unwrap().to_owned()
    };
    let (viewer, other) = (token(), token());
    let path = "/v1/apps/shop/deploys/production/logs?follow=true";
    // The first bytes of an answer that does not end.
    let status = |mut stream: TcpStream| {
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        (String::from_utf8_lossy(&head[9..]).into_owned(), stream)
    };
    // Of 256 connections: 16 for what lasts.
    let followed: Vec<_> = (0..16).map(|_| status(ask(&shop, &viewer, path))).collect();
    assert!(followed.iter().all(|(code, _)| code == "200"), "{followed:?}");
    let refused: Vec<_> = (0..250).map(|_| answer(ask(&shop, &viewer, path))).collect();
    for response in &refused {
        assert_eq!(response.status, 429, "{}", response.text());
        assert_eq!(response.header("retry-after"), Some("2"));
        let problem: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(problem["code"], "too-many-requests", "{problem}");
        assert!(problem["detail"].as_str().unwrap().starts_with("16 requests of this token"));
    }
    // What does not last is answered, and so are others.
    assert_eq!(answer(ask(&shop, &viewer, "/v1/whoami")).status, 200);
    let (code, others) = status(ask(&shop, &other, path));
    assert_eq!(code, "200");
    promptly("a command", || drop(shop.tolv(&["ps"])));
    drop((followed, others));
    poll(SOON, "what ended to be counted no more", || {
        (status(ask(&shop, &viewer, path)).0 == "200").then_some(())
    });
}
