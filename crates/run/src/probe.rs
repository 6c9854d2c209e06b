//! Whether a process is ready, and whether it still works.
//!
//! Without a check in app.json, a web process is ready when anything that speaks HTTP answers on
//! its port, whatever the status; any other is when it has run for a while. The checks of
//! app.json take the place of that. A boot has its own time-out; nothing here knows it.

mod http;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tolv_model::health::{CheckAction, CheckKind, HealthCheck};
use tolv_model::shortage::Shortage;
use tolv_sandbox::{Cancel, Job, Network, run};

use crate::connector::Connector;
use crate::plan::Plan;
use crate::shared::Shared;

/// Pauses between two tries of a port grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// For one answer where no check says how long: a slow first page is no failure.
const ANSWER: Duration = Duration::from_secs(30);

/// What a probe found.
#[derive(Debug)]
pub(crate) enum Probed {
    /// It is ready, and listens here if it is known.
    Ready(Option<SocketAddr>),
    /// A check with a consequence failed.
    Failed(String),
}

/// One start that is probed.
#[derive(Clone)]
pub(crate) struct Probe {
    pub(crate) shared: Arc<Shared>,
    pub(crate) plan: Plan,
    pub(crate) port: u16,
    pub(crate) connector: Connector,
    /// Whether something was missing here in the last attempt: that says nothing of the process.
    pub(crate) was_short: Arc<AtomicBool>,
}

impl Probe {
    fn checks(&self) -> &[HealthCheck] {
        let checks = self.plan.target.checks.get(&self.plan.name.process_type);
        checks.map_or(&[], Vec::as_slice)
    }

    /// Ends when the process is ready, or a check has failed.
    pub(crate) async fn ready(self, warn: impl Fn(String)) -> Probed {
        let before = self.checks().iter().filter(|check| check.kind != CheckKind::Liveness);
        let checks: Vec<_> = before.collect();
        if checks.is_empty() {
            return Probed::Ready(self.without_check().await);
        }
        let mut address = None;
        for check in checks {
            sleep(check.initial_delay).await;
            match self.attempts(check).await {
                Ok(found) => address = address.or(found),
                Err(why) if check.warn_only => warn(described(check, &why)),
                Err(why) => return Probed::Failed(described(check, &why)),
            }
        }
        Probed::Ready(address)
    }

    /// Ends when a liveness check with a consequence has failed.
    pub(crate) async fn alive(self, warn: impl Fn(String)) -> Probed {
        let checks: Vec<_> =
            self.checks().iter().filter(|check| check.kind == CheckKind::Liveness).collect();
        let Some(pause) = checks.iter().map(|check| check.wait).min() else {
            return std::future::pending().await;
        };
        let delay = checks.iter().map(|check| check.initial_delay).max().unwrap_or_default();
        sleep(delay).await;
        loop {
            // A pause of zero would be a busy loop.
            sleep(pause.max(PAUSES.1)).await;
            for check in &checks {
                match self.attempts(check).await {
                    Ok(_) => {}
                    Err(why) if check.warn_only => warn(described(check, &why)),
                    Err(why) => return Probed::Failed(described(check, &why)),
                }
            }
        }
    }

    async fn without_check(&self) -> Option<SocketAddr> {
        if !self.plan.name.process_type.is_web() {
            sleep(self.shared.settings.timing.uptime).await;
            return None;
        }
        let mut pause = PAUSES.0;
        loop {
            for address in addresses(self.port) {
                let answers = async { http::answers(self.connect(address).await?, address).await };
                if let Ok(Ok(())) = timeout(ANSWER, answers).await {
                    return Some(address);
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    async fn connect(&self, address: SocketAddr) -> Result<TcpStream, String> {
        self.connector.connect(address).await.map_err(|error| {
            self.note(Shortage::of(&error));
            error.to_string()
        })
    }

    fn note(&self, shortage: Option<Shortage>) {
        if shortage.is_some() {
            self.was_short.store(true, Ordering::Relaxed);
        }
    }

    async fn listens(&self, address: SocketAddr) -> Result<(), String> {
        self.connect(address).await.map(drop)
    }

    async fn attempts(&self, check: &HealthCheck) -> Result<Option<SocketAddr>, String> {
        let mut outcome = Err(String::new());
        let mut left = check.attempts.max(1);
        while left > 0 {
            self.was_short.store(false, Ordering::Relaxed);
            outcome = match &check.action {
                // Its time is the check itself.
                CheckAction::Uptime(time) => {
                    sleep(*time).await;
                    Ok(None)
                }
                action => match timeout(check.timeout, self.once(action, check.timeout)).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(format!("no answer within {:?}", check.timeout)),
                },
            };
            if outcome.is_ok() {
                break;
            }
            if self.was_short.load(Ordering::Relaxed) {
                sleep(PAUSES.1).await;
                continue;
            }
            left -= 1;
            if left > 0 {
                self.pause(check).await;
            }
        }
        outcome
    }

    /// Between two attempts: `wait`, or less where the port has only now begun to listen. No more:
    /// to one that hangs, and whose queue is full, a connection is neither made nor refused.
    async fn pause(&self, check: &HealthCheck) {
        let port = match &check.action {
            CheckAction::Http { port, .. } | CheckAction::Listening { port } => {
                port.unwrap_or(self.port)
            }
            CheckAction::Command(_) | CheckAction::Uptime(_) => return sleep(check.wait).await,
        };
        let listens =
            || async move { self.first(port, |address| self.listens(address)).await.is_ok() };
        let begins = async {
            if listens().await {
                // It answered, and not as it should: it gets the time that it asks for.
                return sleep(check.wait).await;
            }
            let mut pause = PAUSES.0;
            while !listens().await {
                sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
        };
        timeout(check.wait, begins).await.ok();
    }

    async fn once(
        &self,
        action: &CheckAction,
        limit: Duration,
    ) -> Result<Option<SocketAddr>, String> {
        match action {
            CheckAction::Http { path, port, headers, content } => {
                let port = port.unwrap_or(self.port);
                let request = http::Request { path, headers, content: content.as_deref() };
                let send = |address| async move {
                    request.send(self.connect(address).await?, address).await
                };
                let address = self.first(port, send).await?;
                Ok(Some(address).filter(|_| port == self.port))
            }
            CheckAction::Listening { port } => {
                let port = port.unwrap_or(self.port);
                let address = self.first(port, |address| self.listens(address)).await?;
                Ok(Some(address).filter(|_| port == self.port))
            }
            CheckAction::Command(argv) => self.command(argv, limit).await.map(|()| None),
            CheckAction::Uptime(_) => Ok(None),
        }
    }

    /// The first address of the port that works; what the first one said, if none does.
    async fn first<F: Future<Output = Result<(), String>>>(
        &self,
        port: u16,
        look: impl Fn(SocketAddr) -> F,
    ) -> Result<SocketAddr, String> {
        let mut first = None;
        for address in addresses(port) {
            match look(address).await {
                Ok(()) => return Ok(address),
                Err(why) => {
                    first.get_or_insert(why);
                }
            }
        }
        Err(first.unwrap_or_default())
    }

    /// Runs a program in a sandbox like the process's own.
    async fn command(&self, argv: &[String], limit: Duration) -> Result<(), String> {
        let settings = &self.shared.settings;
        let exec =
            self.plan.beside(settings, self.port, argv).map_err(|error| error.to_string())?;
        let mut spec = self.plan.spec(settings, self.port);
        if let Some(network) = self.connector.network() {
            spec.network = Network::Joined { namespace: Some(network.clone()) };
        }
        let job = Job { spec, exec, time_limit: Some(limit) };
        let cancel = Cancel::new().map_err(|error| {
            self.note(Shortage::of(&error));
            error.to_string()
        });
        let cancel = CancelOnDrop(cancel?);
        let (spawner, pulled) = (settings.spawner.clone(), cancel.0.clone());

        // Among the engine's tasks: its stop waits for this program too.
        let ended =
            self.shared.tasks.spawn_blocking(move || run(&spawner, &job, &mut |_, _| {}, &pulled));
        match ended.await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(match (status.code, status.signal) {
                (Some(code), _) => format!("`{}` exited with status {code}", argv.join(" ")),
                (_, signal) => {
                    format!("`{}` was ended by signal {}", argv.join(" "), signal.unwrap_or(0))
                }
            }),
            Ok(Err(error)) => {
                self.note(error.shortage());
                Err(error.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Ends the program when nobody waits for it any more.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

fn addresses(port: u16) -> [SocketAddr; 2] {
    [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]
}

fn described(check: &HealthCheck, why: &str) -> String {
    match (&check.name, &check.action) {
        (Some(name), _) => format!("{name}: {why}"),
        (None, CheckAction::Http { path, .. }) => format!("GET {path}: {why}"),
        (None, CheckAction::Listening { .. }) => format!("not listening: {why}"),
        (None, CheckAction::Command(_) | CheckAction::Uptime(_)) => why.to_owned(),
    }
}

#[cfg(test)]
mod tests;
