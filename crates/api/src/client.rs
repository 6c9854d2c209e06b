//! The typed client: blocking, one call a method of the API.

mod socket;

use std::io::{BufRead as _, BufReader, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tolv_model::operation::State;
use ureq::config::Config;
use ureq::http::{Request, Response};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::{Agent, Body};

use self::socket::SocketConnector;
use crate::{Code, Problem, local};

/// For a connection to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// For another platform to take the place of one that is stopping, and between two tries.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(60);
const UPGRADE_RETRY: Duration = Duration::from_millis(250);
/// Most bytes of an answer.
const ANSWER: u64 = 64 << 20;

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The platform says why not.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// Nobody answers.
    #[error("nobody answers at {url}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why not.
        source: Box<ureq::Error>,
    },
    /// The connection broke.
    #[error("the connection to {url} broke")]
    Broken {
        /// Where.
        url: String,
        /// Why.
        source: std::io::Error,
    },
    /// Not an answer of this API.
    #[error("{url} does not answer as Tolv's API does: {what}")]
    Odd {
        /// Where.
        url: String,
        /// What came instead.
        what: String,
    },
}

impl Error {
    /// Whether the connection is gone, and another may be had: what a `tolv up` runs ends with it.
    pub fn may_come_back(&self) -> bool {
        match self {
            Self::Unreachable { url, .. } | Self::Broken { url, .. } => url != local::URL,
            Self::Problem(_) | Self::Odd { .. } => false,
        }
    }
}

impl Error {
    /// Whether the connection was closed before there was an answer.
    fn is_closed(&self) -> bool {
        let Self::Unreachable { source, .. } = self else { return false };
        let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        matches!(&**source, ureq::Error::Io(error) if kinds.contains(&error.kind()))
    }
}

/// What an operation says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A line of its output.
    Output(String),
    /// Its end.
    Over(State),
}

/// A client of one platform. Its token is never printed.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    url: String,
    token: Option<String>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.url)
    }
}

fn config() -> Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT))
        .user_agent(concat!("tolv/", env!("CARGO_PKG_VERSION")))
        .build()
}

impl Client {
    /// A client of the platform at `url`, such as `http://127.0.0.1:1212`.
    pub fn new(url: &str, token: Option<String>) -> Self {
        Self { agent: config().into(), url: url.trim_end_matches('/').to_owned(), token }
    }

    /// A client of the platform on this machine whose state folder is `home`.
    pub fn local(home: &Path) -> Self {
        let socket = local::socket(home);
        let url = local::URL.to_owned();
        let connector = SocketConnector(socket);
        let agent = Agent::with_parts(config(), connector, DefaultResolver::default());
        Self { agent, url, token: local::token(home) }
    }

    /// Where the platform is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for something; `path` begins with `/v1`.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.read(self.call("GET", path, &[], None)?)
    }

    /// As [`Client::get`], but the whole answer has to come in time.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`].
    pub fn get_within<T: DeserializeOwned>(
        &self,
        timeout: Duration,
        path: &str,
    ) -> Result<T, Error> {
        self.read(self.call_within(timeout, "GET", path, &[], None)?)
    }

    /// Sends something with a body.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`].
    pub fn send<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let bytes = serde_json::to_vec(body)
            .map_err(|error| Error::Odd { url: self.url.clone(), what: error.to_string() })?;
        self.read(self.call(method, path, &[("content-type", "application/json")], Some(bytes))?)
    }

    /// Removes something.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`].
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.read(self.call("DELETE", path, &[], None)?)
    }

    /// Follows an operation to its end, behind its first `seen` lines; `event` gets each.
    ///
    /// A connection that breaks is made again, where it left off.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`].
    pub fn follow(&self, id: &str, event: &mut dyn FnMut(Event)) -> Result<State, Error> {
        self.follow_at(&format!("/v1/operations/{id}/events"), event)
    }

    /// As [`Client::follow`], for whatever has such events.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`].
    pub fn follow_at(&self, path: &str, event: &mut dyn FnMut(Event)) -> Result<State, Error> {
        let mut seen = 0_u64;
        let mut tries = 0;
        loop {
            let before = seen;
            match self.follow_once(path, &mut seen, event) {
                Ok(Some(state)) => return Ok(state),
                Ok(None) if tries < 60 => {}
                Err(error) if error.may_come_back() && tries < 60 => {}
                Ok(None) => {
                    let what = "the stream ended before the operation".to_owned();
                    return Err(Error::Odd { url: self.url.clone(), what });
                }
                Err(error) => return Err(error),
            }
            tries = if seen > before { 0 } else { tries + 1 };
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn follow_once(
        &self,
        path: &str,
        seen: &mut u64,
        event: &mut dyn FnMut(Event),
    ) -> Result<Option<State>, Error> {
        let mut over = None;
        let mut last = seen.to_string();
        let streamed = self.stream(path, &mut last, &mut |kind, data| match kind {
            "output" => {
                event(Event::Output(data));
                true
            }
            "state" => {
                over = State::ALL.into_iter().find(|state| state.as_str() == data);
                over.is_none()
            }
            _ => true,
        });
        *seen = last.parse().unwrap_or(*seen);
        streamed?;
        if let Some(state) = over {
            event(Event::Over(state));
        }
        Ok(over)
    }

    /// One connection of server-sent events: `event` gets the kind and the data of each until it
    /// says `false`. `last` is the id of the last one seen, before and after; empty is none.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`]; the stream's end is none.
    pub fn stream(
        &self,
        path: &str,
        last: &mut String,
        event: &mut dyn FnMut(&str, String) -> bool,
    ) -> Result<(), Error> {
        let sent = last.clone();
        let header = [("last-event-id", sent.as_str())];
        let headers: &[_] = if sent.is_empty() { &[] } else { &header };
        let response = self.call("GET", path, headers, None)?;
        let lines = BufReader::new(response.into_body().into_reader()).lines();
        let (mut kind, mut data) = (String::new(), String::new());
        for line in lines {
            let line = line.map_err(|source| Error::Broken { url: self.url.clone(), source })?;
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut kind),
                "data" => value.clone_into(&mut data),
                "id" => value.clone_into(last),
                "" if line.is_empty() && !kind.is_empty() => {
                    if !event(&kind, std::mem::take(&mut data)) {
                        return Ok(());
                    }
                    kind.clear();
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Asks, and gives the answer, or the problem that it is. A platform that is stopping has done
    /// nothing: it is asked again, for at an upgrade another one answers soon. One that closes the
    /// connection instead of an answer is asked once more for what changes nothing.
    pub(crate) fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Response<Body>, Error> {
        let until = Instant::now() + UPGRADE_TIMEOUT;
        let mut may_be_lost = method == "GET";
        loop {
            let response = match self.call_for(None, method, path, headers, body.clone()) {
                Err(error) if may_be_lost && error.is_closed() => {
                    may_be_lost = false;
                    std::thread::sleep(UPGRADE_RETRY);
                    continue;
                }
                response => response?,
            };
            match self.good(response) {
                Err(Error::Problem(problem))
                    if problem.code == Code::Stopping && Instant::now() < until =>
                {
                    std::thread::sleep(UPGRADE_RETRY);
                }
                answer => return answer,
            }
        }
    }

    /// As [`Client::call`], but the whole answer has to come in time: a connection that is dead
    /// without a word ends. It asks once.
    pub(crate) fn call_within(
        &self,
        patience: Duration,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Response<Body>, Error> {
        self.good(self.call_for(Some(patience), method, path, headers, body)?)
    }

    fn call_for(
        &self,
        patience: Option<Duration>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Response<Body>, Error> {
        let url = format!("{}{path}", self.url);
        let mut request = Request::builder().method(method).uri(&url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let odd = |what: String| Error::Odd { url: self.url.clone(), what };
        let unreachable =
            |source| Error::Unreachable { url: self.url.clone(), source: Box::new(source) };
        match body {
            Some(body) => {
                let request = request.body(body).map_err(|error| odd(error.to_string()))?;
                let request = self.agent.configure_request(request).timeout_global(patience);
                self.agent.run(request.build()).map_err(unreachable)
            }
            None => {
                let request = request.body(()).map_err(|error| odd(error.to_string()))?;
                let request = self.agent.configure_request(request).timeout_global(patience);
                self.agent.run(request.build()).map_err(unreachable)
            }
        }
    }

    /// The answer, or the problem that it is.
    fn good(&self, mut response: Response<Body>) -> Result<Response<Body>, Error> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = response.body_mut().with_config().limit(ANSWER).read_to_vec();
        let problem = bytes.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Err(match problem {
            Some(problem) => Error::Problem(Box::new(problem)),
            None => Error::Odd { url: self.url.clone(), what: format!("status {status}") },
        })
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, response: Response<Body>) -> Result<T, Error> {
        let odd = |what: String| Error::Odd { url: self.url.clone(), what };
        let bytes = self.bytes(response)?;
        let text = if bytes.is_empty() { b"null".as_slice() } else { &bytes };
        serde_json::from_slice(text).map_err(|error| odd(error.to_string()))
    }

    /// The body of an answer.
    pub(crate) fn bytes(&self, mut response: Response<Body>) -> Result<Vec<u8>, Error> {
        let bytes = response.body_mut().with_config().limit(ANSWER).read_to_vec();
        bytes.map_err(|error| match error {
            ureq::Error::Io(source) => Error::Broken { url: self.url.clone(), source },
            ureq::Error::Timeout(_) => {
                Error::Broken { url: self.url.clone(), source: std::io::ErrorKind::TimedOut.into() }
            }
            error => Error::Odd { url: self.url.clone(), what: error.to_string() },
        })
    }
}

#[cfg(test)]
mod tests;
