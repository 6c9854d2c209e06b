//! Taking connections: bounded in number, until the router drains.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::connection;
use crate::router::Inner;

/// How long to wait after a failed `accept`: it fails for want of descriptors or memory, and
/// trying again at once would only burn the processor.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

pub(crate) async fn accept(router: &Arc<Inner>, listener: TcpListener) {
    let local = listener.local_addr().ok();
    loop {
        let place = tokio::select! {
            () = router.draining.cancelled() => return,
            place = Arc::clone(&router.connections).acquire_owned() => place,
        };
        let Ok(place) = place else { return };
        let accepted = tokio::select! {
            () = router.draining.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let router = Arc::clone(router);
                let port = local.map_or(80, |local| local.port());
                let tasks = router.tasks.clone();
                tasks.spawn(async move {
                    connection::serve(&router, stream, peer.ip().to_canonical(), port).await;
                    drop(place);
                });
            }
            // The client was gone before we took the connection.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(_) => tokio::time::sleep(AFTER_FAILURE).await,
        }
    }
}
