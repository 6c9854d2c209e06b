//! The life of a run beside its deploy's operations: start, output, end, what is kept of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tolv_logs::Stream;
use tolv_model::id::{DeployId, RunId};
use tolv_model::run::{End, State};
use tolv_run::{Ending, Output, Reason, Running, Streams};

use super::live::{Live, Record};
use super::{KEPT, LINGER};
use crate::error::chain;
use crate::logs::Listener;
use crate::platform::Platform;

/// Most bytes of one read.
const READ: usize = 64 << 10;
/// For what is left in the pipes of a process that is gone.
const REST: Duration = Duration::from_secs(5);
/// For a reader to get the end of the output when the platform ends.
const LAST_READ: Duration = Duration::from_secs(5);
/// Between two tries to record an end while the database is away.
const AWAY: Duration = Duration::from_secs(1);

/// Where the output of a run is kept.
pub(super) fn record_key(deploy: &DeployId, id: &RunId) -> String {
    format!("{}/{id}.out", records(deploy))
}

/// Where those of a deploy are.
pub(super) fn records(deploy: &DeployId) -> String {
    format!("runs/{deploy}")
}

/// The task of a run.
pub(super) struct Life {
    pub(super) platform: Platform,
    pub(super) live: Arc<Live>,
    pub(super) running: Running,
    /// Of one that is detached.
    pub(super) listener: Option<Listener>,
}

impl Life {
    pub(super) async fn live(mut self) {
        let run = self.live.run();
        let mut readers = JoinSet::new();
        let started = (&mut self.running.started).await;
        let begun = started.is_ok();
        if let Ok((handle, streams)) = started {
            let input = streams.map(|Streams { input, outputs }| {
                for (stream, output) in outputs {
                    readers.spawn(read(Arc::clone(&self.live), stream, output));
                }
                input
            });
            self.live.started(input, handle).await;
            let store = &self.platform.0.store;
            // It is recorded with its end at the latest.
            store.run_started(&run.id, Timestamp::now()).await.ok();
        }
        let ended = match self.listener.take() {
            // Whoever attaches to a detached one hears it in the log.
            Some(listener) => {
                listener.until(&mut self.running.ended, |line| self.live.hear(line)).await
            }
            None => (&mut self.running.ended).await,
        };
        let ended = ended.unwrap_or(Err(tolv_run::Error::Stopped));
        // As soon as it is known: the end of the platform tells every process to end.
        let is_told = self.platform.0.ending.is_cancelled();
        self.live.gone();
        self.live.close().await;
        let rest = async { while readers.join_next().await.is_some() {} };
        timeout(REST, rest).await.ok();
        readers.abort_all();
        let (record, stopped_by) = self.live.result();
        let is_stopped = match &ended {
            Err(error) => matches!(error, tolv_run::Error::Stopped),
            Ok(ending) => ending.reason.is_none() && is_told,
        };
        if is_stopped && !begun && stopped_by.is_none() {
            // What stays of it, the next platform records as lost.
            self.platform.0.store.remove_run(&run.id).await.ok();
            self.live.never_began();
            self.platform.0.runs.remove(&run.id);
            self.platform.0.runs.say_over();
            return;
        }
        let is_told = is_told && stopped_by.is_none() && ended.is_ok();
        let mut end = end(&ended, begun, stopped_by);
        if is_told {
            let why = match self.platform.is_leaving() {
                true => "stopped: the platform is upgraded",
                false => "stopped: the platform ended",
            };
            add(&mut end.note, why.to_owned());
        }
        let recorded = self.keep(&run.deploy, &run.id, record, &mut end).await;
        let now = Timestamp::now();
        self.settle(&run.id, &end, recorded, now).await;
        self.live.over(&end, recorded, now);
        self.platform.0.runs.say_over();
        self.forget(&run.deploy).await;
        let ending = self.platform.0.ending.clone();
        if ending.run_until_cancelled(sleep(LINGER)).await.is_none() {
            timeout(LAST_READ, self.live.is_read()).await.ok();
        }
        self.platform.0.runs.remove(&run.id);
    }

    /// Keeps the output, where that was asked for: how much.
    async fn keep(
        &self,
        deploy: &DeployId,
        id: &RunId,
        record: Option<Record>,
        end: &mut End,
    ) -> Option<u64> {
        let Record { bytes, missed } = record?;
        let len = bytes.len() as u64;
        let key = record_key(deploy, id);
        let note = match self.platform.keep_output(deploy, &key, bytes).await {
            Ok(()) if missed == 0 => return Some(len),
            Ok(()) => format!("{missed} more bytes of its output are not kept"),
            Err(error) => {
                add(&mut end.note, format!("its output is not kept: {}", chain(&error)));
                return None;
            }
        };
        add(&mut end.note, note);
        Some(len)
    }

    /// Records the end, when the database is there again at the latest.
    async fn settle(&self, id: &RunId, end: &End, recorded: Option<u64>, now: Timestamp) {
        let inner = &self.platform.0;
        loop {
            match inner.store.end_run(id, end, recorded, now).await {
                Err(error) if error.is_unavailable() && !inner.ending.is_cancelled() => {
                    sleep(AWAY).await;
                }
                // The next platform finds it under way, and says that it is lost.
                Ok(()) | Err(_) => return,
            }
        }
    }

    async fn forget(&self, deploy: &DeployId) {
        let inner = &self.platform.0;
        // What stays now goes the next time.
        for id in inner.store.forget_runs(deploy, KEPT).await.unwrap_or_default() {
            inner.blobs.delete(&record_key(deploy, &id)).await.ok();
        }
    }
}

async fn read(live: Arc<Live>, stream: Stream, output: Output) {
    let mut buffer = vec![0; READ];
    loop {
        let room = live.room().await.min(READ);
        match output.read(&mut buffer[..room]).await {
            Ok(0) | Err(_) => return,
            Ok(read) => live.push(stream, &buffer[..read]),
        }
    }
}

fn end(ended: &Result<Ending, tolv_run::Error>, begun: bool, stopped_by: Option<String>) -> End {
    let mut end = match ended {
        Ok(Ending { exit, reason, .. }) => {
            let note = reason.as_ref().map(|reason| match reason {
                Reason::CommandNotFound(_) if exit.status() == 126 => {
                    "its command cannot be executed".to_owned()
                }
                Reason::CommandNotFound(_) => "its command was not found".to_owned(),
                other => other.to_string(),
            });
            let status = u8::try_from(exit.status()).ok();
            End { state: State::Ended, status, note }
        }
        Err(tolv_run::Error::Stopped) if begun => {
            End { state: State::Lost, status: None, note: Some("the platform ended".to_owned()) }
        }
        Err(error) => {
            let note = Some(chain(error));
            End { state: State::Failed, status: None, note }
        }
    };
    if let Ok(Ending { late: true, .. }) = ended {
        add(&mut end.note, "it did not end in time".to_owned());
    }
    if let Some(actor) = stopped_by {
        add(&mut end.note, format!("stopped by {actor}"));
    }
    end
}

fn add(note: &mut Option<String>, text: String) {
    *note = Some(match note.take() {
        None => text,
        Some(before) => format!("{before}; {text}"),
    });
}
