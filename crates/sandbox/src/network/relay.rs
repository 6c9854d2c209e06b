//! The relay: what a namespace reaches of the machine's own services, at the same loopback address.
//!
//! One process a sandbox that needs it, forked by the spawner, as nobody, in the cgroups of the app:
//! what it takes counts as the app's. It listens with sockets of the namespace and connects with
//! sockets of the machine, and ends with the sandbox. It knows nothing of what it passes on, but for
//! the first bytes of [`questions`]. One that dies before its sandbox is forked again by the spawner,
//! which keeps the listeners.
//!
//! It has no part in the platform: connections go on while that is killed, upgraded or gone.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_linger, socket_error};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Gid, Resource, Rlimit, Uid, getrlimit, setrlimit};

use self::questions::Questions;
use super::names::{MAX_SERVERS, Servers};
use super::visit;
use crate::cgroup::Inside;
use crate::level::Reason;
use crate::sys;

mod questions;

const NOBODY: u32 = 65_534;
/// Connections at once; more wait in the listeners' own queues.
const MAX_CONNECTIONS: usize = 512;
/// Questions by UDP at once. The oldest is dropped for one more, as a network would.
const MAX_QUESTIONS: usize = 128;
/// Descriptors beside those of connections: listeners, the sandbox, questions.
const OTHER_DESCRIPTORS: usize = 128 + MAX_SERVERS * MAX_QUESTIONS;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For connections of a sandbox that has ended to pass on what they have.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries of a listener where there is no descriptor to be had.
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// The largest datagram, and what is read of a connection at once.
const BUFFER_BYTES: usize = 65_536;

/// What a relay listens with, and where it leads.
#[derive(Debug)]
pub(crate) struct Relay {
    tcp: Vec<(TcpListener, Service)>,
    names: UdpSocket,
    /// The machine's when the sandbox started.
    servers: Servers,
}

/// Where connections go.
#[derive(Clone, Copy, Debug)]
enum Service {
    At(SocketAddr),
    /// The name servers that the machine has then.
    Names,
}

impl Relay {
    /// Listens in a namespace, whose `lo` is up: for each service at its own address, and for names
    /// at 127.0.0.1:53.
    pub(crate) fn listen(namespace: impl AsFd, services: &[SocketAddr]) -> Result<Self, Reason> {
        let failed = |address: SocketAddr| {
            move |error: io::Error| {
                Reason::new(format!("listen at {address} for the machine's"), sys::errno(&error))
            }
        };
        let names = SocketAddr::from(([127, 0, 0, 1], 53));
        let mut tcp = Vec::new();
        let all = services.iter().map(|&service| (service, Service::At(service)));
        // One that is given there is a name server's own.
        let own = (!services.contains(&names)).then_some((names, Service::Names));
        for (inside, service) in all.chain(own) {
            let listener = visit(&namespace, || TcpListener::bind(inside));
            let listener = listener.and_then(|it| it.set_nonblocking(true).map(|()| it));
            tcp.push((listener.map_err(failed(inside))?, service));
        }
        let socket = visit(&namespace, || UdpSocket::bind(names));
        let socket = socket.and_then(|it| it.set_nonblocking(true).map(|()| it));
        Ok(Self { tcp, names: socket.map_err(failed(names))?, servers: Servers::of_machine() })
    }

    /// The rest of the forked child's life: until `sandbox`, a pidfd, says that it has ended.
    pub(crate) fn live(&self, sandbox: &OwnedFd, inside: &Inside) -> ! {
        let code = match self.serve(sandbox, inside) {
            Ok(()) => 0,
            Err(_) => 1,
        };
        sys::exit_now(code)
    }

    fn serve(&self, sandbox: &OwnedFd, inside: &Inside) -> io::Result<()> {
        let mut keep = vec![sandbox.as_raw_fd()];
        keep.extend(self.tcp.iter().map(|(socket, _)| socket.as_raw_fd()));
        keep.push(self.names.as_raw_fd());
        keep.extend(inside.raw_fds());
        sys::close_all_but(&keep)?;
        // It outlives the platform, whose reader waits for the end of what it says.
        rustix::stdio::dup2_stderr(rustix::stdio::stdout())?;
        let most = most_connections();
        inside.enter_beside().map_err(|reason| io::Error::from_raw_os_error(reason.errno))?;
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(group, group, group)?;
        rustix::thread::set_thread_res_uid(user, user, user)?;
        rustix::thread::set_no_new_privs(true)?;
        Serving {
            relay: self,
            sandbox,
            most,
            connections: Vec::new(),
            questions: Questions::new(self.servers.clone()),
            buffer: vec![0; BUFFER_BYTES],
            end_at: None,
            rest_until: None,
        }
        .run();
        Ok(())
    }
}

/// As many as there are descriptors for; what the spawner was started with may be few.
fn most_connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = u64::try_from(2 * MAX_CONNECTIONS + OTHER_DESCRIPTORS).unwrap_or(u64::MAX);
    let most = limit.maximum.unwrap_or(wanted).min(wanted);
    let most = match limit.current {
        Some(current) if current < most => {
            let more = Rlimit { current: Some(most), maximum: limit.maximum };
            if setrlimit(Resource::Nofile, more).is_ok() { most } else { current }
        }
        _ => most,
    };
    let most = usize::try_from(most).unwrap_or(0).saturating_sub(OTHER_DESCRIPTORS) / 2;
    most.clamp(1, MAX_CONNECTIONS)
}

/// One process's work, a poll loop.
struct Serving<'a> {
    relay: &'a Relay,
    sandbox: &'a OwnedFd,
    /// Connections at once.
    most: usize,
    connections: Vec<Connection>,
    questions: Questions,
    buffer: Vec<u8>,
    /// When it ends at the latest, once the sandbox has.
    end_at: Option<Instant>,
    /// No listener is tried before.
    rest_until: Option<Instant>,
}

/// What a descriptor in the poll is.
#[derive(Clone, Copy)]
enum Place {
    Sandbox,
    Listener(usize),
    Questions,
    /// The client's end is 0, the service's 1.
    End(usize, usize),
    /// To which question, from which of the servers that are asked.
    Answer(usize, usize),
}

impl Serving<'_> {
    fn run(mut self) {
        while !self.is_over() {
            for (place, flags) in self.wait() {
                self.serve(place, flags);
            }
            let now = Instant::now();
            self.connections.retain_mut(|connection| !connection.is_over(now));
            self.questions.tick(&self.relay.names, now);
            self.rest_until = self.rest_until.filter(|until| *until > now);
        }
    }

    /// The sandbox is gone, and what its last process has sent has arrived.
    fn is_over(&mut self) -> bool {
        let Some(end_at) = self.end_at else { return false };
        // What it had begun is in the listeners' queues.
        for listener in 0..self.relay.tcp.len() {
            self.accept(listener);
        }
        self.connections.is_empty() || Instant::now() >= end_at
    }

    fn wait(&self) -> Vec<(Place, PollFlags)> {
        let mut places = Vec::new();
        let mut fds = Vec::new();
        if self.end_at.is_none() {
            places.push(Place::Sandbox);
            fds.push(PollFd::new(self.sandbox, PollFlags::IN));
        }
        if self.connections.len() < self.most && self.rest_until.is_none() {
            for (number, (listener, _)) in self.relay.tcp.iter().enumerate() {
                places.push(Place::Listener(number));
                fds.push(PollFd::new(listener, PollFlags::IN));
            }
        }
        places.push(Place::Questions);
        fds.push(PollFd::new(&self.relay.names, PollFlags::IN));
        for (number, connection) in self.connections.iter().enumerate() {
            for end in 0..2 {
                let wanted = connection.wants(end);
                if !wanted.is_empty() {
                    places.push(Place::End(number, end));
                    fds.push(PollFd::new(&connection.ends[end], wanted));
                }
            }
        }
        for (question, server, socket) in self.questions.sockets() {
            places.push(Place::Answer(question, server));
            fds.push(PollFd::new(socket, PollFlags::IN));
        }
        let deadlines = self.connections.iter().filter_map(|connection| connection.connect_by);
        let deadlines = deadlines.chain(self.questions.deadline());
        let next = deadlines.chain(self.end_at).chain(self.rest_until).min();
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
        if poll(&mut fds, timeout.as_ref()).is_err() {
            // The kernel has no memory for the list: not to be asked again at once.
            std::thread::sleep(RETRY_DELAY);
            return Vec::new();
        }
        let ready = places.into_iter().zip(&fds).map(|(place, fd)| (place, fd.revents()));
        ready.filter(|(_, flags)| !flags.is_empty()).collect()
    }

    fn serve(&mut self, place: Place, flags: PollFlags) {
        match place {
            Place::Sandbox => self.end_at = Some(Instant::now() + DRAIN_TIMEOUT),
            Place::Listener(number) => self.accept(number),
            Place::Questions => self.questions.take(&self.relay.names, &mut self.buffer),
            Place::End(number, end) => {
                if let Some(connection) = self.connections.get_mut(number) {
                    connection.serve(end, flags, &mut self.buffer);
                }
            }
            Place::Answer(question, server) => {
                self.questions.answer(&self.relay.names, (question, server), &mut self.buffer);
            }
        }
    }

    fn accept(&mut self, number: usize) {
        let Some((listener, service)) = self.relay.tcp.get(number) else { return };
        while self.connections.len() < self.most {
            match listener.accept() {
                Ok((inner, _)) => {
                    let targets = match service {
                        Service::At(address) => vec![*address],
                        Service::Names => self.questions.servers(),
                    };
                    match Connection::begin(inner, targets) {
                        Ok(connection) => self.connections.push(connection),
                        // The client is cut off, as where nobody listens.
                        Err(_) => return,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.rest_until = Some(Instant::now() + RETRY_DELAY);
                    return;
                }
            }
        }
    }
}

/// A connection in both directions.
struct Connection {
    /// The client's and the service's.
    ends: [TcpStream; 2],
    /// What waits to be written to each end.
    pending: [Vec<u8>; 2],
    /// Whether each end has said all.
    at_end: [bool; 2],
    /// Whether each end has been told so.
    closed: [bool; 2],
    /// Until the service has taken the connection.
    connect_by: Option<Instant>,
    /// Where it goes instead if it does not.
    others: VecDeque<SocketAddr>,
    failed: bool,
}

impl Connection {
    /// One to the first of these that takes it.
    fn begin(inner: TcpStream, targets: Vec<SocketAddr>) -> io::Result<Self> {
        inner.set_nonblocking(true)?;
        inner.set_nodelay(true)?;
        let mut others = VecDeque::from(targets);
        let first = others.pop_front().ok_or(io::ErrorKind::NotConnected)?;
        let (outer, failed) = dial(first)?;
        let connect_by = Some(Instant::now() + CONNECT_TIMEOUT);
        let (pending, at_end, closed) = ([Vec::new(), Vec::new()], [false; 2], [false; 2]);
        let ends = [inner, outer];
        let mut connection =
            Self { ends, pending, at_end, closed, connect_by, others, failed: false };
        if failed {
            connection.try_next();
        }
        Ok(connection)
    }

    /// The service has not taken the connection.
    fn try_next(&mut self) {
        while let Some(next) = self.others.pop_front() {
            if let Ok((outer, false)) = dial(next) {
                self.ends[1] = outer;
                self.connect_by = Some(Instant::now() + CONNECT_TIMEOUT);
                return;
            }
        }
        self.fail();
    }

    /// What is waited for at an end. Nothing is read that cannot be passed on at once.
    fn wants(&self, end: usize) -> PollFlags {
        if self.connect_by.is_some() {
            // The client may go meanwhile, which is seen when there is something to write.
            return if end == 1 { PollFlags::OUT } else { PollFlags::empty() };
        }
        let mut wanted = PollFlags::empty();
        if !self.at_end[end] && self.pending[1 - end].is_empty() {
            wanted |= PollFlags::IN;
        }
        if !self.pending[end].is_empty() {
            wanted |= PollFlags::OUT;
        }
        wanted
    }

    fn serve(&mut self, end: usize, flags: PollFlags, buffer: &mut [u8]) {
        if self.connect_by.is_some() {
            match socket_error(&self.ends[1]) {
                Ok(Ok(())) => self.connect_by = None,
                Ok(Err(_)) | Err(_) => self.try_next(),
            }
            return;
        }
        if flags.contains(PollFlags::OUT) {
            self.write(end);
        }
        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
            && !self.at_end[end]
            && self.pending[1 - end].is_empty()
        {
            match self.ends[end].read(buffer) {
                Ok(0) => self.at_end[end] = true,
                Ok(read) => {
                    self.pending[1 - end].extend_from_slice(&buffer[..read]);
                    self.write(1 - end);
                }
                Err(error) if is_passing(&error) => {}
                Err(_) => self.fail(),
            }
        }
        for end in 0..2 {
            if self.at_end[end] && self.pending[1 - end].is_empty() && !self.closed[1 - end] {
                self.closed[1 - end] = true;
                // One that is gone already is what is wanted.
                self.ends[1 - end].shutdown(Shutdown::Write).ok();
            }
        }
    }

    fn write(&mut self, end: usize) {
        match self.ends[end].write(&self.pending[end]) {
            Ok(written) => {
                self.pending[end].drain(..written);
                if self.pending[end].is_empty() {
                    self.pending[end].shrink_to(0);
                }
            }
            Err(error) if is_passing(&error) => {}
            Err(_) => self.fail(),
        }
    }

    /// Cuts both ends off, as the one that failed was.
    fn fail(&mut self) {
        self.failed = true;
        for end in &self.ends {
            set_socket_linger(end, Some(Duration::ZERO)).ok();
        }
    }

    fn is_over(&mut self, now: Instant) -> bool {
        if self.connect_by.is_some_and(|by| by <= now) {
            self.try_next();
        }
        self.failed || self.closed == [true; 2]
    }
}

/// Begins a connection; whether it has failed at once.
fn dial(target: SocketAddr) -> io::Result<(TcpStream, bool)> {
    let family = match target {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let outer = socket_with(family, SocketType::STREAM, flags, None)?;
    let failed = match connect(&outer, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => false,
        Err(_) => true,
    };
    let outer = TcpStream::from(outer);
    outer.set_nodelay(true)?;
    Ok((outer, failed))
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
