//! Taking connections: bounded in number, until the router drains.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;

use crate::connection;
use crate::inner::Inner;

/// How long to wait after a failed `accept`: it fails for want of descriptors or memory, and
/// trying again at once would only burn the processor.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// How many connections a draining router still takes out of the kernel's queue: its usual length
/// is longer, but an end is wanted where clients keep coming.
const LAST_TAKEN: usize = 1024;

pub(crate) async fn accept(router: &Arc<Inner>, listener: TcpListener) {
    let port = listener.local_addr().map_or(80, |local| local.port());
    loop {
        let place = tokio::select! {
            () = router.draining.cancelled() => break,
            place = Arc::clone(&router.connections).acquire_owned() => place,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            () = router.draining.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => serve(router, stream, peer, port, place),
            // The client was gone before we took the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => tokio::time::sleep(AFTER_FAILURE).await,
        }
    }
    // Those in the kernel's queue believe that they are connected: closing the listener would
    // reset them. Without the runtime, which may not know of the last ones yet.
    let Ok(listener) = listener.into_std() else { return };
    for _ in 0..LAST_TAKEN {
        let Ok(place) = Arc::clone(&router.connections).try_acquire_owned() else { return };
        let Ok((stream, peer)) = listener.accept() else { return };
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            serve(router, stream, peer, port, place);
        }
    }
}

fn serve(
    router: &Arc<Inner>,
    stream: TcpStream,
    peer: SocketAddr,
    port: u16,
    place: OwnedSemaphorePermit,
) {
    let served = Arc::clone(router);
    router.tasks.spawn(async move {
        connection::serve(&served, stream, peer.ip().to_canonical(), port).await;
        drop(place);
    });
}
