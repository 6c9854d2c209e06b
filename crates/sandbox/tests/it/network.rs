//! What a process in a network of its own reaches, and who reaches it.
//!
//! The internet is a namespace of the test's own behind the machine, with a public address.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::Duration;

use tolv_sandbox::{Level, Machine, Network, NetworkChoice, NetworkNamespace, Spawner, Spec};
use tolv_testkit::{OwnMachine, poll};

/// For what comes at once on a machine that is not busy.
const WAIT: Duration = Duration::from_secs(20);

use crate::{output, run, shell, spawner};

/// A spawner whose strict processes have networks of their own; nothing where this machine has none.
pub(crate) fn networked() -> Option<Spawner> {
    let spawner = spawner();
    let machine = Machine::probe(&spawner, NetworkChoice::Auto).unwrap();
    println!("{}", machine.describe().join("\n"));
    let can =
        rustix::process::geteuid().is_root() && std::path::Path::new("/usr/sbin/nft").exists();
    assert!(!can || machine.network.is_none(), "{:?}", machine.network);
    machine.network.is_none().then_some(spawner)
}

fn strict() -> Spec {
    Spec::new(Level::Strict, "network")
}

pub(crate) fn with(services: &[SocketAddr]) -> Spec {
    Spec { network: Network::Own { services: services.to_vec() }, ..strict() }
}

/// Says `connected` or the error's name, for each address.
fn connects(spawner: &Spawner, spec: Spec, addresses: &[SocketAddr]) -> Vec<String> {
    let mut script = String::from(
        "import socket, errno\n\
         def look(host, port):\n\
         \x20 family = socket.AF_INET6 if ':' in host else socket.AF_INET\n\
         \x20 s = socket.socket(family, socket.SOCK_STREAM)\n\
         \x20 s.settimeout(3)\n\
         \x20 try:\n\
         \x20  s.connect((host, port)); print('connected')\n\
         \x20 except OSError as e:\n\
         \x20  print(errno.errorcode.get(e.errno, type(e).__name__))\n",
    );
    let looks = addresses.iter().map(|at| format!("look('{}', {})\n", at.ip(), at.port()));
    script.extend(looks);
    let mut exec = shell("");
    exec.argv = ["/usr/bin/python3", "-c", &script].map(|word| word.as_bytes().to_vec()).to_vec();
    let (status, said) = run(spawner, spec, exec).unwrap();
    assert!(status.success(), "{said}");
    said.lines().map(str::to_owned).collect()
}

/// Addresses of this machine, as a stranger would try them.
fn own_addresses() -> Vec<IpAddr> {
    let listed = Command::new("ip").args(["-o", "addr"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let address = |line: &str| -> Option<IpAddr> {
        line.split_whitespace().nth(3)?.split('/').next()?.parse().ok()
    };
    let is_link_local =
        |address: &IpAddr| matches!(address, IpAddr::V6(six) if six.is_unicast_link_local());
    listed.lines().filter_map(address).filter(|address| !is_link_local(address)).collect()
}

#[test]
fn nothing_of_the_machine_answers() {
    let Some(spawner) = networked() else { return };
    let v4 = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let v6 = TcpListener::bind(("::", 0)).unwrap();
    let listening: Vec<_> = own_addresses()
        .into_iter()
        .map(|address| {
            let listener = if address.is_ipv4() { &v4 } else { &v6 };
            SocketAddr::new(address, listener.local_addr().unwrap().port())
        })
        .collect();
    assert!(listening.len() >= 2, "{listening:?}");
    let machine = Spec { network: Network::Machine, ..strict() };
    // The listeners are there: in the machine's network they answer.
    assert!(connects(&spawner, machine, &listening).iter().all(|said| said == "connected"));
    for (address, said) in listening.iter().zip(connects(&spawner, strict(), &listening)) {
        assert_ne!(said, "connected", "{address}");
        assert_ne!(said, "TimeoutError", "{address} is refused, and at once");
    }
    // Metadata of clouds, the link, and broadcasts.
    for address in
        ["169.254.169.254:80", "[fe80::1]:80", "[fd00:ec2::254]:80", "100.100.100.200:80"]
    {
        let said = connects(&spawner, strict(), &[address.parse().unwrap()]);
        assert!(!["connected", "TimeoutError"].contains(&said[0].as_str()), "{address}: {said:?}");
    }
}

#[test]
fn neighbours_share_neither_ports_nor_names_and_do_not_reach_each_other() {
    let Some(spawner) = networked() else { return };
    // Both bind the same port, on every address, and an abstract name.
    let script = "import socket, time\n\
        s = socket.socket(); s.bind(('0.0.0.0', 28080)); s.listen()\n\
        u = socket.socket(socket.AF_UNIX); u.bind('\\0tolv-port-28080'); u.listen()\n\
        print(open('/proc/net/fib_trie').read().count('198.1'), flush=True)\n\
        a = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); a.connect(('192.0.32.1', 9))\n\
        print(a.getsockname()[0], flush=True)\n\
        time.sleep(60)\n";
    let (cancel_one, one) = background(&spawner, script);
    let (cancel_two, two) = background(&spawner, script);
    assert_ne!(one, two);
    for address in [one, two] {
        let said = connects(&spawner, strict(), &[SocketAddr::new(address, 28080)]);
        assert!(!["connected", "TimeoutError"].contains(&said[0].as_str()), "{said:?}");
        // A local user of the machine gets nothing either.
        let direct = std::net::TcpStream::connect_timeout(
            &SocketAddr::new(address, 28080),
            Duration::from_millis(300),
        );
        assert!(direct.is_err(), "{address} answered the machine");
    }
    // `/proc/net/unix` and the sockets of others are out of sight.
    assert_eq!(output(&spawner, strict(), "grep -c tolv-port /proc/net/unix || true"), "0");
    drop((cancel_one, cancel_two));
}

/// Runs a script in a sandbox of its own until the guard is dropped; gives the address it says.
fn background(spawner: &Spawner, script: &str) -> (Guard, IpAddr) {
    background_in(spawner, strict(), script)
}

pub(crate) fn background_in(spawner: &Spawner, spec: Spec, script: &str) -> (Guard, IpAddr) {
    let cancel = tolv_sandbox::Cancel::new().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let (spawner, told, script) = (spawner.clone(), cancel.clone(), script.to_owned());
    let task = thread::spawn(move || {
        let mut exec = shell("");
        exec.argv =
            ["/usr/bin/python3", "-c", &script].map(|word| word.as_bytes().to_vec()).to_vec();
        let job = tolv_sandbox::Job { spec, exec, time_limit: None };
        let mut said = Vec::new();
        let mut take = |_, bytes: &[u8]| {
            said.extend_from_slice(bytes);
            let text = String::from_utf8_lossy(&said).into_owned();
            if let Some(line) = text.lines().nth(1).filter(|_| text.ends_with('\n')) {
                send.send(line.to_owned()).ok();
            }
        };
        tolv_sandbox::run(&spawner, &job, &mut take, &told).ok();
    });
    let line = receive.recv_timeout(Duration::from_secs(20)).unwrap();
    (Guard(cancel, Some(task)), line.parse().unwrap())
}

pub(crate) struct Guard(tolv_sandbox::Cancel, Option<thread::JoinHandle<()>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.cancel();
        if let Some(task) = self.1.take() {
            task.join().ok();
        }
    }
}

#[test]
fn a_service_that_is_given_is_reached_where_it_is() {
    let Some(spawner) = networked() else { return };
    for ip in ["127.0.0.1", "::1"] {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, peer) = listener.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
            peer.ip()
        });
        let other = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
        let script = format!(
            "import socket\n\
             s = socket.create_connection(('{}', {}))\n\
             s.sendall(b'x' * 3000000); s.shutdown(socket.SHUT_WR)\n\
             n = 0\n\
             while True:\n\
             \x20 b = s.recv(65536)\n\
             \x20 if not b: break\n\
             \x20 n += len(b)\n\
             print(n)",
            address.ip(),
            address.port()
        );
        let mut exec = shell("");
        exec.argv = ["/usr/bin/python3", "-c", &script].map(|w| w.as_bytes().to_vec()).to_vec();
        let (status, said) = run(&spawner, with(&[address]), exec).unwrap();
        assert!(status.success(), "{said}");
        assert_eq!(said.trim(), "3000000");
        // The service sees a client of the machine, as its access rules expect.
        assert_eq!(echo.join().unwrap(), address.ip());
        assert_eq!(connects(&spawner, with(&[address]), &[other]), ["ECONNREFUSED"]);
        // Nobody listens there now: the client is cut off.
        let said = connects(&spawner, with(&[address]), &[address]);
        assert!(
            ["connected", "ECONNREFUSED", "ECONNRESET"].contains(&said[0].as_str()),
            "{said:?}"
        );
    }
}

#[test]
fn names_are_the_machines_and_localhost_is_the_process() {
    let Some(spawner) = networked() else { return };
    let resolv = output(&spawner, strict(), "cat /etc/resolv.conf");
    assert!(resolv.starts_with("nameserver "), "{resolv}");
    let hosts = output(&spawner, strict(), "getent ahosts localhost | cut -d' ' -f1 | sort -u");
    assert_eq!(hosts, "127.0.0.1");
}

#[test]
fn a_socket_made_inside_reaches_loopback_inside() {
    let Some(spawner) = networked() else { return };
    let script = "import socket, time, os\n\
        s = socket.socket(); s.bind(('127.0.0.1', 28081)); s.listen()\n\
        print('ready', flush=True); print('127.0.0.1', flush=True)\n\
        c, _ = s.accept(); c.sendall(b'inside'); c.close(); time.sleep(60)\n";
    let (_guard, _) = background(&spawner, script);
    let pid = poll(WAIT, "the script", || {
        let found = Command::new("pgrep").args(["-f", "127.0.0.1', 28081"]).output().unwrap();
        let text = String::from_utf8(found.stdout).unwrap();
        text.lines().find_map(|line| line.parse::<i32>().ok())
    });
    let namespace = NetworkNamespace::of(pid).unwrap().unwrap();
    assert_eq!(NetworkNamespace::of(i32::try_from(std::process::id()).unwrap()).unwrap(), None);
    let address: SocketAddr = "127.0.0.1:28081".parse().unwrap();
    let socket = namespace.tcp_socket(&address).unwrap();
    rustix::io::ioctl_fionbio(&socket, false).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let mut text = String::new();
    std::net::TcpStream::from(socket).read_to_string(&mut text).unwrap();
    assert_eq!(text, "inside");
    // This thread is at home.
    assert_eq!(
        std::fs::read_link("/proc/thread-self/ns/net").unwrap(),
        std::fs::read_link("/proc/self/ns/net").unwrap()
    );
}

/// What this spawner's processes have left on the machine.
fn left(spawner_pid: u32) -> (usize, usize) {
    let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
    let tables = String::from_utf8(tables.stdout).unwrap();
    let mine: Vec<_> =
        tables.lines().filter(|line| line.contains(&format!("_{spawner_pid}_"))).collect();
    let id = mine.first().and_then(|line| line.split('_').nth(1)).unwrap_or("none").to_owned();
    let devices = std::fs::read_to_string("/proc/net/dev").unwrap();
    let prefix = format!("tv{id}-");
    let interfaces = devices.lines().filter(|line| line.trim_start().starts_with(&prefix));
    (mine.len(), interfaces.count())
}

pub(crate) fn pid_of(spawner: &Spawner) -> u32 {
    let (status, pid) =
        run(spawner, Spec::new(Level::None, "network"), shell("cut -d' ' -f4 /proc/$PPID/stat"))
            .unwrap();
    assert!(status.success());
    pid.trim().parse().unwrap()
}

#[test]
fn nothing_is_left_after_the_end_and_a_killed_one_is_cleaned_up_after() {
    // Other spawners of the test's machine may be quicker.
    let Some(_machine) = OwnMachine::enter() else { return };
    // Of spawners that were killed in their turn: in this network, and in one that is gone.
    let network = std::fs::metadata("/proc/self/ns/net").unwrap();
    let own = std::os::unix::fs::MetadataExt::ino(&network);
    let turns = [own, 1].map(|inode| format!("/run/tolv-network-{inode}"));
    for turn in &turns {
        std::fs::write(turn, "").unwrap();
    }
    let is_there = || turns.iter().any(|turn| std::fs::exists(turn).unwrap());
    let Some(spawner) = networked() else { return };
    let pid = pid_of(&spawner);
    output(&spawner, strict(), "true");
    assert_eq!(left(pid).0, 1);
    assert!(!is_there());
    drop(spawner);
    poll(WAIT, "the table to go", || (left(pid) == (0, 0)).then_some(()));
    poll(WAIT, "the last turn to be over", || (!is_there()).then_some(()));

    let Some(spawner) = networked() else { return };
    let pid = pid_of(&spawner);
    let raw = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    drop(spawner);
    assert_eq!(left(pid).0, 1, "nobody was there to remove it");
    let Some(next) = networked() else { return };
    poll(WAIT, "the next one to remove it", || (left(pid) == (0, 0)).then_some(()));
    drop(next);
}

#[test]
fn datagrams_to_the_machine_are_refused_too() {
    // Addresses of the test's machine come and go with other spawners' trials.
    let Some(_machine) = OwnMachine::enter() else { return };
    let Some(spawner) = networked() else { return };
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let port = socket.local_addr().unwrap().port();
    for address in own_addresses().into_iter().filter(IpAddr::is_ipv4) {
        let script = format!(
            "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
             s.sendto(b'hello', ('{address}', {port}))"
        );
        let mut exec = shell("");
        exec.argv = ["/usr/bin/python3", "-c", &script].map(|w| w.as_bytes().to_vec()).to_vec();
        let (sent, said) = run(&spawner, strict(), exec.clone()).unwrap();
        assert!(sent.success() || said.contains("Error"), "{said}");
        assert!(socket.recv(&mut [0; 16]).is_err(), "{address}");
        // In the machine's network the same datagram arrives.
        let machine = Spec { network: Network::Machine, ..strict() };
        assert!(run(&spawner, machine, exec).unwrap().0.success());
        assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 5, "{address}");
    }
}

#[test]
fn every_port_is_its_own_and_no_socket_knows_a_way_around() {
    let Some(spawner) = networked() else { return };
    let script = "import socket\n\
        s = socket.socket(); s.bind(('0.0.0.0', 80)); print('80')\n\
        for family in (40, 38, 17, 31):\n\
        \x20 try: socket.socket(family, socket.SOCK_STREAM); print(family)\n\
        \x20 except OSError as e: print(e.errno)\n";
    let mut exec = shell("");
    exec.argv = ["/usr/bin/python3", "-c", script].map(|word| word.as_bytes().to_vec()).to_vec();
    let (status, said) = run(&spawner, strict(), exec).unwrap();
    assert!(status.success(), "{said}");
    assert_eq!(said.lines().collect::<Vec<_>>(), ["80", "1", "1", "1", "1"], "{said}");
}

#[test]
fn rules_that_somebody_removes_are_back_at_once() {
    let Some(spawner) = networked() else { return };
    let pid = pid_of(&spawner);
    let own = own_addresses().into_iter().find(|ip| ip.is_ipv4() && !ip.is_loopback());
    let Some(own) = own else { return };
    let listener = TcpListener::bind((own, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    for words in ["delete table inet TABLE", "flush chain inet TABLE input", SLEEP] {
        // While they are away nobody says whose they were.
        let id = id_of(pid);
        change_rules(&table_of(pid).unwrap(), words);
        poll(WAIT, "the rules to be back", || are_whole(&rules_of(&id)).then_some(()));
        assert_ne!(connects(&spawner, strict(), &[address]), ["connected"]);
    }
    drop(listener);
}

/// Makes a table's rules count for nothing.
const SLEEP: &str = "add table inet TABLE { flags dormant ; }";

fn change_rules(table: &str, words: &str) {
    let words = words.split(' ').map(|word| if word == "TABLE" { table } else { word });
    assert!(Command::new("nft").args(words).status().unwrap().success());
}

fn are_whole(rules: &str) -> bool {
    rules.contains("reject") && !rules.contains("dormant")
}

#[test]
fn nothing_starts_without_rules_and_they_are_loaded_as_soon_as_that_can_be_done() {
    let Some(spawner) = networked() else { return };
    let pid = pid_of(&spawner);
    let id = id_of(pid);
    let process = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap());
    // nft cannot be started: there are no descriptors for its output.
    let files = rustix::process::Resource::Nofile;
    let held = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let few = rustix::process::Rlimit {
        current: Some(u64::try_from(held).unwrap()),
        ..rustix::process::getrlimit(files)
    };
    let before = rustix::process::prlimit(process, files, few).unwrap();
    change_rules(&table_of(pid).unwrap(), "delete table inet TABLE");
    poll(WAIT, "a start to be refused", || run(&spawner, strict(), shell("true")).err());
    assert_eq!(rules_of(&id), "");
    rustix::process::prlimit(process, files, before).unwrap();
    poll(WAIT, "the rules to be back", || are_whole(&rules_of(&id)).then_some(()));
    // nft has loaded them and may not have ended yet.
    poll(WAIT, "a start", || run(&spawner, strict(), shell("true")).ok());
}

/// The rules of these apps, whoever looks after them.
fn rules_of(id: &str) -> String {
    let listed = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let tables = listed.split("table inet ").filter(|it| it.starts_with(&format!("tolv_{id}_")));
    tables.collect()
}

fn id_of(spawner_pid: u32) -> String {
    table_of(spawner_pid).unwrap().split('_').nth(1).unwrap().to_owned()
}

fn remove_rules(id: &str) {
    change_rules(rules_of(id).split_whitespace().next().unwrap(), "delete table inet TABLE");
}

/// Cgroups of this spawner's launches.
fn groups_of(spawner_pid: u32) -> usize {
    let found = Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-path", &format!("*/tolv/{spawner_pid}-*")])
        .output()
        .unwrap();
    String::from_utf8(found.stdout).unwrap().lines().count()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

const SLEEPS: &str = "import time\n\
    print('1', flush=True); print('127.0.0.1', flush=True)\n\
    time.sleep(1000)\n";

#[test]
fn apps_of_a_killed_spawner_stay_behind_their_rules() {
    let Some(spawner) = networked() else { return };
    let pid = pid_of(&spawner);
    let id = id_of(pid);
    let mut spec = strict();
    spec.limits.memory = Some(256 << 20);
    let (guard, _) = background_in(&spawner, spec, SLEEPS);
    kill(pid);
    // One that was killed right after its start is replaced after a while.
    poll(WAIT, "a new one", || run(&spawner, strict(), shell("true")).ok());
    // Another spawner of this machine may be quicker than this one, until its own end.
    for _ in 0..2 {
        remove_rules(&id);
        poll(WAIT, "the rules to be back", || rules_of(&id).contains("reject").then_some(()));
    }
    assert!(groups_of(pid) > 0, "a group with an app in it");
    drop(guard);
    poll(WAIT, "the rules to go", || rules_of(&id).is_empty().then_some(()));
    poll(WAIT, "the groups to go", || (groups_of(pid) == 0).then_some(()));
}

#[test]
fn apps_without_a_spawner_and_without_rules_have_them_again_with_the_next_one() {
    let Some(spawner) = networked() else { return };
    let pid = pid_of(&spawner);
    let id = id_of(pid);
    let job = tolv_sandbox::Job { spec: strict(), exec: shell("sleep 1000"), time_limit: None };
    let null = || std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    let stdio = [null(), null(), null()].map(Into::into);
    let app = tolv_sandbox::start(&spawner, &job, stdio).unwrap();
    // Nobody replaces the spawner then.
    spawner.leave();
    drop(spawner);
    kill(pid);
    // Another spawner of this machine may be quicker than this one.
    remove_rules(&id);
    let Some(next) = networked() else { return };
    poll(WAIT, "the rules to be back", || rules_of(&id).contains("reject").then_some(()));
    app.stop();
    poll(WAIT, "the rules to go", || rules_of(&id).is_empty().then_some(()));
    drop(next);
}

fn table_of(spawner_pid: u32) -> Option<String> {
    let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
    let tables = String::from_utf8(tables.stdout).unwrap();
    let own = tables.lines().find(|line| line.contains(&format!("_{spawner_pid}_")))?;
    own.split_whitespace().last().map(str::to_owned)
}

#[test]
fn a_relay_counts_as_its_app_and_is_there_again_when_it_was_killed() {
    let Some(spawner) = networked() else { return };
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            stream.unwrap().write_all(b"here").ok();
        }
    });
    let parent = pid_of(&spawner);
    let script = format!(
        "import socket, sys, time\n\
         def ask():\n\
         \x20 s = socket.create_connection(('127.0.0.1', {0}), 5)\n\
         \x20 return s.recv(9)\n\
         print(ask(), flush=True); print('127.0.0.1', flush=True)\n\
         while True:\n\
         \x20 try:\n\
         \x20  print('again', ask(), flush=True)\n\
         \x20 except OSError as e: print(e, flush=True)\n\
         \x20 time.sleep(0.05)\n",
        address.port()
    );
    let mut spec = with(&[address]);
    spec.limits.memory = Some(256 << 20);
    let (_guard, _) = background_in(&spawner, spec, &script);
    let relay = || {
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children = children.unwrap();
        children.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()).find(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|line| line.starts_with("Uid:\t65534"))
        })
    };
    let first = poll(WAIT, "a relay", relay);
    let groups = std::fs::read_to_string(format!("/proc/{first}/cgroup")).unwrap();
    let memory = groups.lines().find(|line| line.contains(":memory:") || line.starts_with("0::"));
    assert!(memory.is_some_and(|line| line.contains("/tolv/")), "{groups}");
    let raw = rustix::process::Pid::from_raw(first).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    poll(WAIT, "another one", || relay().filter(|&pid| pid != first));
}
