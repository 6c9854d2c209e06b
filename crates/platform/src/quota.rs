//! How much the processes of one deploy may take together: no deploy takes the whole machine.
//!
//! | what | processes and threads | memory |
//! |---|---|---|
//! | the formation | half of all apps' budget, with the one-offs | all apps' budget |
//! | one-offs: runs, schedules, the release phase | half, with the formation | all apps' budget, for what each asks beyond the default |
//!
//! A codebase's own platform has no neighbours, and no quota.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tolv_model::formation::Formation;
use tolv_model::id::DeployId;
use tolv_model::name::Deploy as DeployPath;
use tolv_model::size::show_bytes;
use tolv_run::{Target, TypeLimits};
use tolv_sandbox::Limits;

use super::error::Error;
use super::sizing::Shares;

/// What several processes may take together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    memory: u64,
    processes: u64,
}

impl Total {
    /// What `count` processes with these limits may take.
    fn of(limits: &Limits, count: u64) -> Self {
        Self {
            memory: limits.memory.unwrap_or(0).saturating_mul(count),
            processes: limits.processes.unwrap_or(0).saturating_mul(count),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_add(other.memory),
            processes: self.processes.saturating_add(other.processes),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_sub(other.memory),
            processes: self.processes.saturating_sub(other.processes),
        }
    }

    /// What the formation of a target may take.
    fn of_target(target: &Target) -> Self {
        Self::of_formation(&target.release.formation, &target.limits)
    }

    fn of_formation(formation: &Formation, limits: &TypeLimits) -> Self {
        let quantities = formation.0.iter();
        let totals = quantities.map(|(kind, &count)| Self::of(limits.of(kind), u64::from(count)));
        totals.fold(Self::default(), Self::plus)
    }
}

/// The quota of each deploy, and what the one-offs of each may take now.
#[derive(Debug)]
pub(super) struct Quota {
    most: Total,
    /// Memory of a process of which nothing is said.
    usual_memory: u64,
    one_offs: Mutex<HashMap<DeployId, Total>>,
}

/// Room for one one-off, until this is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    quota: Arc<Quota>,
    deploy: DeployId,
    total: Total,
}

impl Quota {
    /// From the budget of all apps; without one nothing is refused.
    pub(super) fn new(shares: Option<&Shares>) -> Arc<Self> {
        let budget = shares.map(|shares| shares.budget).unwrap_or_default();
        let usual_memory = shares.map_or(0, Shares::default_memory);
        let most = Total {
            memory: budget.memory.unwrap_or(u64::MAX),
            processes: budget.processes.map_or(u64::MAX, |count| count / 2),
        };
        Arc::new(Self { most, usual_memory, one_offs: Mutex::default() })
    }

    fn one_offs(&self) -> MutexGuard<'_, HashMap<DeployId, Total>> {
        self.one_offs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a formation that may take too much.
    pub(super) fn check(
        &self,
        deploy: &DeployId,
        name: &DeployPath,
        formation: &Formation,
        limits: &TypeLimits,
    ) -> Result<(), Error> {
        let formation = Total::of_formation(formation, limits);
        let beside = self.one_offs().get(deploy).copied().unwrap_or_default();
        let processes = formation.plus(beside).processes;
        self.compare(name, formation.memory, processes)
    }

    /// Refuses a target whose formation may take too much.
    pub(super) fn check_target(&self, deploy: &DeployId, target: &Target) -> Result<(), Error> {
        let release = &target.release;
        self.check(deploy, &release.deploy, &release.formation, &target.limits)
    }

    /// Bytes of memory that the formation of a deploy may take.
    pub(super) fn memory(&self) -> u64 {
        self.most.memory
    }

    /// Reserves room for a one-off beside the formation of its target and the other one-offs.
    pub(super) fn reserve(
        self: &Arc<Self>,
        deploy: &DeployId,
        target: &Target,
        limits: &Limits,
    ) -> Result<Reservation, Error> {
        let mut total = Total::of(limits, 1);
        total.memory = total.memory.saturating_sub(self.usual_memory);
        let mut one_offs = self.one_offs();
        let now = one_offs.get(deploy).copied().unwrap_or_default().plus(total);
        let processes = Total::of_target(target).plus(now).processes;
        self.compare(&target.release.deploy, now.memory, processes)?;
        one_offs.insert(deploy.clone(), now);
        Ok(Reservation { quota: Arc::clone(self), deploy: deploy.clone(), total })
    }

    fn compare(&self, deploy: &DeployPath, memory: u64, processes: u64) -> Result<(), Error> {
        let (what, asked, most) = if memory > self.most.memory {
            ("of memory", show_bytes(memory), show_bytes(self.most.memory >> 20 << 20))
        } else if processes > self.most.processes {
            ("processes and threads", processes.to_string(), self.most.processes.to_string())
        } else {
            return Ok(());
        };
        Err(Error::OverQuota { deploy: deploy.clone(), what, asked, most })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut one_offs = self.quota.one_offs();
        let left = one_offs.get(&self.deploy).copied().unwrap_or_default().minus(self.total);
        match left == Total::default() {
            true => one_offs.remove(&self.deploy),
            false => one_offs.insert(self.deploy.clone(), left),
        };
    }
}
