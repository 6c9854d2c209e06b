//! What an app reaches of the machine and of other apps, and what it can take from them.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use tolv_testkit::OwnMachine;

use super::*;

/// An app that looks for what is not its own: it answers with what it found.
const THIEF: &str = r#"
import http.server, os, socket, threading, time

def look(host, port):
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    s.settimeout(3)
    try:
        s.connect((host, port))
        return 'connected'
    except OSError as error:
        return type(error).__name__

# Every port that a neighbour may be told, on the other protocol and before it.
taken = []
for port in range(20000, 20400):
    for host in ('::1', '127.0.0.1'):
        s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
        try:
            s.bind((host, port)); s.listen(); taken.append(s)
        except OSError:
            pass

class Report(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = [word for word in self.path.strip('/').split(',') if word]
        lines = []
        for word in wanted:
            host, port = word.rsplit('_', 1)
            lines.append(f'{word} {look(host, int(port))}')
        names = [line for line in open('/proc/net/unix') if '@tolv' in line]
        lines.append(f'names {len(names)}')
        body = '\n'.join(lines).encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Report).serve_forever()
"#;

pub(super) fn is_strict_with_networks(shop: &Shop) -> bool {
    let status = run(std::process::Command::new(env!("CARGO_BIN_EXE_tolv")).arg("status"));
    let has = status.out.lines().any(|line| line.starts_with("network   yes"));
    if !has {
        shop.serve
            .running()
            .wait_for_line(|line| line.contains("share the machine's network"), SOON);
    }
    has
}

#[test]
fn an_app_reaches_neither_the_platform_nor_its_neighbours_nor_the_machine() {
    let shop = Shop::new("web: python3 server.py\n", &[]);
    if !is_strict_with_networks(&shop) {
        return;
    }
    shop.pushed(&["tolv", "main"]);
    let thief = shop.serve.folder("thief");
    std::fs::write(thief.join("Procfile"), "web: python3 thief.py\n").unwrap();
    std::fs::write(thief.join("thief.py"), THIEF).unwrap();
    git::commit(&thief);
    shop.serve.tolv(&thief, &["create", "thief"]);
    let pushed = push_from(&shop.serve, &thief, &["tolv", "main"]);
    assert!(pushed.status.success(), "{}", pushed.err);
    let database = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port_of = |text: String| -> u16 {
        let line = text.lines().find(|line| line.starts_with("PORT=")).unwrap().to_owned();
        line["PORT=".len()..].parse().unwrap()
    };
    let victim = port_of(shop.text("shop.localhost", "/env"));
    let api: u16 = shop.serve.url().rsplit(':').next().unwrap().parse().unwrap();
    let wanted = [
        ("127.0.0.1", api),
        ("::1", api),
        ("127.0.0.1", shop.serve.http()),
        ("127.0.0.1", database.local_addr().unwrap().port()),
        ("127.0.0.1", victim),
        ("169.254.169.254", 80),
    ];
    let target: Vec<_> = wanted.iter().map(|(host, port)| format!("{host}_{port}")).collect();
    let found = shop.text("thief.localhost", &format!("/{}", target.join(",")));
    assert_eq!(found.lines().count(), wanted.len() + 1, "{found}");
    assert!(!found.contains(" connected"), "{found}");
    assert!(found.ends_with("names 0"), "{found}");
    // While the thief listens on what it can, the neighbour starts anew, and its requests are its
    // own.
    shop.tolv(&["restart"]);
    for _ in 0..20 {
        assert!(shop.text("shop.localhost", "/").starts_with("web.1 "), "another app answered");
    }
    let said = shop.tolv(&["run", "sh", "-c", "cat /proc/net/dev | wc -l; cat /etc/resolv.conf"]);
    assert!(said.starts_with("4\n"), "lo and eth0, and nothing of the machine's: {said}");
}

#[test]
fn a_service_of_the_machine_is_reached_where_config_and_operator_say_so() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let allowed = listener.local_addr().unwrap();
    let other = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let services = allowed.to_string();
    let shop = Shop::new("web: python3 server.py\n", &[("TOLV_HOST_SERVICES", services.as_str())]);
    if !is_strict_with_networks(&shop) {
        return;
    }
    shop.pushed(&["tolv", "main"]);
    let look = |address: SocketAddr| {
        let script = format!(
            "import socket; socket.create_connection(('{}', {}), 5)",
            address.ip(),
            address.port()
        );
        shop.ran(&["run", "python3", "-c", &script])
    };
    // Allowed and not named, named and not allowed.
    assert!(!look(allowed).status.success());
    shop.tolv(&["config", "set", &format!("OTHER_URL=redis://{other}/0")]);
    assert!(!look(other).status.success());
    shop.serve.running().wait_for_line(
        |line| line.contains(&format!("OTHER_URL names {other} on this machine")),
        SOON,
    );
    shop.tolv(&["config", "set", &format!("REDIS_URL=redis://user:secret@{allowed}/0")]);
    let ran = look(allowed);
    assert!(ran.status.success(), "{}{}", ran.out, ran.err);
    listener.set_nonblocking(true).unwrap();
    poll(SOON, "the connection of the app", || listener.accept().ok());
}

/// While the packet rules are lost and cannot be loaded, apps are cut off from every network; their
/// requests, and their answers, go by the loopback of their networks.
#[test]
fn requests_are_answered_while_the_packet_rules_cannot_be_loaded() {
    let Some(machine) = OwnMachine::enter() else { return };
    let shop = Shop::new("web: python3 server.py\n", &[]);
    assert!(is_strict_with_networks(&shop));
    shop.pushed(&["tolv", "main"]);
    machine.wait_for_ends(1, true);
    let platform = || shop.ran(&["status", "--platform"]);
    assert!(platform().out.contains("; the packet rules are loaded"), "{}", platform().out);

    machine.break_nft("exit 1");
    machine.nft(&["flush", "ruleset"]);
    let mut asked = 0;
    poll(SOON, "the app to be cut off", || {
        assert!(shop.text("shop.localhost", "/").starts_with("web.1 "));
        asked += 1;
        machine.ends().iter().all(|(_, is_up)| !is_up).then_some(())
    });
    for _ in 0..50 {
        assert!(shop.text("shop.localhost", "/").starts_with("web.1 "));
    }
    let told = platform();
    let line =
        "the packet rules are not loaded: apps are cut off from every network until they are";
    assert!(told.out.contains(line) && !told.status.success(), "{}", told.out);
    shop.serve.running().wait_for_line(
        |line| line.contains("the rules of apps' networks are lost") && line.contains("cut off"),
        SOON,
    );

    machine.mend_nft();
    poll(SOON, "the app's network to be open", || {
        assert!(shop.text("shop.localhost", "/").starts_with("web.1 "));
        asked += 1;
        machine.ends().iter().all(|(_, is_up)| *is_up).then_some(())
    });
    println!("{asked} requests around it");
    shop.serve.running().wait_for_line(|line| line.contains("and are back"), SOON);
    assert!(platform().out.contains("; the packet rules are loaded"), "{}", platform().out);
    let lines = shop.serve.running().lines();
    let lost = lines.iter().filter(|it| it.text.contains("rules of apps' networks are lost"));
    assert_eq!(lost.count(), 1, "told once");
}

/// A platform does so at once; the rest is for a machine with much to do.
const AT_ONCE: Duration = Duration::from_secs(4);
/// For nft to be given up.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// While nft hangs, whatever way it does, only what needs packet rules waits, and not for long.
#[test]
fn nothing_but_the_packet_rules_waits_for_an_nft_that_hangs() {
    let Some(machine) = OwnMachine::enter() else { return };
    let shop = Shop::new("web: python3 server.py\n", &[]);
    assert!(is_strict_with_networks(&shop));
    shop.pushed(&["tolv", "main"]);
    machine.wait_for_ends(1, true);
    let timed = |what: &str, limit: Duration, act: &dyn Fn()| {
        let began = Instant::now();
        act();
        println!("{what}: {:?}", began.elapsed());
        assert!(began.elapsed() < limit, "{what}: {:?}", began.elapsed());
    };
    // It hangs, it hangs with nothing open, it leaves something that has its output open.
    let ways = ["exec sleep 1000", "exec sleep 1000 <&- >&- 2>&-", "sleep 1000 & wait"];
    for hangs in ways {
        machine.break_nft(hangs);
        machine.nft(&["flush", "ruleset"]);
        poll(SOON, "the app to be cut off", || {
            machine.ends().iter().all(|(_, is_up)| !is_up).then_some(())
        });
        timed("git ls-remote", AT_ONCE, &|| {
            let mut ls = std::process::Command::new("git");
            ls.args(["ls-remote", "tolv"]).current_dir(&shop.dir);
            shop.serve.user(&mut ls);
            let ls = ls.env("TOLV_TOKEN", shop.serve.token()).env("TOLV_SERVER", shop.serve.url());
            let ran = run(ls);
            assert!(ran.status.success() && ran.out.contains("refs/"), "{}{}", ran.out, ran.err);
        });
        timed("status --platform", AT_ONCE, &|| {
            let told = shop.ran(&["status", "--platform"]);
            assert!(told.out.contains("the packet rules are not loaded"), "{}", told.out);
            let spawner = told.out.lines().find(|line| line.contains("spawner")).unwrap();
            assert!(spawner.contains("ok"), "{spawner}");
        });
        timed("a request", AT_ONCE, &|| {
            assert!(shop.text("shop.localhost", "/").starts_with("web.1 "));
        });
        timed("a one-off", GIVEN_UP, &|| {
            let ran = shop.ran(&["run", "true"]);
            let said = format!("{}{}", ran.out, ran.err);
            assert!(!ran.status.success() && said.contains("packet rules"), "{said}");
            assert!(said.contains("nft did not end within 5 s and was killed"), "{said}");
        });
        machine.mend_nft();
        machine.wait_for_ends(1, true);
        assert!(shop.ran(&["run", "true"]).status.success());
    }
    shop.serve.running().wait_for_line(
        |line| {
            line.contains("the rules of apps' networks are lost")
                && line.contains("nft did not end within 5 s and was killed")
        },
        SOON,
    );
    // One that says no end of things.
    machine.break_nft("exec cat /dev/zero >&2");
    machine.nft(&["flush", "ruleset"]);
    shop.serve
        .running()
        .wait_for_line(|line| line.contains("nft printed more than 65536 bytes"), SOON);
    machine.mend_nft();
    machine.wait_for_ends(1, true);
}

/// Late is not lost: a launch waits for rules that are on their way.
#[test]
fn a_launch_waits_for_rules_that_are_slow_to_load() {
    let Some(machine) = OwnMachine::enter() else { return };
    let shop = Shop::new("web: python3 server.py\n", &[]);
    assert!(is_strict_with_networks(&shop));
    shop.pushed(&["tolv", "main"]);
    machine.slow_nft("1");
    for _ in 0..3 {
        machine.nft(&["flush", "ruleset"]);
        let ran = shop.ran(&["run", "true"]);
        assert!(ran.status.success(), "{}{}", ran.out, ran.err);
        machine.wait_for_ends(1, true);
    }
}

#[test]
fn a_status_of_the_machine_is_told_soon_where_nft_hangs() {
    let Some(machine) = OwnMachine::enter() else { return };
    let status = || {
        let began = Instant::now();
        let ran = run(std::process::Command::new(env!("CARGO_BIN_EXE_tolv")).arg("status"));
        println!("told after {:?}", began.elapsed());
        (ran, began.elapsed())
    };
    for hangs in ["exec sleep 1000", "exec sleep 1000 <&- >&- 2>&-", "sleep 1000 & wait"] {
        machine.break_nft(hangs);
        let (ran, took) = status();
        assert!(took < GIVEN_UP, "{took:?}");
        let wanted = "network   no   processes share the machine's: nft did not end within 5 s and \
                      was killed\n";
        assert!(ran.out.contains(wanted), "{}", ran.out);
        machine.mend_nft();
    }
    machine.break_nft("exec cat /dev/zero >&2");
    let (ran, took) = status();
    assert!(took < GIVEN_UP, "{took:?}");
    assert!(ran.out.contains("nft printed more than 65536 bytes"), "{}", ran.out);
}
