//! A receiver over TCP, plain or encrypted.
//!
//! It says nothing of what it has taken. What its machine has not acknowledged is known from the
//! socket (`TIOCOUTQ`); at the end, the receiver closing its side says that it has read all.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use rustix::ioctl::{Getter, ioctl};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use tolv_logs::drain::DrainUrl;

use super::bell::Bell;
use super::fault::Fault;
use super::reach::Reach;
use super::trust;

/// For a connection to be made, and again for its handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// A receiver that takes nothing for so long hangs.
const HANGS: Duration = Duration::from_secs(30);
/// Between two looks whether to end, while the receiver takes nothing.
const LOOK: Duration = Duration::from_millis(200);
/// The same at the end, when there is little time.
const LAST_LOOK: Duration = Duration::from_millis(20);
/// For a receiver whose machine has everything to say that it has read it, at the end.
const CLOSES: Duration = Duration::from_millis(200);
/// What waits in this machine for the receiver's: it arrives after an end, and nobody hears of it.
const WAITING: usize = 256 * 1024;
/// Silence after which the system asks whether the receiver's machine is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// `TIOCOUTQ`, on every architecture of Linux that Rust's standard library is built for but these.
const OUTQ: rustix::ioctl::Opcode = if cfg!(any(
    target_arch = "mips",
    target_arch = "mips64",
    target_arch = "powerpc",
    target_arch = "powerpc64",
    target_arch = "sparc64"
)) {
    0x4004_7473
} else {
    0x5411
};

pub(super) enum Connection {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    pub(super) fn open(url: &DrainUrl, reach: &Reach) -> Result<Self, Fault> {
        let at = url.authority();
        let found = (url.host.as_str(), url.port).to_socket_addrs();
        let found = found.map_err(|error| Fault::Resolve(url.host.clone(), error))?;
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for address in reach.check(&url.host, found)? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => {
                    settle(&stream).map_err(|error| Fault::Connect(at.clone(), error))?;
                    return if url.tls {
                        Self::encrypt(url, stream)
                    } else {
                        Ok(Self::Plain(stream))
                    };
                }
                Err(error) => last = error,
            }
        }
        Err(Fault::Connect(at, last))
    }

    fn encrypt(url: &DrainUrl, mut stream: TcpStream) -> Result<Self, Fault> {
        let failed = |error| Fault::Tls(url.authority(), error);
        let name = ServerName::try_from(url.host.clone())
            .map_err(|error| failed(io::Error::other(error)))?;
        let config = trust::client(url.ca.as_deref())?;
        let mut tls =
            ClientConnection::new(config, name).map_err(|error| failed(io::Error::other(error)))?;
        let until = Instant::now() + CONNECT;
        // Step by step: a peer that sends a byte now and then is late too.
        while tls.is_handshaking() {
            let step = match tls.wants_write() {
                true => tls.write_tls(&mut stream).map(|_| ()),
                false => receive(&mut tls, &mut stream),
            };
            match step {
                Ok(()) => {}
                Err(error) if is_late(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
            if tls.is_handshaking() && Instant::now() >= until {
                return Err(failed(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the receiver does not finish the handshake of TLS",
                )));
            }
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(tls, stream))))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// Writes everything, for as long as the receiver takes some of it.
    pub(super) fn write(&mut self, bytes: &[u8], bell: &Bell) -> Result<(), Fault> {
        let mut rest = bytes;
        let mut since = Instant::now();
        loop {
            let wrote = match self {
                Self::Plain(_) if rest.is_empty() => return Ok(()),
                Self::Plain(stream) => stream.write(rest),
                Self::Tls(stream) if rest.is_empty() => match stream.flush() {
                    Ok(()) => return Ok(()),
                    Err(error) => Err(error),
                },
                Self::Tls(stream) => stream.write(rest),
            };
            match wrote {
                Ok(0) => return Err(Fault::Closed),
                Ok(count) => {
                    rest = &rest[count..];
                    since = Instant::now();
                }
                Err(error) if is_late(&error) => {
                    if bell.is_stopped() && bell.left().is_zero() {
                        return Err(Fault::Stopped);
                    }
                    if since.elapsed() >= HANGS {
                        return Err(Fault::Hangs(HANGS));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::Broken(error)),
            }
        }
    }

    /// Bytes that the receiver's machine has not acknowledged.
    pub(super) fn unacknowledged(&self) -> u64 {
        // SAFETY: this request writes one `int`, which is what the getter takes.
        #[expect(unsafe_code, reason = "the request has no safe wrapper")]
        let count = unsafe { ioctl(self.socket(), Getter::<OUTQ, i32>::new()) };
        // Where nobody knows, nothing is.
        count.ok().and_then(|count| u64::try_from(count).ok()).unwrap_or(u64::MAX)
    }

    /// Takes in what the receiver says, which means nothing but that it is there.
    pub(super) fn listen(&mut self) -> Result<(), Fault> {
        self.socket().set_nonblocking(true).map_err(Fault::Broken)?;
        let heard = loop {
            match self.read(&mut [0; 1024]) {
                Ok(0) => break Err(Fault::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    break Err(Fault::Closed);
                }
                Err(error) => break Err(Fault::Broken(error)),
            }
        };
        self.socket().set_nonblocking(false).map_err(Fault::Broken)?;
        heard
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }

    /// Says that nothing comes any more, and waits until the receiver has all; whether it says that
    /// it has read it, by closing its side in turn. How much its machine has not acknowledged until
    /// now goes to `heard`.
    pub(super) fn finish(mut self, bell: &Bell, mut heard: impl FnMut(u64)) -> bool {
        if let Self::Tls(stream) = &mut self {
            stream.conn.send_close_notify();
            if stream.flush().is_err() {
                return false;
            }
        }
        if self.socket().set_read_timeout(Some(LAST_LOOK)).is_err()
            || self.socket().shutdown(Shutdown::Write).is_err()
        {
            return false;
        }
        let mut since = None;
        while !bell.left().is_zero() {
            // The end itself counts as a byte until it is acknowledged.
            let rest = self.unacknowledged().saturating_sub(1);
            heard(rest);
            if rest == 0 && since.get_or_insert_with(Instant::now).elapsed() >= CLOSES {
                return false;
            }
            match self.read(&mut [0; 1024]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return true,
                Err(error) if is_late(&error) => {}
                Err(_) => return false,
            }
        }
        false
    }
}

/// Takes one piece of the peer's part of a handshake.
fn receive(tls: &mut ClientConnection, stream: &mut TcpStream) -> io::Result<()> {
    if tls.read_tls(stream)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if let Err(error) = tls.process_new_packets() {
        // The peer hears why.
        tls.write_tls(stream).ok();
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    Ok(())
}

fn settle(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_send_buffer_size(stream, WAITING)?;
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(LOOK))?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE / 3)?;
    sockopt::set_tcp_keepcnt(stream, 3)?;
    // Also while something is under way: otherwise a quarter of an hour.
    let millis = u32::try_from((2 * KEEPALIVE).as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, millis)?;
    Ok(())
}

/// Whether nothing happened in the time that a call may take.
fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
