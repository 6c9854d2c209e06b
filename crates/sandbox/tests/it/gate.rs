//! Apps that run while the packet rules are lost and cannot be loaded: on a machine of the test's
//! own, whose firewall is flushed and whose nft is broken.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tolv_sandbox::{
    Job, Level, Machine, Network, NetworkChoice, NetworkNamespace, Running, Spawner, Spec,
};
use tolv_testkit::{OwnMachine, poll};

use crate::{run, shell, spawner};

const WAIT: Duration = Duration::from_secs(30);

/// Says which of the addresses that it is sent it reaches: by loopback, as the router asks.
const SCOUT: &str = "
import socket
def reaches(line):
    host, port = line.split()
    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    s.settimeout(0.2)
    try:
        s.connect((host, int(port))); return 'yes'
    except OSError as error:
        return type(error).__name__
everywhere = socket.create_server(('::', 28090), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    c, _ = everywhere.accept()
    asked = c.makefile().read().splitlines()
    c.sendall('\\n'.join(reaches(line) for line in asked).encode())
    c.close()
";
const PORT: u16 = 28_090;

struct Scout {
    app: Running,
    namespace: NetworkNamespace,
    addresses: Vec<IpAddr>,
}

impl Scout {
    fn start(spawner: &Spawner, services: &[SocketAddr]) -> Self {
        let mut spec = Spec::new(Level::Strict, "network");
        spec.network = Network::Own { services: services.to_vec() };
        let mut exec = shell("");
        exec.argv = ["/usr/bin/python3", "-c", SCOUT].map(|it| it.as_bytes().to_vec()).to_vec();
        let null = || std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
        let stdio = [null(), null(), null()].map(Into::into);
        let app =
            tolv_sandbox::start(spawner, &Job { spec, exec, time_limit: None }, stdio).unwrap();
        let namespace = NetworkNamespace::of(app.pid()).unwrap().unwrap();
        let mut scout = Self { app, namespace, addresses: Vec::new() };
        poll(WAIT, "the scout", || scout.try_ask(&[]).ok());
        let listed = std::fs::read_to_string(format!("/proc/{}/net/fib_trie", scout.app.pid()));
        let own = listed.unwrap().lines().find_map(|line| {
            let address = line.trim().strip_prefix("|-- ")?;
            address.starts_with("198.1").then(|| address.parse::<IpAddr>().unwrap())
        });
        scout.addresses.extend(own);
        let six = std::fs::read_to_string(format!("/proc/{}/net/if_inet6", scout.app.pid()));
        let own = six.unwrap().lines().find_map(|line| {
            let bits = u128::from_str_radix(line.split(' ').next()?, 16).ok()?;
            line.starts_with("fd74").then(|| IpAddr::V6(bits.into()))
        });
        scout.addresses.extend(own);
        scout
    }

    fn try_ask(&self, addresses: &[SocketAddr]) -> std::io::Result<Vec<String>> {
        let inside = SocketAddr::from(([127, 0, 0, 1], PORT));
        let socket = self.namespace.tcp_socket(&inside)?;
        rustix::io::ioctl_fionbio(&socket, false)?;
        rustix::net::connect(&socket, &inside)?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(WAIT))?;
        for address in addresses {
            writeln!(stream, "{} {}", address.ip(), address.port())?;
        }
        stream.shutdown(Shutdown::Write)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Which of these it reaches. The question itself goes through whatever the rules are.
    #[track_caller]
    fn reaches(&self, addresses: &[SocketAddr]) -> Vec<bool> {
        let said = self.try_ask(addresses).unwrap();
        assert_eq!(said.len(), addresses.len());
        said.iter().map(|word| word == "yes").collect()
    }
}

struct Bed {
    machine: OwnMachine,
    spawner: Spawner,
    scouts: [Scout; 2],
    /// Of the machine, which no app may reach, and of each other.
    refused: Vec<SocketAddr>,
    internet: Vec<SocketAddr>,
    service: SocketAddr,
    _listeners: [TcpListener; 2],
}

impl Bed {
    fn make() -> Option<Self> {
        let machine = OwnMachine::enter()?;
        let spawner = spawner();
        let probed = Machine::probe(&spawner, NetworkChoice::Auto).unwrap();
        assert_eq!(probed.network, None);
        let [four, six] = OwnMachine::addresses(OwnMachine::ADDRESSES);
        let listeners = [(four, 0), (six, 0)].map(|at| TcpListener::bind(at).unwrap());
        let service = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let given = service.local_addr().unwrap();
        std::thread::spawn(move || service.incoming().for_each(drop));
        let scouts = [0, 1].map(|_| Scout::start(&spawner, &[given]));
        assert_eq!(scouts[1].addresses.len(), 2, "IPv4 and IPv6");
        let mut refused: Vec<_> =
            listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        refused.extend(scouts[1].addresses.iter().map(|&ip| SocketAddr::new(ip, PORT)));
        let internet = OwnMachine::addresses(OwnMachine::INTERNET);
        let internet = internet.map(|ip| SocketAddr::new(ip, 7)).to_vec();
        let bed = Self {
            machine,
            spawner,
            scouts,
            refused,
            internet,
            service: given,
            _listeners: listeners,
        };
        bed.is_open();
        Some(bed)
    }

    /// The rules are in force: the internet is reached, and nothing else.
    #[track_caller]
    fn is_open(&self) {
        self.machine.wait_for_ends(2, true);
        poll(WAIT, "the internet", || {
            let all = self.scouts.iter().all(|it| it.reaches(&self.internet) == [true; 2]);
            all.then_some(())
        });
        assert_eq!(self.scouts[0].reaches(&self.refused), [false; 4]);
        self.loopback_goes_on();
    }

    /// No rules, and no way.
    #[track_caller]
    fn is_shut(&self) {
        self.machine.wait_for_ends(2, false);
        assert_eq!(self.scouts[0].reaches(&self.refused), [false; 4]);
        assert_eq!(self.scouts[0].reaches(&self.internet), [false; 2]);
        for address in &self.scouts[1].addresses {
            let at = SocketAddr::new(*address, PORT);
            TcpStream::connect_timeout(&at, Duration::from_millis(300)).unwrap_err();
        }
        self.loopback_goes_on();
    }

    /// A service of the machine's that is given, by the relay.
    #[track_caller]
    fn loopback_goes_on(&self) {
        assert_eq!(self.scouts[0].reaches(&[self.service]), [true]);
    }

    fn flush(&self) {
        self.machine.nft(&["flush", "ruleset"]);
    }

    fn table(&self) -> String {
        let tables = self.machine.nft(&["list", "tables"]);
        let own = tables.lines().find(|line| line.contains(" tolv_")).unwrap();
        own.split(' ').next_back().unwrap().to_owned()
    }

    fn pid(&self) -> u32 {
        let script = shell("cut -d' ' -f4 /proc/$PPID/stat");
        let ran = run(&self.spawner, Spec::new(Level::None, "network"), script).unwrap();
        ran.1.trim().parse().unwrap()
    }

    fn stop(self) {
        for scout in self.scouts {
            scout.app.stop();
        }
    }
}

#[test]
fn apps_are_cut_off_while_rules_that_are_lost_cannot_be_loaded() {
    let Some(bed) = Bed::make() else { return };
    // It fails, cannot be started, hangs.
    for broken in ["exit 1", "", "exec sleep 1000"] {
        bed.machine.break_nft(broken);
        bed.flush();
        bed.is_shut();
        bed.machine.mend_nft();
        bed.is_open();
    }
    // There, and switched off.
    let table = bed.table();
    bed.machine.break_nft("exit 1");
    bed.machine.nft(&["add", "table", "inet", &table, "{ flags dormant ; }"]);
    bed.is_shut();
    bed.machine.mend_nft();
    bed.is_open();
    bed.stop();
}

#[test]
fn apps_stay_cut_off_when_the_spawner_is_killed_meanwhile() {
    let Some(bed) = Bed::make() else { return };
    let pid = bed.pid();
    bed.machine.break_nft("exit 1");
    // The next one finds neither rules nor a way to load them.
    let raw = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    bed.flush();
    bed.is_shut();
    bed.machine.mend_nft();
    bed.is_open();
    bed.stop();
}

#[test]
fn a_quick_reload_is_no_reason_to_cut_anybody_off() {
    let Some(bed) = Bed::make() else { return };
    for _ in 0..5 {
        bed.flush();
        bed.is_open();
    }
    bed.stop();
}
