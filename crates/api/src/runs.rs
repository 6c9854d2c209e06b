//! One-off runs on the wire, and the calls that carry their streams.
//!
//! Output comes as frames: one byte for what it is (1 standard output, 2 standard error, 3 the end,
//! as the run in JSON), four bytes for its length, the most significant first, and so many bytes.
//! The header `tolv-from` says where the bytes begin; only those of 1 and 2 count.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tolv_model::run::{Argv, Connection, State};
use utoipa::ToSchema;

use crate::client::{Client, Error};
use crate::{Code, Value};

/// The media type of output.
pub const FRAMES: &str = "application/vnd.tolv.frames";
/// Where output begins.
pub const FROM: &str = "tolv-from";
/// Bytes of a frame's head.
const HEAD: usize = 5;
/// Longest that the platform lets a reader wait.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long an answer with output may wait for some.
const WAIT: Duration = Duration::from_secs(25);
/// For an answer to come: more than any of them waits.
const PATIENCE: Duration = Duration::from_secs(50);

/// How often a run is asked for where nobody answers, and where the first request goes on.
const BEGINS: (u32, u32) = (3, 60);
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(200);

/// A run to be begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRun {
    /// The command's words, executed as they are; one that is not UTF-8 is the list of its bytes.
    #[schema(value_type = Vec<String>)]
    pub argv: Argv,
    /// Variables over those of the release.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Value>,
    /// The current release without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u32>,
    /// Gives it a terminal; without one it has pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
    /// Nothing comes in, and its output goes to the log.
    #[serde(default)]
    pub detach: bool,
    /// Keeps its output, up to 4 MiB.
    #[serde(default)]
    pub record: bool,
    /// What it asks for over the limits of `run`: `1G`, `memory=1G,cpu=2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
}

/// A terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
    /// Its kind: `TERM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<String>,
}

/// A one-off run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// Which.
    pub id: String,
    /// Of which deploy.
    pub deploy: String,
    /// Its name in the log: `run.3`.
    pub process: String,
    /// With what it runs.
    pub release: u32,
    /// Who asked for it.
    pub actor: String,
    /// The command's words; the program alone for whoever may not run it.
    #[schema(value_type = Vec<String>)]
    pub argv: Argv,
    /// Names of the variables that were set for it.
    pub env: Vec<String>,
    /// terminal, pipes or detached.
    #[schema(value_type = String)]
    pub connection: Connection,
    /// starting, up, ended, failed (never ran) or lost (with the platform).
    #[schema(value_type = String)]
    pub state: State,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it ran.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started: Option<Timestamp>,
    /// When it was over.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Timestamp>,
    /// Its exit status; 128 and the signal's number where one ended it.
    pub status: Option<u8>,
    /// What there is to say of it beside that.
    pub note: Option<String>,
    /// How many bytes of its output are kept, where that was asked for.
    pub recorded: Option<u64>,
}

/// How much of its input a run has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunInput {
    /// Bytes since its start.
    pub taken: u64,
    /// Nothing more will be taken.
    pub closed: bool,
}

/// Streams that were taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunAttachment {
    /// To be sent with each read and write, so that they fail once somebody else takes over.
    pub attached: u32,
    /// Up to where the output has arrived.
    pub from: u64,
    /// How much input was taken.
    pub taken: u64,
}

/// A new size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// A signal for a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunSignal {
    /// HUP, INT, QUIT, KILL, USR1, USR2, TERM or CONT.
    pub signal: String,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Standard output, or a terminal.
    Out,
    /// Standard error.
    Err,
    /// The end.
    Over,
}

impl Frame {
    /// Appends a frame.
    pub fn put(self, bytes: &[u8], to: &mut Vec<u8>) {
        let kind = match self {
            Self::Out => 1,
            Self::Err => 2,
            Self::Over => 3,
        };
        to.push(kind);
        to.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        to.extend_from_slice(bytes);
    }

    /// Takes the first frame off; nothing where there is no whole one.
    pub fn take<'a>(from: &mut &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = from.split_at_checked(HEAD)?;
        let kind = match head[0] {
            1 => Self::Out,
            2 => Self::Err,
            3 => Self::Over,
            _ => return None,
        };
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let (bytes, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
        *from = rest;
        Some((kind, bytes))
    }
}

/// Some output of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutput {
    /// Where it begins; bytes before it are not kept.
    pub from: u64,
    /// The bytes of both streams.
    pub pieces: Vec<(Frame, Vec<u8>)>,
    /// The run, where this is its last output.
    pub over: Option<Run>,
}

impl Client {
    /// Begins a run: once, also where the answer got lost and it is asked for again.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`].
    pub fn begin_run(&self, deploy: &str, new: &NewRun, key: &str) -> Result<Run, Error> {
        let body = serde_json::to_vec(new)
            .map_err(|error| Error::Odd { url: self.url().to_owned(), what: error.to_string() })?;
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let path = format!("{deploy}/runs");
        let mut tries = 0;
        loop {
            let answer = self.call("POST", &path, &headers, Some(body.clone()));
            let error = match answer.and_then(|answer| self.read(answer)) {
                Ok(run) => return Ok(run),
                Err(error) => error,
            };
            tries += 1;
            let again = match &error {
                error if error.may_come_back() => tries < BEGINS.0,
                // The first request, whose answer got lost, is being done still.
                Error::Problem(problem) => {
                    tries > 1 && problem.code == Code::Refused && tries < BEGINS.1
                }
                _ => false,
            };
            if !again {
                return Err(error);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Takes the streams of a run over.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`].
    pub fn attach_run(&self, id: &str) -> Result<RunAttachment, Error> {
        self.send("POST", &format!("/v1/runs/{id}/attach"), &serde_json::json!({}))
    }

    /// Output from a place on; nothing of it after a while without any.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`].
    pub fn run_output(&self, id: &str, from: u64, attached: u32) -> Result<RunOutput, Error> {
        let wait = WAIT.as_secs();
        let path = format!("/v1/runs/{id}/output?from={from}&attached={attached}&wait={wait}");
        let response = self.call_within(PATIENCE, "GET", &path, &[], None)?;
        let odd = |what: &str| Error::Odd { url: self.url().to_owned(), what: what.to_owned() };
        let from = response.headers().get(FROM).and_then(|text| text.to_str().ok()?.parse().ok());
        let from = from.ok_or_else(|| odd("output without a place"))?;
        let bytes = self.bytes(response)?;
        let (mut rest, mut pieces, mut over) = (bytes.as_slice(), Vec::new(), None);
        while let Some((kind, bytes)) = Frame::take(&mut rest) {
            match kind {
                Frame::Out | Frame::Err => pieces.push((kind, bytes.to_vec())),
                Frame::Over => {
                    let run = serde_json::from_slice(bytes);
                    over = Some(run.map_err(|error| odd(&error.to_string()))?);
                }
            }
        }
        match rest.is_empty() {
            true => Ok(RunOutput { from, pieces, over }),
            false => Err(odd("a frame that is not whole")),
        }
    }

    /// Gives a run input that begins at a place, and says with `end` that it is the last.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`].
    pub fn run_input(
        &self,
        id: &str,
        at: u64,
        bytes: &[u8],
        end: bool,
        attached: u32,
    ) -> Result<RunInput, Error> {
        let path = format!("/v1/runs/{id}/input?at={at}&end={end}&attached={attached}");
        let headers = [("content-type", "application/octet-stream")];
        self.read(self.call_within(PATIENCE, "POST", &path, &headers, Some(bytes.to_vec()))?)
    }

    /// What is kept of a run's output.
    ///
    /// # Errors
    ///
    /// Every variant of [`Error`].
    pub fn run_record(&self, id: &str) -> Result<Vec<u8>, Error> {
        let path = format!("/v1/runs/{id}/record");
        let response = self.call("GET", &path, &[], None)?;
        self.bytes(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back_and_cut_ones_are_none() {
        let mut bytes = Vec::new();
        Frame::Out.put(b"abc", &mut bytes);
        Frame::Err.put(b"", &mut bytes);
        Frame::Over.put(b"{}", &mut bytes);
        for cut in 0..bytes.len() {
            let mut rest = &bytes[..cut];
            let mut count = 0;
            while Frame::take(&mut rest).is_some() {
                count += 1;
            }
            assert_eq!(count, usize::from(cut >= 8) + usize::from(cut >= 13), "{cut}");
        }
        let mut rest = bytes.as_slice();
        assert_eq!(Frame::take(&mut rest), Some((Frame::Out, b"abc".as_slice())));
        assert_eq!(Frame::take(&mut rest), Some((Frame::Err, b"".as_slice())));
        assert_eq!(Frame::take(&mut rest), Some((Frame::Over, b"{}".as_slice())));
        assert_eq!(Frame::take(&mut rest), None);
        assert_eq!(Frame::take(&mut b"\x09\0\0\0\0".as_slice()), None);
    }
}
