//! One client connection: its requests, one after the other, each ended by its access line.
//!
//! ```text
//!  ┌─▶ wait ── a byte ──▶ head ──▶ exchange ──▶ access line ──┬─▶ linger, close
//!  │    └── 60 s, closed, draining ──▶ close                   │
//!  │                              └── handed on ──▶ gone       │
//!  └───────────────────── next request ──────────────────────┘
//! ```

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::access::{AccessLine, Code, Protocol};
use crate::clients::{Admitted, Full};
use crate::error_page;
use crate::exchange::{Exchange, Failure, Unanswered};
use crate::handed::Handed;
use crate::head::{Fields, RequestHead, Scanner, Sender};
use crate::headers::{Origin, forwarded_for};
use crate::ids::is_usable;
use crate::inner::Inner;
use crate::live::lock;
use crate::message::Request;
use crate::pump::fill_from;

/// How long what a client still sends is read and dropped after the last answer. Closing on
/// unread bytes would reset the connection, and the client might lose the answer.
const LINGER: Duration = Duration::from_secs(2);

/// How long a draining router listens to a silent connection: a request may be on its way.
const LAST_CALL: Duration = Duration::from_millis(100);

/// For the head of a request on a connection that is refused.
const REFUSED_HEAD: Duration = Duration::from_secs(1);

/// A connection as it was taken.
pub(crate) struct Arrived {
    pub(crate) stream: TcpStream,
    pub(crate) peer: IpAddr,
    /// The port that the client connected to.
    pub(crate) port: u16,
    /// What another router has read of it, and when its request came there.
    pub(crate) read: BytesMut,
    pub(crate) came: Option<Instant>,
}

impl Arrived {
    pub(crate) fn new(stream: TcpStream, peer: IpAddr, port: u16) -> Self {
        Self { stream, peer: peer.to_canonical(), port, read: BytesMut::new(), came: None }
    }
}

/// Serves a connection until it is closed, or is handed on.
pub(crate) async fn serve(router: &Inner, arrived: Arrived, place: Admitted) {
    let mut connection = Connection::new(router, arrived, Some(place));
    loop {
        match connection.request().await {
            Next::Request => {}
            Next::Close => return,
            Next::Linger => return connection.linger().await,
            Next::HandOn => return connection.hand_on(),
            Next::Reset => {
                drop(connection.stream.set_zero_linger());
                return;
            }
        }
    }
}

/// Answers the first request of a connection for which there is no place.
pub(crate) async fn refuse(router: &Inner, arrived: Arrived, why: Full) {
    let mut connection = Connection::new(router, arrived, None);
    let began = Instant::now();
    let head = timeout(REFUSED_HEAD, connection.head()).await;
    let head =
        head.ok().and_then(Result::ok).flatten().and_then(|raw| RequestHead::parse(raw).ok());
    let detail = match why {
        Full::Peer => "too many connections from this address",
        Full::Total => "too many connections to the platform",
    };
    let failure = Failure { detail: Some(detail), ..Code::H11.into() };
    let next = match head {
        Some(head) => {
            connection.misread(connection.line_of(&head), began, failure, &head.fields).await
        }
        None => {
            let line = connection.line(&Fields::default());
            connection.misread(line, began, failure, &Fields::default()).await
        }
    };
    if next == Next::Linger {
        connection.linger().await;
    }
}

/// Somebody else needs the place.
async fn evicted(place: Option<&Admitted>) {
    match place {
        Some(place) => place.evicted().await,
        None => std::future::pending().await,
    }
}

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The next request.
    Request,
    /// The client knows, or is gone.
    Close,
    /// The client may still be sending.
    Linger,
    /// An ordinary close would look like an ordinary end.
    Reset,
    /// Another router goes on with the request, of which nothing was sent to a process.
    HandOn,
}

struct Connection<'a> {
    router: &'a Inner,
    stream: TcpStream,
    /// What has come and is not used yet.
    read: BytesMut,
    peer: IpAddr,
    /// The port that the client connected to.
    port: u16,
    /// When the next request came, where that was before another router handed it on.
    came: Option<Instant>,
    trusted: bool,
    /// Where it is counted; nothing where it is refused.
    place: Option<Admitted>,
}

impl<'a> Connection<'a> {
    fn new(router: &'a Inner, arrived: Arrived, place: Option<Admitted>) -> Self {
        let Arrived { stream, peer, port, read, came } = arrived;
        // Fails only on a socket that is gone, which the first read will tell.
        drop(stream.set_nodelay(true));
        let trusted = router.trusts(peer);
        Self { router, stream, read, peer, port, came, trusted, place }
    }

    /// One request from its first byte to its access line.
    async fn request(&mut self) -> Next {
        let raw = match self.head().await {
            Ok(Some(raw)) => raw,
            Ok(None) => return Next::Close,
            Err(failure) => {
                let line = self.line(&Fields::default());
                return self.misread(line, Instant::now(), failure, &Fields::default()).await;
            }
        };
        let began = self.came.take().unwrap_or_else(Instant::now);
        match RequestHead::parse(raw.clone()).and_then(Request::understand) {
            Ok(request) => match self.forward(&request, began).await {
                Next::HandOn => {
                    // It has been read by nobody, then.
                    let mut unread = BytesMut::from(&*raw);
                    unread.extend_from_slice(&self.read);
                    (self.read, self.came) = (unread, Some(began));
                    Next::HandOn
                }
                next => next,
            },
            Err(bad) => {
                // What can be told of it is told.
                let Ok(head) = RequestHead::parse(raw) else {
                    let line = self.line(&Fields::default());
                    return self.misread(line, began, bad.into(), &Fields::default()).await;
                };
                self.misread(self.line_of(&head), began, bad.into(), &head.fields).await
            }
        }
    }

    /// Waits for a request and reads its head; `None` when there is no more to come.
    async fn head(&mut self) -> Result<Option<Bytes>, Failure> {
        let limits = self.router.settings.limits();
        let mut scanner = Scanner::default();
        let mut began = None;
        loop {
            // A client may send an empty line before its request (RFC 9112 §2.2).
            while self.read.starts_with(b"\r\n") {
                self.read.advance(2);
            }
            if self.read.is_empty() {
                if !self.wait().await {
                    return Ok(None);
                }
                began = None;
                continue;
            }
            if *self.read != *b"\r"
                && let Some(length) = scanner.find(&self.read, &limits, Sender::Client)?
            {
                // It made room just now: a request may be sent again on another connection.
                if !self.place.as_ref().is_none_or(Admitted::is_busy) {
                    return Ok(None);
                }
                return Ok(Some(self.read.split_to(length).freeze()));
            }
            // For the whole head, however many pieces it comes in.
            let began = *began.get_or_insert_with(|| {
                if let Some(place) = &self.place {
                    place.reads();
                }
                Instant::now()
            });
            let deadline = began + self.router.settings.time_outs.idle;
            let (mut from, _) = self.stream.split();
            tokio::select! {
                biased;
                filled = fill_from(&mut from, &mut self.read) => {
                    if !filled.is_ok_and(|count| count > 0) {
                        return Err(Code::H27.into());
                    }
                }
                () = self.router.cut.cancelled() => return Err(Code::H99.into()),
                () = sleep_until(deadline) => return Err(Code::H28.into()),
                () = evicted(self.place.as_ref()) => return Err(Code::H28.into()),
            }
        }
    }

    /// Waits for a byte; `false` when none will come.
    async fn wait(&mut self) -> bool {
        // A connection without a request holds no buffer.
        self.read = BytesMut::new();
        if let Some(place) = &self.place {
            place.waits();
        }
        let (mut from, _) = self.stream.split();
        let last_call = async {
            self.router.draining.cancelled().await;
            sleep(LAST_CALL).await;
        };
        tokio::select! {
            biased;
            filled = fill_from(&mut from, &mut self.read) => filled.is_ok_and(|count| count > 0),
            () = last_call => false,
            () = sleep(self.router.settings.client_keep_alive) => false,
            () = evicted(self.place.as_ref()) => false,
        }
    }

    /// Hands a request on, and its answer back.
    async fn forward(&mut self, request: &Request, began: Instant) -> Next {
        let mut line = AccessLine {
            method: request.head.method.to_vec(),
            path: request.path.to_vec(),
            host: request.host.clone().unwrap_or_default().into_bytes(),
            ..self.line(&request.head.fields)
        };
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = since_epoch.saturating_sub(began.elapsed()).as_millis();
        let origin = Origin {
            trusted: self.trusted,
            protocol: Protocol::Http,
            port: self.port,
            start,
            request_id: &line.request_id,
            forwarded: &line.forwarded,
        };
        let mut exchange = Exchange::new(self.router, request, origin, began);
        let ended = match exchange.run(&mut self.stream, &mut self.read).await {
            Err(Unanswered::HandOn) if self.router.has_heir() => return Next::HandOn,
            Err(Unanswered::HandOn) => {
                let detail = "the platform that goes on takes no requests over";
                Err(Failure { detail: Some(detail), ..Code::H99.into() })
            }
            Err(Unanswered::Failed(failure)) => Err(failure),
            Ok(open) => Ok(open),
        };
        let (way, progress) = exchange.into_parts();
        line.process = way.backend.map(|backend| backend.process);
        line.connect = way.connect;
        let next = match ended {
            Ok(true) => Next::Request,
            Ok(false) if request.close && progress.is_sent() => Next::Close,
            Ok(false) => Next::Linger,
            Err(failure) => {
                line.code = Some(failure.code);
                line.detail = failure.detail;
                line.status = failure.code.status();
                if progress.status().is_none() {
                    // The body, if there is one, stays unread.
                    let close = request.close || request.has_body() || failure.is_final();
                    self.page(&mut line, &request.head.fields, request.is_head(), close).await
                } else if failure.torn {
                    Next::Reset
                } else {
                    Next::Close
                }
            }
        };
        if line.code.is_none() && progress.has_recovered() {
            line.detail = Some("the process answers again, and gets requests as before");
        }
        if let Some(status) = progress.status() {
            line.status = status;
            line.bytes = progress.bytes();
        }
        self.log(line, began);
        next
    }

    /// Ends a request that made no sense.
    async fn misread(
        &mut self,
        line: AccessLine,
        began: Instant,
        failure: Failure,
        fields: &Fields,
    ) -> Next {
        let status = failure.code.status();
        let mut line =
            AccessLine { code: Some(failure.code), detail: failure.detail, status, ..line };
        let next = self.page(&mut line, fields, false, true).await;
        self.log(line, began);
        next
    }

    /// Answers with the error page of the line's code, where the client can take one.
    async fn page(
        &mut self,
        line: &mut AccessLine,
        fields: &Fields,
        to_head: bool,
        close: bool,
    ) -> Next {
        let code = match line.code {
            None | Some(Code::H27 | Code::H28) => return Next::Close,
            Some(code) => code,
        };
        let close = close || self.router.draining.is_cancelled();
        let (bytes, body) = error_page::render(code, &line.request_id, fields, to_head, close);
        // Once everything is cut there is one try, and no waiting.
        let limit = match code {
            Code::H99 => Duration::ZERO,
            _ => self.router.settings.time_outs.idle,
        };
        match timeout(limit, self.stream.write_all(&bytes)).await {
            Ok(Ok(())) => line.bytes = body as u64,
            Ok(Err(_)) | Err(_) => return Next::Close,
        }
        if close { Next::Linger } else { Next::Request }
    }

    /// An access line of a request that is not understood.
    fn line_of(&self, head: &RequestHead) -> AccessLine {
        AccessLine {
            method: head.method.to_vec(),
            path: head.target.to_vec(),
            host: head.fields.first("host").unwrap_or_default().to_vec(),
            ..self.line(&head.fields)
        }
    }

    /// An access line of a request with `fields`, of which nothing else is known yet.
    fn line(&self, fields: &Fields) -> AccessLine {
        let told = fields.first("x-request-id").filter(|id| is_usable(id));
        let request_id = told
            .and_then(|id| std::str::from_utf8(id).ok())
            .map_or_else(|| self.router.ids.make(), str::to_owned);
        let secure = |proto: &[u8]| proto.eq_ignore_ascii_case(b"https");
        let protocol = match self.trusted && fields.first("x-forwarded-proto").is_some_and(secure) {
            true => Protocol::Https,
            false => Protocol::Http,
        };
        AccessLine {
            code: None,
            detail: None,
            method: Vec::new(),
            path: Vec::new(),
            host: Vec::new(),
            request_id,
            forwarded: forwarded_for(fields, self.peer),
            process: None,
            connect: Duration::ZERO,
            service: Duration::ZERO,
            status: 0,
            bytes: 0,
            protocol,
        }
    }

    fn log(&self, line: AccessLine, began: Instant) {
        if line.code == Some(Code::H99) && self.router.cut.is_cancelled() {
            self.router.cut_requests.fetch_add(1, Ordering::Relaxed);
        }
        (self.router.on_line)(AccessLine { service: began.elapsed(), ..line });
    }

    /// Gives the connection to the router that takes requests now. That one writes the access line.
    fn hand_on(self) {
        let age = self.came.map_or(Duration::ZERO, |came| came.elapsed());
        let Ok(stream) = self.stream.into_std() else { return };
        let handed = Handed { stream, read: self.read.to_vec(), age };
        let heir = lock(&self.router.heir).clone();
        if let Some(Err(unsent)) = heir.map(|heir| heir.send(handed)) {
            unsent.0.refuse();
        }
    }

    /// Closes so that the client gets all of the last answer.
    async fn linger(mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let (mut from, _) = self.stream.split();
        let discard = async {
            loop {
                self.read.clear();
                if !fill_from(&mut from, &mut self.read).await.is_ok_and(|count| count > 0) {
                    break;
                }
            }
        };
        tokio::select! {
            () = discard => {}
            () = sleep(LINGER) => {}
            () = self.router.cut.cancelled() => {}
        }
    }
}
