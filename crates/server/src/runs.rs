//! One-off runs: begun, listed, and their streams.
//!
//! Input and output are plain requests, each whole: every proxy passes them. A read waits for
//! output, and its place says what has arrived; a write is answered once its bytes were taken, and
//! its place makes sure that they are taken once.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio_stream::wrappers::ReceiverStream;
use tolv_api::runs::{FRAMES, FROM, Frame, LONGEST_WAIT};
use tolv_api::{Code, NewRun, Page, Run, RunAttachment, RunInput, RunSignal, RunSize};
use tolv_logs::Stream;
use tolv_model::access::Act;
use tolv_model::env::EnvName;
use tolv_model::id::RunId;
use tolv_model::release::ReleaseNumber;
use tolv_model::run::{Signal, WindowSize};
use tolv_model::size::Size;
use tolv_platform::{RunOutput, RunRequest, RunStreams};

use crate::Shared;
use crate::auth::Caller;
use crate::error::Failure;
use crate::extract::{Body, Octets, Paging, Params, Path, parse, path};

/// Letters of a command in the audit log.
const SHOWN: usize = 2000;
/// For the last output of a run when the platform ends: less than a client waits for an answer.
const LAST_OUTPUT: Duration = Duration::from_secs(45);
/// Letters of a terminal's kind.
const TERM: usize = 60;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    #[serde(default)]
    from: u64,
    attached: Option<u32>,
    /// Seconds.
    #[serde(default)]
    wait: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Piece {
    #[serde(default)]
    at: u64,
    #[serde(default)]
    end: bool,
    attached: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stop {
    #[serde(default)]
    kill: bool,
}

fn convert(run: tolv_store::Run, whole: bool) -> Run {
    Run {
        id: run.id.to_string(),
        deploy: run.deploy_name.to_string(),
        process: format!("run.{}", run.number),
        release: run.release.0,
        actor: run.actor,
        argv: if whole { run.argv } else { run.argv.program() },
        env: run.env.iter().map(ToString::to_string).collect(),
        connection: run.connection,
        state: run.state,
        created: run.created,
        started: run.started,
        ended: run.ended,
        status: run.status,
        note: run.note,
        recorded: run.recorded,
    }
}

/// A run that the caller may do this with.
async fn found(
    shared: &Shared,
    caller: &Caller,
    id: &str,
    act: Act,
) -> Result<tolv_store::Run, Failure> {
    let id: RunId = parse(id)?;
    let run = shared.0.platform.run(&id).await.map_err(|error| shared.failure(error))?;
    caller.may_with(act, &run.deploy_name.app, ("run", id.as_str()))?;
    Ok(run)
}

pub(crate) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
    paging: Paging,
) -> Result<Json<Page<Run>>, Failure> {
    let path = path(&app, &deploy)?;
    caller.may(Act::View, Some(&path.app))?;
    let whole = caller.may(Act::Run, Some(&path.app)).is_ok();
    let store = shared.0.platform.store();
    let fail = |error: tolv_store::Error| shared.failure(error);
    let deploy = store.deploy(&path).await.map_err(fail)?;
    let before = paging.cursor::<RunId>()?;
    let runs = store.runs(&deploy.id, before.as_ref(), paging.limit).await.map_err(fail)?;
    Ok(Json(paging.page(runs, |run| run.id.to_string(), |run| convert(run, whole))))
}

pub(crate) async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
    Body(new): Body<NewRun>,
) -> Result<(StatusCode, HeaderMap, Json<Run>), Failure> {
    let path = path(&app, &deploy)?;
    caller.may(Act::Run, Some(&path.app))?;
    let request = request(new)?;
    caller.audit(&shared, "run.begin", &path, &described(&request)).await?;
    let run = shared.0.platform.begin_run(&caller.actor(), &path, request).await;
    let run = run.map_err(|error| shared.failure(error))?;
    let mut headers = HeaderMap::new();
    if let Ok(place) = HeaderValue::try_from(format!("/v1/runs/{}", run.id)) {
        headers.insert(header::LOCATION, place);
    }
    Ok((StatusCode::CREATED, headers, Json(convert(run, true))))
}

fn request(new: NewRun) -> Result<RunRequest, Failure> {
    let variable = |(name, value): (String, tolv_api::Value)| {
        let bytes = value.to_bytes();
        let bytes = bytes.ok_or_else(|| Failure::invalid(format!("`{name}` is not base 64")))?;
        Ok((parse::<EnvName>(&name)?, bytes))
    };
    let env = new.env.into_iter().map(variable).collect::<Result<Vec<_>, Failure>>()?;
    let streams = match (new.detach, new.terminal) {
        (true, Some(_)) => {
            return Err(Failure::invalid("a run that is detached has no terminal"));
        }
        (true, None) => RunStreams::Detached,
        (false, None) => RunStreams::Pipes,
        (false, Some(terminal)) => {
            let term = terminal.term.filter(|term| !term.is_empty());
            if term.as_ref().is_some_and(|term| term.len() > TERM || term.contains('\0')) {
                return Err(Failure::invalid("the terminal's kind is not a name"));
            }
            let size = WindowSize { rows: terminal.rows, columns: terminal.columns };
            RunStreams::Terminal { size, term }
        }
    };
    let release = match new.release {
        Some(0) => return Err(Failure::invalid("releases are numbered from 1")),
        release => release.map(ReleaseNumber),
    };
    let size = match &new.size {
        Some(size) => parse::<Size>(size)?,
        None => Size::default(),
    };
    Ok(RunRequest { argv: new.argv, env, release, streams, record: new.record, size })
}

/// The command and how it is run; values of variables are not in it.
fn described(request: &RunRequest) -> String {
    let mut text: String = request.argv.to_string().chars().take(SHOWN).collect();
    let mut add = |part: &str| {
        text.push_str(", ");
        text.push_str(part);
    };
    if !request.size.is_open() {
        add(&format!("size {}", request.size));
    }
    if let Some(release) = request.release {
        add(&format!("release {release}"));
    }
    if !request.env.is_empty() {
        let names: Vec<_> = request.env.iter().map(|(name, _)| name.as_str()).collect();
        add(&format!("with {}", names.join(" ")));
    }
    match request.streams {
        RunStreams::Detached => add("detached"),
        RunStreams::Terminal { .. } => add("terminal"),
        RunStreams::Pipes => {}
    }
    text
}

pub(crate) async fn show(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Run>, Failure> {
    let run = found(&shared, &caller, &id, Act::View).await?;
    let whole = caller.may(Act::Run, Some(&run.deploy_name.app)).is_ok();
    Ok(Json(convert(run, whole)))
}

pub(crate) async fn stop(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
    Params(Stop { kill }): Params<Stop>,
) -> Result<Json<Run>, Failure> {
    let run = found(&shared, &caller, &id, Act::Run).await?;
    caller.audit(&shared, "run.stop", &run.deploy_name, run.id.as_str()).await?;
    let stopped = shared.0.platform.stop_run(&caller.actor(), &run.id, kill).await;
    Ok(Json(convert(stopped.map_err(|error| shared.failure(error))?, true)))
}

pub(crate) async fn attach(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RunAttachment>, Failure> {
    let run = found(&shared, &caller, &id, Act::Run).await?;
    caller.audit_read(&shared, "run.attach", &run.deploy_name, run.id.as_str()).await?;
    let attached = shared.0.platform.attach_run(&run.id).await;
    let attached = attached.map_err(|error| shared.failure(error))?;
    let tolv_platform::Attachment { number, from, taken } = attached;
    Ok(Json(RunAttachment { attached: number, from, taken }))
}

pub(crate) async fn output(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
    Params(Place { from, attached, wait }): Params<Place>,
) -> Result<Response, Failure> {
    let run = found(&shared, &caller, &id, Act::Run).await?;
    caller.lasts()?;
    let wait = Duration::from_secs(wait).min(LONGEST_WAIT);
    let platform = &shared.0.platform;
    let ending = shared.0.ending.clone();
    let end = LastOutput { shared: shared.clone(), caller: caller.clone(), run: run.clone() };
    let output = tokio::select! {
        biased;
        // The next platform knows nothing of it: this answer has all there will be.
        () = ending.cancelled(), if !run.state.is_over() => {
            return end.respond(from, attached).await;
        }
        output = platform.run_output(&run.id, from, attached, wait) => {
            output.map_err(|error| shared.failure(error))?
        }
        () = caller.clone().loses(shared.clone(), Act::Run, run.deploy_name.app.clone()) => {
            return Err(Failure::new(Code::Unauthorized, "the token is not valid any more"));
        }
    };
    let from = output.from;
    Ok(framed(from, axum::body::Body::from(frames(output)?)))
}

/// Output as the bytes of an answer.
fn frames(output: RunOutput) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    for (stream, bytes) in &output.pieces {
        let kind = match stream {
            Stream::Out => Frame::Out,
            Stream::Err => Frame::Err,
        };
        kind.put(bytes, &mut body);
    }
    if let Some(run) = output.over {
        let text = serde_json::to_vec(&convert(run, true))
            .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        Frame::Over.put(&text, &mut body);
    }
    Ok(body)
}

/// An answer of output that begins at a place.
fn framed(from: u64, body: axum::body::Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(FRAMES)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (HeaderName::from_static(FROM), HeaderValue::from(from)),
    ];
    (headers, body).into_response()
}

/// The output of a run that the end of the platform stops, from a place to its end.
struct LastOutput {
    shared: Shared,
    caller: Caller,
    run: tolv_store::Run,
}

impl LastOutput {
    /// The answer begins at once; its body ends with the run, or a little before its client gives up.
    async fn respond(self, from: u64, attached: Option<u32>) -> Result<Response, Failure> {
        let first = self.read(from, attached, Duration::ZERO).await?;
        let place = first.from;
        let (sender, chunks) = tokio::sync::mpsc::channel(1);
        self.shared.0.tasks.clone().spawn(async move {
            let loses = self.caller.clone().loses(
                self.shared.clone(),
                Act::Run,
                self.run.deploy_name.app.clone(),
            );
            tokio::select! {
                () = self.send_all(first, attached, &sender) => {}
                () = loses => {}
                () = tokio::time::sleep(LAST_OUTPUT) => {}
            }
        });
        let chunks = ReceiverStream::new(chunks).map(Ok::<_, std::convert::Infallible>);
        Ok(framed(place, axum::body::Body::from_stream(chunks)))
    }

    /// Sends `output` and all that follows it without a gap.
    async fn send_all(
        &self,
        mut output: RunOutput,
        attached: Option<u32>,
        to: &tokio::sync::mpsc::Sender<Vec<u8>>,
    ) {
        loop {
            let len: usize = output.pieces.iter().map(|(_, bytes)| bytes.len()).sum();
            let (next, is_last) = (output.from + len as u64, output.over.is_some());
            let Ok(frames) = frames(output) else { return };
            if !frames.is_empty() && to.send(frames).await.is_err() || is_last {
                return;
            }
            match self.read(next, attached, LONGEST_WAIT).await {
                Ok(read) if read.from == next => output = read,
                // What is missing is said in an answer of its own.
                Ok(_) | Err(_) => return,
            }
        }
    }

    async fn read(
        &self,
        from: u64,
        attached: Option<u32>,
        wait: Duration,
    ) -> Result<RunOutput, Failure> {
        let read = self.shared.0.platform.run_output(&self.run.id, from, attached, wait).await;
        read.map_err(|error| self.shared.failure(error))
    }
}

pub(crate) async fn input(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
    Params(Piece { at, end, attached }): Params<Piece>,
    Octets(bytes): Octets,
) -> Result<Json<RunInput>, Failure> {
    let run = found(&shared, &caller, &id, Act::Run).await?;
    let taken = shared.0.platform.run_input(&run.id, at, &bytes, end, attached).await;
    let tolv_platform::Taken { taken, closed } = taken.map_err(|error| shared.failure(error))?;
    Ok(Json(RunInput { taken, closed }))
}

pub(crate) async fn resize(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
    Body(RunSize { rows, columns }): Body<RunSize>,
) -> Result<StatusCode, Failure> {
    let run = found(&shared, &caller, &id, Act::Run).await?;
    let size = WindowSize { rows, columns };
    let done = shared.0.platform.resize_run(&run.id, size).await;
    done.map_err(|error| shared.failure(error))?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn signal(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
    Body(RunSignal { signal }): Body<RunSignal>,
) -> Result<StatusCode, Failure> {
    let run = found(&shared, &caller, &id, Act::Run).await?;
    let number: Signal = parse(&signal)?;
    let detail = format!("{} {signal}", run.id);
    caller.audit(&shared, "run.signal", &run.deploy_name, &detail).await?;
    let done = shared.0.platform.signal_run(&run.id, number.number()).await;
    done.map_err(|error| shared.failure(error))?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn record(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let run = found(&shared, &caller, &id, Act::Run).await?;
    caller.audit_read(&shared, "run.output", &run.deploy_name, run.id.as_str()).await?;
    let bytes = shared.0.platform.recorded(&run).await.map_err(|error| shared.failure(error))?;
    let kind = HeaderValue::from_static("application/octet-stream");
    Ok(([(header::CONTENT_TYPE, kind)], bytes).into_response())
}
