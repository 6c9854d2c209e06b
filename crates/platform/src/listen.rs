//! Where the local router listens.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Instant, sleep};

use crate::options::Http;

/// First port tried where none was asked for.
const DEFAULT: u16 = 8080;
/// How many ports from there on are tried.
const TRIES: u16 = 100;
/// For a program that ends to let go of an address, and between two tries.
const TAKEN_TIMEOUT: Duration = Duration::from_secs(3);
const TAKEN_RETRY_DELAY: Duration = Duration::from_millis(50);

/// The kernel takes `net.core.somaxconn` where that is less.
const MAX_QUEUE: u32 = 65_535;

/// The router has nowhere to listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address that was asked for.
    #[error("cannot listen on {address}")]
    Asked {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// What the platform before this one listened on.
    #[error("cannot listen on the socket that was handed on")]
    HandedOn(#[source] io::Error),
    /// None of the default ports.
    #[error("no port from {DEFAULT} to {} is free on 127.0.0.1", DEFAULT + TRIES - 1)]
    NoneFree,
}

/// Listens where it was asked for.
///
/// # Errors
///
/// [`ListenError::Asked`] when an address was asked for and is not to be had: it is not replaced
/// by another. [`ListenError::NoneFree`] when all of the default ports are taken.
/// [`ListenError::HandedOn`] when a socket is none that can be listened on.
pub(crate) async fn listen(asked: &Http) -> Result<TcpListener, ListenError> {
    match asked {
        Http::At(address) => {
            return bind(*address)
                .await
                .map_err(|source| ListenError::Asked { address: *address, source });
        }
        Http::Socket(socket) => return inherit(socket).map_err(ListenError::HandedOn),
        Http::Free => {}
    }
    for port in DEFAULT..DEFAULT + TRIES {
        if let Ok(listener) = listen_at((Ipv4Addr::LOCALHOST, port).into()) {
            return Ok(listener);
        }
    }
    Err(ListenError::NoneFree)
}

/// Listens at an address. One that is taken is tried again for three seconds: a program that was
/// killed may hold it until it is gone.
///
/// # Errors
///
/// The system's.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let until = Instant::now() + TAKEN_TIMEOUT;
    loop {
        match listen_at(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                sleep(TAKEN_RETRY_DELAY).await;
            }
            bound => return bound,
        }
    }
}

/// Listens with the longest queue that the kernel allows (`net.core.somaxconn`). What does not fit in it
/// is dropped and sent again by all clients at once, every second: on the loopback so many packets are
/// lost then that connections to other ports, such as the API's, wait for seconds too.
fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // As the standard library does: connections of a program before that linger hold up nobody.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(MAX_QUEUE)
}

fn inherit(socket: &std::net::TcpListener) -> io::Result<TcpListener> {
    let socket = socket.try_clone()?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

#[cfg(test)]
mod tests;
