//! Taking connections: bounded in number, until the router drains.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::clients::{Admitted, Full, Peer};
use crate::connection::{self, Arrived};
use crate::handed::Handed;
use crate::inner::Inner;

/// How long to wait after a failed `accept`: it fails for want of descriptors or memory, and
/// trying again at once would only burn the processor.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// For a place to be free before connections are refused.
const FULL_TIMEOUT: Duration = Duration::from_secs(2);

/// How many connections a draining router still takes out of the kernel's queue: its usual length
/// is longer, but an end is wanted where clients keep coming.
const LAST_TAKEN: usize = 1024;

/// For connections that are being made when no more are: on one machine it is done at once.
const HANDSHAKE: Duration = Duration::from_millis(1);

/// A filter in the kernel's own language: what has SYN in the flags of its TCP header (RFC 9293,
/// byte 13) is dropped, everything else is let in. A client that begins then hears nothing, begins
/// again a second later, and is answered by whoever listens by then.
const NO_MORE: [SockFilter; 4] = [
    SockFilter::new(LOAD_BYTE, 0, 0, 13),
    SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
    SockFilter::new(RETURN, 0, 0, 0),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
];
/// `BPF_LD | BPF_B | BPF_ABS`.
const LOAD_BYTE: u16 = 0x30;
/// `BPF_JMP | BPF_JSET | BPF_K`.
const JUMP_IF_SET: u16 = 0x45;
/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;
/// Of the flags.
const SYN: u32 = 0x02;

pub(crate) async fn accept(router: &Arc<Inner>, listener: TcpListener) {
    let port = listener.local_addr().map_or(80, |local| local.port());
    // Since when there has been no place.
    let mut full = None;
    loop {
        let accepted = tokio::select! {
            () = router.draining.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match place(router, peer, &mut full).await {
                Ok(place) => serve(router, Arrived::new(stream, peer.ip(), port), place),
                Err(why) => refuse(router, Arrived::new(stream, peer.ip(), port), why),
            },
            // The client was gone before we took the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => tokio::time::sleep(AFTER_FAILURE).await,
        }
    }
    if router.handed_on.is_cancelled() {
        return;
    }
    // Those in the kernel's queue believe that they are connected: closing the listener would
    // reset them. Without the runtime, which may not know of the last ones yet.
    let Ok(listener) = listener.into_std() else { return };
    // Where it is refused, a few may be reset.
    SockRef::from(&listener).attach_filter(&NO_MORE).ok();
    take(router, &listener, port);
    tokio::time::sleep(HANDSHAKE).await;
    take(router, &listener, port);
}

/// Takes what is in the kernel's queue.
fn take(router: &Arc<Inner>, listener: &std::net::TcpListener, port: u16) {
    for _ in 0..LAST_TAKEN {
        let Ok((stream, peer)) = listener.accept() else { return };
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            admit(router, Arrived::new(stream, peer.ip(), port));
        }
    }
}

/// Takes a connection of another router's.
pub(crate) fn adopt(router: &Arc<Inner>, handed: Handed) -> io::Result<()> {
    let Handed { stream, read, age } = handed;
    let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
    stream.set_nonblocking(true)?;
    let arrived = Arrived::new(TcpStream::from_std(stream)?, peer.ip(), local.port());
    let came = Instant::now().checked_sub(age);
    admit(router, Arrived { read: BytesMut::from(&*read), came, ..arrived });
    Ok(())
}

/// Serves a connection where there is a place at once.
fn admit(router: &Arc<Inner>, arrived: Arrived) {
    match router.clients.admit(kind(router, arrived.peer)) {
        Ok(place) => serve(router, arrived, place),
        Err(why) => refuse(router, arrived, why),
    }
}

/// A place for a connection. Where there is none in all, those behind it wait in the kernel's queue
/// until one is free, for [`FULL_TIMEOUT`] at most; from then on they are refused.
async fn place(
    router: &Inner,
    peer: SocketAddr,
    full: &mut Option<Instant>,
) -> Result<Admitted, Full> {
    let peer = kind(router, peer.ip());
    loop {
        match router.clients.admit(peer) {
            Ok(place) => {
                *full = None;
                return Ok(place);
            }
            // A proxy may have all: that is the total.
            Err(Full::Peer) if peer != Peer::Proxy => return Err(Full::Peer),
            Err(_) => {}
        }
        let since = *full.get_or_insert_with(Instant::now);
        if since.elapsed() >= FULL_TIMEOUT || router.draining.is_cancelled() {
            return Err(Full::Total);
        }
        router.clients.changed().await;
    }
}

fn kind(router: &Inner, peer: IpAddr) -> Peer {
    Peer::new(peer, router.trusts(peer))
}

fn serve(router: &Arc<Inner>, arrived: Arrived, place: Admitted) {
    let served = Arc::clone(router);
    router.tasks.spawn(async move {
        connection::serve(&served, arrived, place).await;
    });
}

/// Tells a client why it is refused, where that can be done at once; else it is closed.
fn refuse(router: &Arc<Inner>, arrived: Arrived, why: Full) {
    router.clients.refuse(why);
    let Ok(place) = Arc::clone(&router.refusals).try_acquire_owned() else { return };
    let refusing = Arc::clone(router);
    router.tasks.spawn(async move {
        connection::refuse(&refusing, arrived, why).await;
        drop(place);
    });
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net;

    use super::*;

    #[test]
    fn a_listener_that_ends_keeps_its_queue_and_answers_no_more() {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _connected = net::TcpStream::connect(address).unwrap();
        SockRef::from(&listener).attach_filter(&NO_MORE).unwrap();
        let late = net::TcpStream::connect_timeout(&address, Duration::from_millis(200));
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
        listener.set_nonblocking(true).unwrap();
        listener.accept().unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}
