//! Connections: how many there may be, and how long one may take for what it sends and receives.
//!
//! | what | bound |
//! |---|---|
//! | a head, and silence between two requests | [`HEAD_TIMEOUT`] |
//! | a body that is read whole | [`BODY_TIMEOUT`] |
//! | silence within a pack of git's | [`PACK_TIMEOUT`] |
//! | an answer of which nothing is taken | [`WRITE_TIMEOUT`] |
//! | connections in total, and of one peer | [`tolv_platform::api_connections`], one [`PER_PEER`]th |
//! | connections of all peers but this machine | all but one [`RESERVE`]th |
//!
//! A connection that has sent no request makes room for a new one, the oldest first; what comes from
//! the loopback is bounded in total alone, for a proxy may be there.
//!
//! An answer may take as long as it likes: a followed log is one.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use axum::serve::Listener;
use futures_util::StreamExt as _;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// For a request's head to arrive, and for the next request on a connection to begin.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For a body that is read whole to arrive.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// For the next piece of a pack to arrive.
pub(crate) const PACK_TIMEOUT: Duration = Duration::from_secs(60);
/// For the client to take some of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(300);
/// One in so many connections may be from one address (from one /64 network of IPv6).
const PER_PEER: usize = 4;
/// One in so many connections is left for this machine, however many others there are.
const RESERVE: usize = 8;
/// For answers to requests that had begun when no more connections are taken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// For a request that is on its way then: where it is seen only after its connection is closed, its
/// client cannot know whether it was done.
const LAST_REQUEST: Duration = Duration::from_millis(300);
/// Between two looks whether they are answered.
const ANSWER_LOOK: Duration = Duration::from_millis(5);

/// What a connection above the bound gets before it is closed.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\
    retry-after: 2\r\ncontent-type: text/plain\r\ncontent-length: 21\r\n\r\ntoo many connections\n";

/// Who is at the other end, as far as connections are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Somebody on this machine, or behind a proxy on it.
    Local,
    /// An IPv4 address.
    V4([u8; 4]),
    /// The network of an IPv6 address: one machine has many addresses in it.
    V6([u8; 8]),
}

/// An address that says who its peer is.
pub trait PeerAddress {
    /// Who.
    fn peer(&self) -> Peer;
}

impl PeerAddress for SocketAddr {
    fn peer(&self) -> Peer {
        match self.ip().to_canonical() {
            ip if ip.is_loopback() => Peer::Local,
            IpAddr::V4(ip) => Peer::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Peer::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

impl PeerAddress for tokio::net::unix::SocketAddr {
    fn peer(&self) -> Peer {
        Peer::Local
    }
}

impl Peer {
    /// Connections of `max` that it may have at once. What comes from this machine may be a proxy, with
    /// everybody behind it.
    fn most(self, max: usize) -> usize {
        match self {
            Self::Local => max,
            Self::V4(_) | Self::V6(_) => max.div_ceil(PER_PEER),
        }
    }
}

/// The connections that are open.
#[derive(Clone)]
struct Connections {
    max: usize,
    open: Arc<Mutex<OpenConnections>>,
}

#[derive(Default)]
struct OpenConnections {
    next: u64,
    /// The oldest first.
    open: BTreeMap<u64, OpenConnection>,
}

struct OpenConnection {
    peer: Peer,
    /// No request has come yet.
    is_silent: bool,
    /// A request has come, and its answer has not begun.
    is_asking: bool,
    evicted: CancellationToken,
}

/// One connection, as long as this lives.
struct Admitted {
    connections: Connections,
    id: u64,
    /// Cancelled where it makes room for a new one.
    evicted: CancellationToken,
}

impl Connections {
    fn new(max: usize) -> Self {
        Self { max, open: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more. Where there are as many as there may be, it takes the place of the oldest
    /// that has sent no request; nothing where there is none.
    fn admit(&self, peer: Peer) -> Option<Admitted> {
        let mut connections = self.lock();
        let own = connections.open.values().filter(|open| open.peer == peer).count();
        let is_peer_full = own >= peer.most(self.max);
        let far = connections.open.values().filter(|open| open.peer != Peer::Local).count();
        let reserve = self.max / RESERVE;
        let is_far_full = peer != Peer::Local && far >= self.max - reserve;
        if is_peer_full || is_far_full || connections.open.len() >= self.max {
            let may_go = |open: &OpenConnection| {
                open.is_silent
                    && (!is_peer_full || open.peer == peer)
                    && (!is_far_full || open.peer != Peer::Local)
            };
            let oldest =
                connections.open.iter().find(|(_, open)| may_go(open)).map(|(id, _)| *id)?;
            let evicted = connections.open.remove(&oldest)?;
            evicted.evicted.cancel();
        }
        let id = connections.next;
        connections.next += 1;
        let evicted = CancellationToken::new();
        let open =
            OpenConnection { peer, is_silent: true, is_asking: false, evicted: evicted.clone() };
        connections.open.insert(id, open);
        Some(Admitted { connections: self.clone(), id, evicted })
    }

    /// After the last connection: waits until no request is on its way any more, and the answers to
    /// those that came have begun, but not for those that take long.
    async fn answered(&self) {
        let now = Instant::now();
        let (last, until) = (now + LAST_REQUEST, now + ANSWER_TIMEOUT);
        let waits = |now| {
            let waits = |open: &OpenConnection| open.is_asking || now <= last;
            self.lock().open.values().any(waits) && now < until
        };
        while waits(Instant::now()) {
            sleep(ANSWER_LOOK).await;
        }
    }
}

impl Admitted {
    /// A request has come: the connection stays.
    fn is_used(&self) {
        self.change(|open| (open.is_silent, open.is_asking) = (false, true));
    }

    /// The answer has begun.
    fn is_answered(&self) {
        self.change(|open| open.is_asking = false);
    }

    fn change(&self, change: impl FnOnce(&mut OpenConnection)) {
        if let Some(open) = self.connections.lock().open.get_mut(&self.id) {
            change(open);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.lock().open.remove(&self.id);
    }
}

/// Serves connections until `stop` resolves, then cancels `ending` and waits until the requests
/// that are under way have finished, for as long as `stop` says at most, which is given back.
/// `answered` is cancelled as soon as only those are left that take long.
pub(crate) async fn serve<L>(
    mut listener: L,
    router: Router,
    stop: impl Future<Output = Duration>,
    ending: CancellationToken,
    answered: CancellationToken,
) -> Duration
where
    L: Listener,
    L::Addr: PeerAddress,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connections = Connections::new(tolv_platform::api_connections());
    let tasks = TaskTracker::new();
    let service = TowerToHyperService::new(router);
    let mut stop = pin!(stop);
    let grace = loop {
        let (mut io, address) = tokio::select! {
            grace = &mut stop => break grace,
            accepted = listener.accept() => accepted,
        };
        let Some(admitted) = connections.admit(address.peer()) else {
            // As far as it goes into the socket's buffer at once: nobody waits for it.
            let now = tokio::time::timeout(Duration::ZERO, io.write_all(TOO_MANY));
            now.await.ok();
            continue;
        };
        let io = TokioIo::new(WriteTimeout { io, waiting: None });
        let (admitted, service) = (Arc::new(admitted), service.clone());
        let evicted = admitted.evicted.clone();
        let service = service_fn(move |request| {
            admitted.is_used();
            let (admitted, answer) = (Arc::clone(&admitted), service.call(request));
            async move {
                let answer = answer.await;
                admitted.is_answered();
                answer
            }
        });
        let connection = http.serve_connection(io, service);
        let ending = ending.clone();
        tasks.spawn(async move {
            let mut connection = pin!(connection);
            tokio::select! {
                // How a client broke off is nobody's concern.
                _ = connection.as_mut() => return,
                () = evicted.cancelled() => return,
                () = ending.cancelled() => {}
            }
            // A connection without a request is closed by this.
            if tokio::time::timeout(LAST_REQUEST, connection.as_mut()).await.is_err() {
                connection.as_mut().graceful_shutdown();
                connection.await.ok();
            }
        });
    };
    drop(listener);
    ending.cancel();
    connections.answered().await;
    answered.cancel();
    tasks.close();
    tokio::time::timeout(grace, tasks.wait()).await.ok();
    grace
}

/// A connection whose writes fail once nothing of them was taken for [`WRITE_TIMEOUT`].
struct WriteTimeout<T> {
    io: T,
    /// Since the last byte was taken, while another waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T: Unpin> WriteTimeout<T> {
    /// What came of a try to write.
    fn watch<R>(
        &mut self,
        cx: &mut Context<'_>,
        tried: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if tried.is_ready() {
            self.waiting = None;
            return tried;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for WriteTimeout<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.watch(cx, tried)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(cx, tried)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tried = Pin::new(&mut self.io).poll_shutdown(cx);
        self.watch(cx, tried)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let tried = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.watch(cx, tried)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// The layer of requests whose bodies are read whole: they arrive within [`BODY_TIMEOUT`].
pub(crate) async fn whole_body(request: Request, next: Next) -> Response {
    let until = Instant::now() + BODY_TIMEOUT;
    next.run(request.map(|body| timed(body, move || until))).await
}

/// The layer of git's requests: each piece of a body arrives within [`PACK_TIMEOUT`].
pub(crate) async fn streamed_body(request: Request, next: Next) -> Response {
    next.run(request.map(|body| timed(body, || Instant::now() + PACK_TIMEOUT))).await
}

/// The same body; it fails with `TimedOut` where a piece has not arrived when it should have.
fn timed(body: Body, until: impl Fn() -> Instant + Send + Sync + 'static) -> Body {
    let pieces = futures_util::stream::unfold(
        (body.into_data_stream(), until),
        |(mut pieces, until)| async move {
            let piece = match timeout_at(until(), pieces.next()).await {
                Ok(piece) => piece?.map_err(io::Error::other),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            };
            Some((piece, (pieces, until)))
        },
    );
    Body::from_stream(pieces)
}

/// Whether an error, or what it came from, is that something took too long.
pub(crate) fn is_timeout(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests;
