//! One request's way to a process, and its answer's way back.
//!
//! Both ways run at once: an answer may come before the request is over. Four things end an
//! exchange: the answer's end, a failure of the upload, silence for too long, the router's own end.
//!
//! ```text
//!  reach ──▶ send ─────────────▶ watch the client
//!    ▲   └─▶ receive ─▶ 1xx ─┐
//!    │          ▲ └──────────┘
//!    │          ├── head, body ──▶ keep or close both connections
//!    │          ├── 101 ──▶ tunnel
//!    └──────────┴── closed unused ──▶ a new connection, once
//! ```

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::futures::Notified;
use tokio::time::{Instant, sleep};

use crate::access::Code;
use crate::body::{Decoder, Encoder};
use crate::framing::Framing;
use crate::head::{Bad, ResponseHead, Scanner, Sender};
use crate::headers::{self, Client, Origin};
use crate::inner::Inner;
use crate::live::{InFlight, Live};
use crate::message::{Request, Response};
use crate::patience::{Download, Upload};
use crate::pump::{Broken, Direction, Outgoing, Progress, Pump, fill_from};
use crate::reach::{Reached, Way, reach};
use crate::tunnel::{Closing, Flow};
use crate::websocket::{GOING_AWAY, SERVICE_RESTART};

/// How much a client may send ahead of its next request's turn.
const EARLY: usize = 64 * 1024;

/// Why an exchange did not end as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) detail: Option<&'static str>,
    /// The client would take the connection's end for the answer's.
    pub(crate) torn: bool,
}

impl Failure {
    /// Whether the connection cannot serve another request.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.code, Code::H26 | Code::H27 | Code::H28 | Code::H99)
    }
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Self { code, detail: None, torn: false }
    }
}

impl From<Bad> for Failure {
    /// The client's fault; see [`not_http`] for a process's.
    fn from(bad: Bad) -> Self {
        Self { detail: Some(bad.0), ..Code::H26.into() }
    }
}

/// The process's answer is not HTTP.
fn not_http(bad: Bad) -> Failure {
    Failure { detail: Some(bad.0), ..Code::H25.into() }
}

/// The process does not answer in time.
fn silent(live: &Live, pause: Duration) -> Failure {
    let detail = "the third in a row, the process is passed over until it answers";
    Failure { detail: live.timed_out(pause).then_some(detail), ..Code::H12.into() }
}

/// A WebSocket does not end although it was closed.
fn unclosed() -> Failure {
    let detail = "the WebSocket was still open 30 seconds after its close frame";
    Failure { detail: Some(detail), ..Code::H99.into() }
}

/// Why a request has no answer of a process.
pub(crate) enum Unanswered {
    Failed(Failure),
    /// It was sent to none, and another router takes requests from here on.
    HandOn,
}

impl<F: Into<Failure>> From<F> for Unanswered {
    fn from(failure: F) -> Self {
        Self::Failed(failure.into())
    }
}

/// Why an attempt came to nothing.
enum Miss {
    /// The connection had been closed before the request came: another one may do.
    Stale,
    Failed(Failure),
}

impl<F: Into<Failure>> From<F> for Miss {
    fn from(failure: F) -> Self {
        Self::Failed(failure.into())
    }
}

/// How an answer ended.
enum Received {
    /// It is with the client.
    Whole {
        /// The process's connection may serve another request.
        reusable: bool,
        /// The client was told that its connection ends.
        close: bool,
    },
    /// Both sides speak another protocol from here on.
    Switched { is_websocket: bool },
}

/// For a stream of events, once its process is to go: that gets SIGTERM before, and may say goodbye.
const STREAM_OF_PROCESS: Duration = Duration::from_secs(4);
/// The same where the router itself ends.
const STREAM_OF_ROUTER: Duration = Duration::from_secs(2);

/// Whether an answer lasts until one of both ends has enough of it (WHATWG HTML, server-sent events):
/// its client connects again by itself. One that says how long it is comes to an end.
fn is_event_stream(response: &Response) -> bool {
    if !matches!(response.framing, Framing::Chunked | Framing::Close) {
        return false;
    }
    let kind = response.head.fields.first("content-type").unwrap_or_default();
    let kind = kind.split(|&byte| byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// What a process says before its answer's body.
enum AnswerHead {
    Whole(Bytes),
    /// The connection is over. A process that reads a request and ends, or closes, says so by FIN; the
    /// kernel resets a connection with bytes that nobody read (RFC 9293 §3.10.7.4): they were not
    /// worked on.
    Over {
        is_unread: bool,
    },
}

pub(crate) struct Exchange<'a> {
    router: &'a Inner,
    request: &'a Request,
    origin: Origin<'a>,
    way: Way,
    progress: Progress,
}

impl<'a> Exchange<'a> {
    /// `began`: when the request came.
    pub(crate) fn new(
        router: &'a Inner,
        request: &'a Request,
        origin: Origin<'a>,
        began: Instant,
    ) -> Self {
        Self { router, request, origin, way: Way::new(began), progress: Progress::new() }
    }

    /// What the access line wants to know.
    pub(crate) fn into_parts(self) -> (Way, Progress) {
        (self.way, self.progress)
    }

    /// Whether the client's connection may serve another request. `read` holds what the client
    /// sent after the head.
    pub(crate) async fn run(
        &mut self,
        client: &mut TcpStream,
        read: &mut BytesMut,
    ) -> Result<bool, Unanswered> {
        // A request that cannot be sent twice is not risked on a connection that the process may
        // be closing right now.
        let mut used = self.request.is_repeatable();
        loop {
            let reached = self.reach(client, read, used).await?;
            let is_new = !reached.used;
            match self.attempt(client, read, reached).await {
                Ok(open) => return Ok(open),
                Err(Miss::Stale) => {
                    used = false;
                    if is_new {
                        self.way.pass_over();
                    }
                }
                Err(Miss::Failed(failure)) => return Err(failure.into()),
            }
        }
    }

    async fn reach(
        &mut self,
        client: &mut TcpStream,
        read: &mut BytesMut,
        used: bool,
    ) -> Result<Reached, Unanswered> {
        let (mut from, _) = client.split();
        tokio::select! {
            biased;
            reached = reach(self.router, self.request.host.as_deref(), used, &mut self.way) => {
                reached
            }
            () = gone(&mut from, read) => Err(Code::H27.into()),
            () = self.router.cut.cancelled() => Err(Code::H99.into()),
        }
    }

    /// Sends the request over one connection.
    async fn attempt(
        &self,
        client: &mut TcpStream,
        read: &mut BytesMut,
        reached: Reached,
    ) -> Result<bool, Miss> {
        let Reached { request: in_flight, mut stream, used } = reached;
        let limits = self.way.time_outs(self.router);
        let progress = &self.progress;
        progress.restart();
        let (mut from, mut to) = client.split();
        let (mut process_from, mut process_to) = stream.split();
        let mut answer = BytesMut::new();
        let live = in_flight.live();
        let lasting_close = live.lasting_close();
        let received = tokio::select! {
            biased;
            received = self.receive(&in_flight, &mut process_from, &mut answer, &mut to, used) => {
                received
            }
            failure = self.send(&mut from, read, &mut process_to) => Err(failure.into()),
            code = progress.silence(&limits) => Err(match code {
                Code::H12 => silent(&in_flight, self.router.settings.hang).into(),
                code => code.into(),
            }),
            () = self.router.cut.cancelled() => Err(Code::H99.into()),
            () = self.end_stream(&in_flight, lasting_close) => {
                Ok(Received::Whole { reusable: false, close: true })
            }
        }?;
        match received {
            Received::Whole { reusable, close } => {
                if reusable && progress.is_sent() {
                    let router = self.router;
                    in_flight.put_idle(stream, router.settings.upstream_idle, &router.idle);
                    self.router.put_aside.notify_one();
                }
                Ok(!close && progress.is_sent())
            }
            // The process cannot have agreed to a request that it did not get.
            Received::Switched { .. } if !progress.is_sent() => {
                Err(not_http(Bad("protocol switched too early")).into())
            }
            Received::Switched { is_websocket } => {
                let closing = is_websocket.then(Closing::default);
                let lasting_close = live.lasting_close();
                in_flight.become_lasting();
                let up = Flow {
                    direction: Direction::Up,
                    from: &mut from,
                    read,
                    to: &mut process_to,
                    progress,
                    closing: closing.as_ref(),
                };
                let down = Flow {
                    direction: Direction::Down,
                    from: &mut process_from,
                    read: &mut answer,
                    to: &mut to,
                    progress,
                    closing: closing.as_ref(),
                };
                tokio::select! {
                    biased;
                    // A broken side is an end like any other: no tunnel says which.
                    _ = async { tokio::try_join!(up.copy(), down.copy()) } => Ok(false),
                    code = progress.silence(&limits) => Err(code.into()),
                    () = self.router.cut.cancelled() => Err(Code::H99.into()),
                    in_time = self.close(closing.as_ref(), &live, lasting_close) => match in_time {
                        true => Ok(false),
                        false => Err(unclosed().into()),
                    },
                }
            }
        }
    }

    /// Closes a WebSocket when the router drains or its process is to go: whether the client took
    /// part in that.
    async fn close(
        &self,
        closing: Option<&Closing>,
        live: &Live,
        lasting_close: Notified<'_>,
    ) -> bool {
        let Some(closing) = closing else { return std::future::pending().await };
        let code = tokio::select! {
            () = lasting_close => match live.is_replaced() {
                true => SERVICE_RESTART,
                false => GOING_AWAY,
            },
            () = self.router.draining.cancelled() => match self.router.handed_on.is_cancelled() {
                true => SERVICE_RESTART,
                false => GOING_AWAY,
            },
        };
        closing.close(code).await
    }

    /// Returns once an answer that is a stream of events has had its time, since its process is to go or
    /// the router drains. After [`Router::hand_on`](crate::Router::hand_on) somebody else serves
    /// already, and it may last as long as any request.
    async fn end_stream(&self, in_flight: &InFlight, lasting_close: Notified<'_>) {
        let pause = tokio::select! {
            () = lasting_close => STREAM_OF_PROCESS,
            () = self.router.draining.cancelled() => match self.router.handed_on.is_cancelled() {
                true => return std::future::pending().await,
                false => STREAM_OF_ROUTER,
            },
        };
        sleep(pause).await;
        // Its answer may have only begun.
        while !in_flight.is_lasting() {
            sleep(STREAM_OF_ROUTER).await;
        }
    }

    /// Sends the head and the body, then watches the client. Returns only what ends the exchange.
    async fn send(
        &self,
        from: &mut ReadHalf<'_>,
        read: &mut BytesMut,
        to: &mut WriteHalf<'_>,
    ) -> Failure {
        let framing = self.request.framing;
        let mut pump = Pump {
            direction: Direction::Up,
            decoder: Decoder::new(framing, self.router.settings.limits()),
            encoder: match framing {
                Framing::Empty => Encoder::Nothing,
                Framing::Length(_) | Framing::Close => Encoder::Plain,
                Framing::Chunked => Encoder::Chunked,
            },
            progress: &self.progress,
        };
        let mut out = Outgoing::default();
        headers::request(&mut out.bytes, self.request, &self.origin);
        match pump.run(from, read, to, &mut out).await {
            Ok(()) => {
                self.progress.set_sent();
                gone(from, read).await;
                Code::H27.into()
            }
            Err(Broken::Bad(bad)) => bad.into(),
            Err(Broken::Sender) => Code::H27.into(),
            // It may have answered nevertheless: the other way tells.
            Err(Broken::Receiver) => {
                self.progress.set_upload(Upload::Over);
                std::future::pending().await
            }
        }
    }

    /// Passes interim answers on, then the answer. `used`: the connection served a request before.
    async fn receive(
        &self,
        in_flight: &InFlight,
        from: &mut ReadHalf<'_>,
        answer: &mut BytesMut,
        to: &mut WriteHalf<'_>,
        used: bool,
    ) -> Result<Received, Miss> {
        let modern = self.request.head.minor > 0;
        let to_head = self.request.is_head();
        let mut first = true;
        let response = loop {
            let raw = match self.answer_head(from, answer).await? {
                AnswerHead::Whole(raw) => raw,
                AnswerHead::Over { is_unread } => {
                    // A process that ends while nobody knows of it had the connection, and never read it.
                    let may_retry = used || self.router.leaving.is_cancelled();
                    let stale = may_retry && first && is_unread && answer.is_empty();
                    let stale = stale && self.request.is_repeatable();
                    return Err(if stale { Miss::Stale } else { Code::H13.into() });
                }
            };
            first = false;
            if in_flight.answers() {
                self.progress.set_recovered();
            }
            let head = ResponseHead::parse(raw).map_err(not_http)?;
            let response = Response::understand(head, to_head).map_err(not_http)?;
            let mut out = Vec::new();
            match response.head.status {
                101 if self.request.upgrade => {
                    headers::switching(&mut out, &response);
                    self.progress.set_status(101);
                    self.write(to, &out).await?;
                    let is_websocket = response.head.fields.lists("upgrade", "websocket");
                    return Ok(Received::Switched { is_websocket });
                }
                101 => return Err(not_http(Bad("protocol switched unasked")).into()),
                100..=199 if modern => {
                    headers::interim(&mut out, &response);
                    self.write(to, &out).await?;
                    self.progress.set_download(Download::Awaited);
                }
                100..=199 => self.progress.set_download(Download::Awaited),
                _ => break response,
            }
        };
        if is_event_stream(&response) {
            in_flight.become_lasting();
        }
        let told = matches!(response.framing, Framing::Empty | Framing::Length(_));
        // An answer that came before the request was over, and is no success, ends the upload.
        let early = self.progress.upload() != Upload::Over && response.head.status >= 300;
        let close =
            self.request.close || early || !told && !modern || self.router.draining.is_cancelled();
        let mut out = Outgoing::default();
        headers::response(&mut out.bytes, &response, Client { modern, close, to_head });
        self.progress.set_status(response.head.status);
        let mut pump = Pump {
            direction: Direction::Down,
            decoder: Decoder::new(response.framing, self.router.settings.limits()),
            encoder: match response.framing {
                Framing::Empty => Encoder::Nothing,
                Framing::Length(_) => Encoder::Plain,
                Framing::Chunked | Framing::Close if modern => Encoder::Chunked,
                Framing::Chunked | Framing::Close => Encoder::Plain,
            },
            progress: &self.progress,
        };
        let torn = !told && !modern;
        match pump.run(from, answer, to, &mut out).await {
            Ok(()) => {
                Ok(Received::Whole { reusable: response.keeps_open && answer.is_empty(), close })
            }
            Err(Broken::Bad(bad)) => Err(Failure { torn, ..not_http(bad) }.into()),
            Err(Broken::Sender) => Err(Failure { torn, ..Code::H18.into() }.into()),
            Err(Broken::Receiver) => Err(Code::H27.into()),
        }
    }

    /// Reads the head of an answer; `None` when the process closed before it was whole.
    async fn answer_head(
        &self,
        from: &mut ReadHalf<'_>,
        answer: &mut BytesMut,
    ) -> Result<AnswerHead, Failure> {
        let limits = self.router.settings.limits();
        let mut scanner = Scanner::default();
        loop {
            if let Some(length) =
                scanner.find(answer, &limits, Sender::Process).map_err(not_http)?
            {
                return Ok(AnswerHead::Whole(answer.split_to(length).freeze()));
            }
            match fill_from(from, answer).await {
                // Behind the end came a reset: what was sent met a connection that was closed already.
                Ok(0) => {
                    let is_unread = matches!(from.as_ref().take_error(), Ok(Some(_)));
                    return Ok(AnswerHead::Over { is_unread });
                }
                Err(error) => {
                    let is_unread = error.kind() == io::ErrorKind::ConnectionReset;
                    return Ok(AnswerHead::Over { is_unread });
                }
                Ok(_) => {
                    self.progress.set_download(Download::Reading);
                    self.progress.touch();
                }
            }
        }
    }

    /// Writes to the client what is not a body.
    async fn write(&self, to: &mut WriteHalf<'_>, bytes: &[u8]) -> Result<(), Failure> {
        self.progress.set_download(Download::Writing);
        to.write_all(bytes).await.map_err(|_| Code::H27)?;
        self.progress.touch();
        Ok(())
    }
}

/// Resolves when the client has closed. What it sends before its turn is kept, within limits.
async fn gone(from: &mut ReadHalf<'_>, read: &mut BytesMut) {
    while read.len() < EARLY {
        match fill_from(from, read).await {
            // It has closed its side, but there is a request to answer yet.
            Ok(0) if !read.is_empty() => break,
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    std::future::pending().await
}
