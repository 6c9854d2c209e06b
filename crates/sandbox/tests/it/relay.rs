//! What an app and the machine do to a relay: kills, stops, floods.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tolv_testkit::poll;

use crate::network::{background_in, networked, pid_of, with};

const WAIT: Duration = Duration::from_secs(20);
/// Connections of one app at once.
const FLOOD: usize = 10_000;

/// A service of the machine that greets, and keeps every connection, and counts them.
struct Service {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<TcpStream>>>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let keeps = Arc::clone(&taken);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.write_all(b"here").ok();
                keeps.lock().unwrap().push(stream);
            }
        });
        Self { address, taken }
    }

    fn taken(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    fn has_answered_since(&self, before: usize) {
        poll(WAIT, "an answer of the service", || (self.taken() > before + 1).then_some(()));
    }
}

/// An app that asks its service again and again, and says at a second one how long the slowest
/// answer took, in milliseconds.
fn asks(service: SocketAddr, tell: SocketAddr) -> String {
    format!(
        "import socket, time\n\
         print('up', flush=True); print('127.0.0.1', flush=True)\n\
         while True:\n\
         \x20 began = time.monotonic()\n\
         \x20 try:\n\
         \x20  s = socket.create_connection(('127.0.0.1', {}), 30); s.settimeout(30)\n\
         \x20  said = s.recv(9); s.close()\n\
         \x20 except OSError: said = b''\n\
         \x20 took = int((time.monotonic() - began) * 1000) if said else 99999\n\
         \x20 t = socket.create_connection(('127.0.0.1', {}), 30)\n\
         \x20 t.sendall(b'%d' % took); t.close()\n\
         \x20 time.sleep(0.02)\n",
        service.port(),
        tell.port()
    )
}

/// The relays of a spawner.
fn relays(parent: u32) -> Vec<i32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let is_relay = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("Uid:\t65534"))
    };
    let children = children.unwrap();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).filter(is_relay).collect()
}

fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn a_relay_is_there_again_however_often_it_is_killed_and_goes_on_when_it_is_stopped() {
    let Some(spawner) = networked() else { return };
    let (service, tell) = (Service::start(), TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let told = tell.local_addr().unwrap();
    thread::spawn(move || tell.incoming().for_each(drop));
    let parent = pid_of(&spawner);
    let spec = with(&[service.address, told]);
    let (_guard, _) = background_in(&spawner, spec, &asks(service.address, told));
    let mut last = 0;
    for _ in 0..6 {
        last = poll(WAIT, "another relay", || relays(parent).into_iter().find(|it| *it != last));
        send(last, Signal::KILL);
    }
    poll(WAIT, "another relay", || relays(parent).into_iter().find(|it| *it != last));
    service.has_answered_since(service.taken());
    for _ in 0..3 {
        let relay = poll(WAIT, "the relay", || relays(parent).pop());
        send(relay, Signal::STOP);
        service.has_answered_since(service.taken());
    }
}

#[test]
fn a_flood_of_one_apps_connections_is_bounded_and_holds_nobody_else_up() {
    let Some(spawner) = networked() else { return };
    let (flooded, service) = (Service::start(), Service::start());
    let tell = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let told = tell.local_addr().unwrap();
    let parent = pid_of(&spawner);
    let script = format!(
        "import os, resource, socket, time\n\
         hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n\
         resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))\n\
         held = []\n\
         for n in range({FLOOD}):\n\
         \x20 try: s = socket.socket()\n\
         \x20 except OSError:\n\
         \x20  if os.fork() == 0: time.sleep(1000)\n\
         \x20  held = []; s = socket.socket()\n\
         \x20 s.setblocking(False)\n\
         \x20 try: s.connect(('127.0.0.1', {}))\n\
         \x20 except BlockingIOError: pass\n\
         \x20 held.append(s)\n\
         print('flooding', flush=True); print('127.0.0.1', flush=True)\n\
         time.sleep(1000)\n",
        flooded.address.port()
    );
    let (flood, _) = background_in(&spawner, with(&[flooded.address]), &script);
    let relay = poll(WAIT, "a relay", || relays(parent).pop());
    poll(WAIT, "the flood", || (flooded.taken() >= 300).then_some(()));
    let (_guard, _) =
        background_in(&spawner, with(&[service.address, told]), &asks(service.address, told));
    let mut slowest = 0;
    for stream in tell.incoming().take(50) {
        let mut said = String::new();
        stream.unwrap().read_to_string(&mut said).unwrap();
        slowest = slowest.max(said.parse::<u64>().unwrap());
    }
    let descriptors = std::fs::read_dir(format!("/proc/{relay}/fd")).unwrap().count();
    let status = std::fs::read_to_string(format!("/proc/{relay}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap().trim();
    let taken = flooded.taken();
    println!("slowest {slowest} ms; {taken} taken, {descriptors} descriptors, {memory}");
    assert!(slowest < 1000, "{slowest} ms");
    assert!(taken <= 513 && descriptors < 1200, "{taken} connections, {descriptors} descriptors");
    assert!(memory.trim_end_matches(" kB").parse::<u64>().unwrap() < 64 << 10, "{memory}");
    let began = Instant::now();
    drop(flood);
    assert!(began.elapsed() < WAIT);
}
