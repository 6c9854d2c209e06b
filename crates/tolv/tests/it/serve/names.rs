//! The machine's resolver changes while an app runs, whose names resolve on.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use tolv_testkit::OwnMachine;

use super::*;

/// A name server that answers each question for an address with the one that it is given, by UDP and
/// TCP; one that is given `refuse` refuses, and `silent` says nothing.
const NAME_SERVER: &str = r#"
import socket, struct, sys, threading

def answer(question):
    if sys.argv[2] == 'refuse':
        return question[:2] + b'\x81\x85' + question[4:]
    end = question.index(b'\0', 12) + 5
    is_v4 = question[end - 4:end - 2] == b'\0\1'
    head = question[:2] + b'\x81\x80' + struct.pack('>4H', 1, int(is_v4), 0, 0)
    record = b'\xc0\x0c' + struct.pack('>HHIH', 1, 1, 0, 4) + socket.inet_aton(sys.argv[2])
    return head + question[12:end] + (record if is_v4 else b'')

def serve_tcp():
    while True:
        c, _ = tcp.accept()
        size, = struct.unpack('>H', c.recv(2))
        said = answer(c.recv(size))
        c.sendall(struct.pack('>H', len(said)) + said)
        c.close()

tcp = socket.create_server((sys.argv[1], 53))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((sys.argv[1], 53))
threading.Thread(target=serve_tcp, daemon=True).start()
print('ready', flush=True)
while True:
    question, client = udp.recvfrom(4096)
    if sys.argv[2] != 'silent':
        udp.sendto(answer(question), client)
"#;

/// An app that resolves the name of the path, a hundred times, and says the address and how many
/// microseconds each took. Before it, `tcp/` asks by TCP; `flood` is a thousand questions at once.
const RESOLVER: &str = r#"
import http.server, os, socket, struct, time

ASKED = b'\1\0\0\1\0\0\0\0\0\0\1x\0\0\1\0\1'

def by_tcp(name):
    labels = b''.join(bytes([len(l)]) + l.encode() for l in name.split('.'))
    question = b'\1\2\1\0\0\1\0\0\0\0\0\0' + labels + b'\0\0\1\0\1'
    server = [l.split()[1] for l in open('/etc/resolv.conf') if l.startswith('nameserver')][0]
    s = socket.create_connection((server, 53), 10)
    s.sendall(struct.pack('>H', len(question)) + question)
    s.settimeout(10)
    s.recv(2)
    return socket.inet_ntoa(s.recv(4096)[-4:])

class Resolve(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.strip('/')
        began = time.monotonic()
        try:
            if name == 'flood':
                s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                for n in range(1000): s.sendto(struct.pack('>H', n) + ASKED, ('127.0.0.1', 53))
                said = 'asked'
            elif name.startswith('tcp/'):
                said = by_tcp(name[4:])
            else:
                said = socket.gethostbyname(name)
                if name.startswith('many'):
                    for n in range(100): socket.gethostbyname(f'n{n}.{name}')
        except OSError as error:
            said = f'{type(error).__name__} {error}'
        took = int((time.monotonic() - began) * 1e6)
        body = f'{said} {took}'.encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Resolve).serve_forever()
"#;

struct NameServer(Child);

impl NameServer {
    fn start(mut python: Command, address: &str, says: &str) -> Self {
        let python = python.args(["-c", NAME_SERVER, address, says]).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        Self(child)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Puts another file in the place of the machine's, as DHCP clients do.
fn move_there(text: &str) {
    std::fs::write("/etc/resolv.conf.new", text).unwrap();
    std::fs::rename("/etc/resolv.conf.new", "/etc/resolv.conf").unwrap();
}

#[test]
fn names_resolve_on_when_the_machines_resolver_changes() {
    let Some(machine) = OwnMachine::enter() else { return };
    machine.own_etc();
    let python = || Command::new("python3");
    let first = NameServer::start(python(), "127.0.0.53", "192.0.2.53");
    let _second = NameServer::start(python(), "127.0.0.54", "192.0.2.54");
    let _refuses = NameServer::start(python(), "127.0.0.55", "refuse");
    let _silent = NameServer::start(python(), "127.0.0.56", "silent");
    let [direct, _] = OwnMachine::INTERNET;
    let _direct = NameServer::start(machine.on_the_internet("python3"), direct, "192.0.2.2");
    move_there(&format!("nameserver {direct}\nsearch lan\noptions ndots:1\n"));
    let shop = Shop::new("web: python3 names.py\n", &[]);
    shop.change("names.py", RESOLVER);
    shop.pushed(&["tolv", "main"]);
    let asked = |name: &str| {
        let said = shop.text("shop.localhost", &format!("/{name}"));
        let (address, took) = said.rsplit_once(' ').unwrap();
        println!("{name}: {address} after {took} us");
        (address.to_owned(), took.parse::<u64>().unwrap())
    };
    let resolves = |name: &str| asked(name).0;
    assert_eq!(resolves("many.example"), "192.0.2.2");

    // One on the machine itself, and another one; the first is gone.
    move_there("nameserver 127.0.0.53\n");
    assert_eq!(resolves("many.zero.example"), "192.0.2.53");
    move_there("nameserver 127.0.0.54\n");
    drop(first);
    assert_eq!(resolves("one.example"), "192.0.2.54");
    assert_eq!(resolves("tcp/one.example"), "192.0.2.54");

    // One that packets get to, and back; written in place.
    move_there(&format!("nameserver {direct}\n"));
    assert_eq!(resolves("two.example"), "192.0.2.2");
    assert_eq!(resolves("tcp/two.example"), "192.0.2.2");
    std::fs::write("/etc/resolv.conf", "nameserver 127.0.0.54\n").unwrap();
    assert_eq!(resolves("three.example"), "192.0.2.54");

    // The first of several does not listen, or refuses.
    move_there(&format!("nameserver 127.0.0.53\nnameserver 127.0.0.55\nnameserver {direct}\n"));
    assert_eq!(resolves("four.example"), "192.0.2.2");
    assert_eq!(resolves("tcp/four.example"), "192.0.2.2");

    // It is silent, and has a thousand questions already.
    move_there("nameserver 127.0.0.56\n");
    assert_eq!(resolves("flood"), "asked");
    move_there(&format!("nameserver 127.0.0.56\nnameserver {direct}\n"));
    let (said, took) = asked("silent.example");
    assert_eq!(said, "192.0.2.2");
    // A question that found no room is asked again by the resolver itself.
    assert!((1_900_000..20_000_000).contains(&took), "{took}");

    // Nobody answers: a failure, and at once. Then there is no file, a file that is half there, and
    // something that is no file: the last known one is asked.
    move_there("nameserver 127.0.0.53\n");
    let (said, took) = asked("five.example");
    assert!(said.contains("Temporary failure") && took < 20_000_000, "{said} {took}");
    move_there("nameserver 127.0.0.54\n");
    assert_eq!(resolves("six.example"), "192.0.2.54");
    std::fs::write("/etc/resolv.conf", "search lan\nnameserv").unwrap();
    assert_eq!(resolves("seven.example"), "192.0.2.54");
    std::fs::remove_file("/etc/resolv.conf").unwrap();
    assert_eq!(resolves("eight.example"), "192.0.2.54");
    assert!(run(Command::new("mkfifo").arg("/etc/resolv.conf")).status.success());
    assert_eq!(resolves("nine.example"), "192.0.2.54");

    // What starts now asks the same way.
    let process = shop.tolv(&["run", "cat", "/etc/resolv.conf"]);
    assert!(process.starts_with("nameserver 127.0.0.1\n"), "{process}");
}
