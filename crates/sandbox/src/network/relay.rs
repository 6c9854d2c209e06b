//! The relay: what a namespace reaches of the machine's own services, at the same loopback address.
//!
//! One process a sandbox that needs it, forked by the spawner, as nobody. It listens with sockets of
//! the namespace and connects with sockets of the machine, and ends with the sandbox. It knows
//! nothing of what it passes on.
//!
//! It has no part in the platform: connections go on while that is killed, upgraded or gone.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Gid, Uid};

use super::visit;
use crate::level::Reason;
use crate::sys;

const NOBODY: u32 = 65_534;
/// Connections at once; more wait in the listeners' own queues.
const MAX_CONNECTIONS: usize = 512;
/// Questions by UDP at once; more are dropped, as a network would.
const MAX_QUESTIONS: usize = 64;
/// For a name server to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries where there is no thread or descriptor to be had.
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// For connections of a sandbox that has ended to pass on what they have.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Between two looks at them.
const SETTLE_DELAY: Duration = Duration::from_millis(10);
const STACK_BYTES: usize = 128 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;
/// The largest datagram.
const DATAGRAM_BYTES: usize = 65_535;

/// What a relay listens with, and where it leads.
#[derive(Debug)]
pub(crate) struct Relay {
    tcp: Vec<(TcpListener, SocketAddr)>,
    udp: Vec<(UdpSocket, SocketAddr)>,
}

impl Relay {
    /// Listens in a namespace, whose `lo` is up: for each service at its own address, and for names
    /// at 127.0.0.1:53.
    pub(crate) fn listen(
        namespace: impl AsFd,
        services: &[SocketAddr],
        names: Option<SocketAddr>,
    ) -> Result<Self, Reason> {
        let failed = |address: SocketAddr| {
            move |error: io::Error| {
                Reason::new(format!("listen at {address} for the machine's"), sys::errno(&error))
            }
        };
        let mut relay = Self { tcp: Vec::new(), udp: Vec::new() };
        let inside = SocketAddr::from(([127, 0, 0, 1], 53));
        let all = services.iter().map(|&service| (service, service));
        for (inside, outside) in all.chain(names.map(|server| (inside, server))) {
            let listener = visit(&namespace, || TcpListener::bind(inside));
            relay.tcp.push((listener.map_err(failed(inside))?, outside));
        }
        if let Some(server) = names {
            let socket = visit(&namespace, || UdpSocket::bind(inside));
            relay.udp.push((socket.map_err(failed(inside))?, server));
        }
        Ok(relay)
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.tcp.is_empty() && self.udp.is_empty()
    }

    /// The rest of the forked child's life: until `sandbox`, a pidfd, says that it has ended.
    pub(crate) fn live(self, sandbox: &OwnedFd) -> ! {
        let code = match self.serve(sandbox) {
            Ok(()) => 0,
            Err(_) => 1,
        };
        sys::exit_now(code)
    }

    fn serve(self, sandbox: &OwnedFd) -> io::Result<()> {
        let mut keep = vec![sandbox.as_raw_fd()];
        keep.extend(self.tcp.iter().map(|(socket, _)| socket.as_raw_fd()));
        keep.extend(self.udp.iter().map(|(socket, _)| socket.as_raw_fd()));
        sys::close_all_but(&keep)?;
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(group, group, group)?;
        rustix::thread::set_thread_res_uid(user, user, user)?;
        rustix::thread::set_no_new_privs(true)?;
        let (connections, questions) = (Arc::<AtomicUsize>::default(), Arc::default());
        // Each has a place while it waits.
        let listeners = self.tcp.len();
        for (listener, target) in self.tcp {
            let places = Places { taken: Arc::clone(&connections), most: MAX_CONNECTIONS };
            thread(move || accept(&listener, target, &places))?;
        }
        for (socket, target) in self.udp {
            let places = Places { taken: Arc::clone(&questions), most: MAX_QUESTIONS };
            thread(move || answer(&socket, target, &places))?;
        }
        while poll(&mut [PollFd::new(sandbox, PollFlags::IN)], None).is_err() {}
        // What the last process has sent is still on its way.
        let until = Instant::now() + LAST_WORDS;
        let mut quiet = 0;
        while quiet < 2 && Instant::now() < until {
            std::thread::sleep(SETTLE_DELAY);
            quiet = if connections.load(Ordering::SeqCst) <= listeners { quiet + 1 } else { 0 };
        }
        Ok(())
    }
}

fn thread(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // Nobody waits for it: the process ends with the sandbox.
    Builder::new().stack_size(STACK_BYTES).spawn(work).map(drop)
}

/// A bound on what goes on at once.
struct Places {
    taken: Arc<AtomicUsize>,
    most: usize,
}

/// One of them, given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Places {
    fn take(&self) -> Option<Place> {
        let before = self.taken.fetch_add(1, Ordering::SeqCst);
        let place = Place(Arc::clone(&self.taken));
        (before < self.most).then_some(place)
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, places: &Places) {
    loop {
        let Some(place) = places.take() else {
            std::thread::sleep(RETRY_DELAY);
            continue;
        };
        let Ok((inner, _)) = listener.accept() else {
            std::thread::sleep(RETRY_DELAY);
            continue;
        };
        // Where there is no thread to be had, the connection is closed.
        thread(move || {
            pass_on(&inner, target);
            drop(place);
        })
        .ok();
    }
}

/// A connection from its beginning to its end in both directions.
fn pass_on(inner: &TcpStream, target: SocketAddr) {
    let Ok(outer) = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT) else {
        // As if nobody listened: what the app would meet on the machine.
        rustix::net::sockopt::set_socket_linger(inner, Some(Duration::ZERO)).ok();
        return;
    };
    inner.set_nodelay(true).ok();
    outer.set_nodelay(true).ok();
    std::thread::scope(|scope| {
        let builder = Builder::new().stack_size(STACK_BYTES);
        let back = builder.spawn_scoped(scope, || copy(&outer, inner));
        if back.is_ok() {
            copy(inner, &outer);
        }
    });
}

/// Copies until the end of one direction, which is then closed.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let failed = loop {
        match from.read(&mut buffer) {
            Ok(0) => break false,
            Ok(read) if to.write_all(&buffer[..read]).is_ok() => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => break true,
        }
    };
    // One that is gone already is what is wanted.
    to.shutdown(Shutdown::Write).ok();
    if failed {
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    }
}

/// Questions and answers by UDP.
fn answer(socket: &UdpSocket, target: SocketAddr, places: &Places) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else {
            std::thread::sleep(RETRY_DELAY);
            continue;
        };
        let (Some(place), Ok(socket)) = (places.take(), socket.try_clone()) else { continue };
        let question = buffer[..length].to_vec();
        // Where it cannot be passed on, the client asks again.
        thread(move || {
            ask(&socket, target, &question, client).ok();
            drop(place);
        })
        .ok();
    }
}

fn ask(
    socket: &UdpSocket,
    target: SocketAddr,
    question: &[u8],
    client: SocketAddr,
) -> io::Result<()> {
    let any = match target {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
    };
    let outer = UdpSocket::bind(any)?;
    outer.connect(target)?;
    outer.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    outer.send(question)?;
    let mut answer = vec![0; DATAGRAM_BYTES];
    let length = outer.recv(&mut answer)?;
    socket.send_to(&answer[..length], client)?;
    Ok(())
}
