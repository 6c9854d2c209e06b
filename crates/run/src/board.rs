//! Who runs: the handles of all processes of an engine, and what others see of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tolv_model::name::{ProcessName, ProcessType};

use crate::connector::Connector;
use crate::plan::Plan;
use crate::target::{Endpoint, Endpoints, ProcessState};

/// What a process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// It was switched to: from now on it is restarted when it fails.
    Keep,
    Stop,
    /// The next engine on the folder goes on with it; one that ends with this one is stopped.
    Leave,
    Kill,
}

#[derive(Debug)]
pub(crate) struct Board {
    state: Mutex<State>,
    endpoints: watch::Sender<Endpoints>,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing starts any more.
    ending: bool,
    last_id: u64,
    handles: BTreeMap<u64, Handle>,
}

struct Handle {
    plan: Plan,
    kind: Kind,
    stopping: bool,
    commands: mpsc::UnboundedSender<Command>,
}

/// What a process is to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One of the formation.
    Formation,
    /// One of the formation that another version or other settings have started: it runs until one
    /// of [`Kind::Formation`] is up in its place.
    Outdated,
    /// Outside the formation.
    OneOff,
}

/// A process that stays until it is told to stop.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) id: u64,
    pub(crate) plan: Plan,
    pub(crate) outdated: bool,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.plan.name)
    }
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), endpoints: watch::Sender::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Endpoints> {
        self.endpoints.subscribe()
    }

    pub(crate) fn next_id(&self) -> u64 {
        let mut state = self.lock();
        state.last_id += 1;
        state.last_id
    }

    /// Puts a process on the board; nothing where the engine ends.
    pub(crate) fn add(
        &self,
        id: u64,
        plan: &Plan,
        kind: Kind,
    ) -> Option<mpsc::UnboundedReceiver<Command>> {
        let (commands, received) = mpsc::unbounded_channel();
        let mut state = self.lock();
        if state.ending {
            return None;
        }
        let handle = Handle { plan: plan.clone(), kind, stopping: false, commands };
        state.handles.insert(id, handle);
        if kind != Kind::OneOff {
            let endpoint = Endpoint {
                process: plan.name.clone(),
                id,
                release: plan.target.release.number,
                state: ProcessState::Starting,
                routed: false,
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                connector: Connector::nowhere(),
                pid: None,
                restarts: 0,
                limits: plan.limits().clone(),
            };
            self.endpoints.send_modify(|endpoints| {
                let key = (&endpoint.process, id);
                let place = endpoints.processes.partition_point(|p| (&p.process, p.id) < key);
                endpoints.processes.insert(place, endpoint);
            });
        }
        Some(received)
    }

    pub(crate) fn remove(&self, id: u64) {
        self.lock().handles.remove(&id);
        self.endpoints.send_if_modified(|endpoints| {
            let before = endpoints.processes.len();
            endpoints.processes.retain(|process| process.id != id);
            endpoints.processes.len() < before
        });
    }

    /// Changes what others see of a process.
    pub(crate) fn update(&self, id: u64, change: impl FnOnce(&mut Endpoint)) {
        self.endpoints.send_if_modified(|endpoints| {
            let found = endpoints.processes.iter_mut().find(|process| process.id == id);
            found.is_some_and(|process| {
                let before = process.clone();
                change(process);
                *process != before
            })
        });
    }

    /// The processes of the formation that were not told to stop.
    pub(crate) fn current(&self) -> Vec<Current> {
        let state = self.lock();
        let staying = state.handles.iter().filter(|(_, handle)| handle.stays());
        let current = |(&id, Handle { plan, kind, .. }): (_, &Handle)| Current {
            id,
            plan: plan.clone(),
            outdated: *kind == Kind::Outdated,
        };
        staying.map(current).collect()
    }

    /// The types of the formation of which one is to stay.
    pub(crate) fn staying(&self) -> BTreeSet<ProcessType> {
        let state = self.lock();
        let staying = state.handles.values().filter(|handle| handle.stays());
        staying.map(|handle| handle.plan.name.process_type.clone()).collect()
    }

    /// Those of the formation that were told to stop, and have not ended.
    pub(crate) fn stopping(&self) -> Vec<ProcessName> {
        let state = self.lock();
        let is_one = |handle: &&Handle| handle.kind != Kind::OneOff && handle.stopping;
        state.handles.values().filter(is_one).map(|handle| handle.plan.name.clone()).collect()
    }

    /// Whether one of the formation is to be replaced.
    pub(crate) fn has_outdated(&self) -> bool {
        let is_one = |handle: &Handle| handle.kind == Kind::Outdated && handle.stays();
        self.lock().handles.values().any(is_one)
    }

    /// Sends the requests to these alone; returns the web processes that had them until now.
    pub(crate) fn switch(&self, to: &BTreeSet<u64>) -> Vec<Endpoint> {
        let mut before = Vec::new();
        self.endpoints.send_modify(|endpoints| {
            for process in &mut endpoints.processes {
                let routed = to.contains(&process.id);
                if process.routed && !routed && process.process.process_type.is_web() {
                    before.push(process.clone());
                }
                process.routed = routed;
            }
        });
        before
    }

    pub(crate) fn tell(&self, id: u64, command: Command) {
        if let Some(handle) = self.lock().handles.get_mut(&id) {
            handle.tell(command);
        }
    }

    /// Tells everyone, and lets nobody start any more.
    pub(crate) fn end(&self, command: Command) {
        let mut state = self.lock();
        state.ending = true;
        for handle in state.handles.values_mut() {
            handle.tell(command);
        }
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.lock().ending
    }
}

impl Handle {
    fn stays(&self) -> bool {
        self.kind != Kind::OneOff && !self.stopping
    }

    fn tell(&mut self, command: Command) {
        self.stopping |= command != Command::Keep;
        // Gone already: its end is on its way.
        self.commands.send(command).ok();
    }
}

#[cfg(test)]
mod tests;
