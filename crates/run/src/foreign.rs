//! A process that another platform has started, and that is spoken to in frozen messages alone: its
//! shim may be of any version.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tolv_sandbox::Launched;

use crate::control::FrozenControl;
use crate::maybe::maybe;
use crate::orphan::{Door, Orphan};
use crate::ports::Port;
use crate::protocol::frozen::{Exited, Hello, Order, Word};
use crate::pump::Pump;
use crate::session::{DEAF, exit_of, exit_timeout, known_port, stop_order};
use crate::shared::Shared;

/// One shim of another platform.
pub(crate) struct Foreign {
    control: FrozenControl,
    pub(crate) launched: Launched,
    door: Door,
    /// Its id as a writer of the log, if it said which.
    writer: Option<u64>,
    /// Its port, if it said which. Held until this is dropped.
    pub(crate) port: Option<Port>,
    /// When the shim itself is killed.
    pub(crate) deaf_at: Option<Instant>,
}

impl Foreign {
    /// The orphan is killed where this fails.
    pub(crate) fn adopt(orphan: Orphan, shared: &Shared, pump: &Pump) -> Result<Self, String> {
        let Orphan { hello, control, launched, door } = orphan;
        let control = FrozenControl::new(control).map_err(|error| {
            launched.kill();
            door.remove();
            format!("the control socket: {error}")
        })?;
        let (writer, port) = match hello {
            Some(Hello { writer, identity, written, .. }) => {
                pump.open_silent(writer, written);
                (Some(writer), Some(known_port(shared, identity.port)))
            }
            None => (None, None),
        };
        Ok(Self { control, launched, door, writer, port, deaf_at: None })
    }

    /// SIGTERM to the leader.
    pub(crate) fn terminate(&mut self, grace: Duration) {
        if !self.control.order(stop_order(grace)) {
            self.kill();
        }
    }

    /// SIGKILL to everything.
    pub(crate) fn kill(&mut self) {
        if self.control.order(Order::Stop { signal: libc::SIGKILL, grace_ms: 0 }) {
            self.deaf_at.get_or_insert(Instant::now() + DEAF);
        } else {
            self.launched.kill();
        }
    }

    /// The shim does not obey.
    pub(crate) fn force(&mut self) {
        self.deaf_at = None;
        self.launched.kill();
    }

    /// Waits for its end: nothing where the shim died without a word. May be dropped at any time.
    pub(crate) async fn exited(&self) -> Option<Exited> {
        loop {
            match self.control.word().await {
                Some(Word::Exited(exited)) => return Some(exited),
                Some(Word::Hello(_)) => {}
                None => return None,
            }
        }
    }

    /// Everything is gone.
    pub(crate) fn ended(&self, exited: Option<Exited>, pump: &Pump) {
        if let Some(writer) = self.writer {
            pump.ended(writer, exited.map(|exited| exited.written));
        }
        self.control.order(Order::Heard);
        self.door.remove();
        pump.say(format!("Process exited with {}", exit_of(exited)));
    }

    /// Waits for the end of one that was told to; SIGKILL after the grace period or once it is
    /// `killed`.
    pub(crate) async fn end(mut self, grace: Duration, killed: &CancellationToken, pump: &Pump) {
        let (mut late_at, mut killed) = (Some(Instant::now() + grace), Some(killed));
        loop {
            let deaf_at = self.deaf_at;
            tokio::select! {
                biased;
                exited = self.exited() => {
                    self.ended(exited, pump);
                    return;
                }
                () = maybe(late_at.map(sleep_until)) => {
                    late_at = None;
                    pump.say(exit_timeout(grace));
                    self.kill();
                }
                () = maybe(killed.map(CancellationToken::cancelled)) => {
                    killed = None;
                    self.kill();
                }
                () = maybe(deaf_at.map(sleep_until)) => self.force(),
            }
        }
    }
}
