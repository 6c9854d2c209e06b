//! Packet rules that were lost are loaded again, by an nft that runs beside everything else. While
//! they are not in force, the ends of their networks are shut.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::super::nft::Run;
use super::super::rules_state::are_in_force;
use super::table::{Table, load};
use super::{HostNetwork, gate, say};
use crate::level::Reason;
use crate::reap::Ended;

/// Until rules that could not be loaded are tried again.
const RETRY_DELAY: Duration = Duration::from_millis(250);
/// After this nft is late: the ends are not shut while it takes some milliseconds.
const LATE: Duration = Duration::from_millis(50);
/// Between two looks at an nft that is waited for.
const LOOK_DELAY: Duration = Duration::from_millis(5);

/// Tables that are to be loaded again.
#[derive(Debug, Default)]
pub(super) struct Reload {
    /// Those that wait for the next nft.
    lost: Vec<Table>,
    loading: Option<Loading>,
    /// Networks whose ends are shut, or may be.
    shut: BTreeSet<u32>,
    /// Whether somebody has changed rules, which is told when they are back.
    is_told: bool,
    /// Why the last try failed, and when.
    failed: Option<(Reason, Instant)>,
}

/// What one nft loads.
#[derive(Debug)]
struct Loading {
    tables: Vec<Table>,
    nft: Run,
    is_late: bool,
}

impl Reload {
    /// Rules of spawners that are gone, which nobody has watched meanwhile. Their ends may be shut since
    /// that time.
    pub(super) fn adopt(&mut self, tables: Vec<Table>) {
        self.shut.extend(tables.iter().map(|table| table.id));
        self.lose(tables);
    }

    fn lose(&mut self, tables: Vec<Table>) {
        self.lost.extend(tables);
        self.lost.sort_unstable_by_key(|table| table.id);
        self.lost.dedup();
    }

    fn loading(&self) -> &[Table] {
        self.loading.as_ref().map_or(&[], |loading| &loading.tables)
    }

    /// Why no app may be connected to a network now.
    pub(super) fn refusal(&self, id: u32) -> Option<Reason> {
        let mut waiting = self.lost.iter().chain(self.loading());
        waiting.any(|table| table.id == id).then(|| match &self.failed {
            Some((Reason { stage, errno }, _)) => {
                Reason::new(format!("load packet rules: {stage}"), *errno)
            }
            None => Reason::new("packet rules are being loaded", libc::EAGAIN),
        })
    }

    /// Whether rules are on their way and worth waiting for: no try has failed before, or this one is
    /// not late.
    pub(super) fn is_promising(&self) -> bool {
        match &self.loading {
            Some(loading) => self.failed.is_none() || !loading.is_late,
            None => self.failed.is_none() && !self.lost.is_empty(),
        }
    }

    pub(super) fn loader(&self) -> Option<Pid> {
        self.loading.as_ref().map(|loading| loading.nft.pid())
    }

    pub(super) fn loader_ended(&mut self, ended: Ended) {
        if let Some(loading) = &mut self.loading {
            loading.nft.collected(ended);
        }
    }

    /// Readable when nft has printed something.
    pub(super) fn output(&self) -> Option<BorrowedFd<'_>> {
        self.loading.as_ref()?.nft.output()
    }

    /// Until there is something to do, whatever happens.
    pub(super) fn next(&self) -> Option<Duration> {
        if let Some(Loading { nft, is_late, .. }) = &self.loading {
            let left = nft.time_left();
            return Some(if *is_late {
                left
            } else {
                LATE.saturating_sub(nft.elapsed()).min(left)
            });
        }
        if self.lost.is_empty() {
            return None;
        }
        let failed = self.failed.as_ref();
        Some(failed.map_or(Duration::ZERO, |(_, at)| RETRY_DELAY.saturating_sub(at.elapsed())))
    }
}

impl HostNetwork {
    /// Puts the rules back where somebody else has changed or removed them, as the machine's firewall
    /// does when it is loaded anew: without them nothing would be refused. Never waits:
    /// [`Reload::next`] says when there is more to do.
    pub(crate) fn mend(&mut self) {
        self.look_at_nft();
        let mut lost = self.lost();
        if !lost.is_empty() {
            // Of what is being loaded it is asked at the end whether it is there.
            lost.retain(|table| !self.reload.loading().contains(table));
            self.reload.is_told |= !lost.is_empty();
            self.reload.lose(lost);
        }
        if self.reload.loading.is_none() && self.reload.next() == Some(Duration::ZERO) {
            self.start_nft();
        }
    }

    /// Waits until no rules are lost, they are not worth waiting for, or the time is over.
    pub(super) fn settle(&mut self, limit: Duration) {
        let until = Instant::now() + limit;
        self.mend();
        while self.reload.is_promising() && Instant::now() < until {
            std::thread::sleep(LOOK_DELAY);
            self.mend();
        }
    }

    fn start_nft(&mut self) {
        let tables = std::mem::take(&mut self.reload.lost);
        match load(&tables) {
            Ok(nft) => self.reload.loading = Some(Loading { tables, nft, is_late: false }),
            Err(reason) => self.not_loaded(tables, reason),
        }
    }

    fn look_at_nft(&mut self) {
        let Some(loading) = &mut self.reload.loading else { return };
        match loading.nft.look() {
            None => {
                if !loading.is_late && loading.nft.elapsed() >= LATE {
                    loading.is_late = true;
                    let mut late = loading.tables.clone();
                    late.retain(|table| !are_in_force(table.id));
                    for table in late {
                        // What fails now is tried once more when nft has ended.
                        self.shut(table).ok();
                    }
                }
            }
            Some(done) => {
                let Some(Loading { tables, .. }) = self.reload.loading.take() else { return };
                match done {
                    Ok(()) => self.loaded(tables),
                    Err(reason) => self.not_loaded(tables, reason),
                }
            }
        }
    }

    fn loaded(&mut self, tables: Vec<Table>) {
        // That nft has made them is no news; what became of the others is.
        let mut lost = self.lost();
        lost.retain(|table| !tables.contains(table));
        self.reload.lose(lost);
        let mut failed = None;
        for table in tables {
            // Somebody has removed it at once, or nft did nothing.
            let done = match are_in_force(table.id) {
                true => self.open(table),
                false => self
                    .shut(table)
                    .and(Err(Reason::new("packet rules were loaded and are gone", 0))),
            };
            if let Err(reason) = done {
                self.reload.lose(vec![table]);
                failed = Some(reason);
            }
        }
        if let Some(reason) = failed {
            self.failed(reason);
        } else if self.reload.lost.is_empty() {
            if self.reload.is_told || self.reload.failed.is_some() {
                say("the rules of apps' networks were changed by somebody, and are back");
            }
            self.reload.is_told = false;
            self.reload.failed = None;
        }
    }

    fn not_loaded(&mut self, tables: Vec<Table>, mut reason: Reason) {
        for &table in &tables {
            // An nft that was given up may have loaded them all the same.
            if let Err(open) = self.shut(table) {
                reason.stage = format!("{}; apps are not cut off: {open}", reason.stage);
            }
        }
        self.reload.lose(tables);
        self.failed(reason);
    }

    pub(super) fn failed(&mut self, reason: Reason) {
        if self.reload.failed.is_none() {
            say(&format!(
                "the rules of apps' networks are lost, and are tried again; until they are back apps \
                 are cut off from every network, and nothing starts: {reason}"
            ));
        }
        self.reload.failed = Some((reason, Instant::now()));
    }

    fn shut(&mut self, table: Table) -> Result<(), Reason> {
        self.reload.shut.insert(table.id);
        gate::shut(&self.netlink, table.id)
    }

    fn open(&mut self, table: Table) -> Result<(), Reason> {
        if self.reload.shut.contains(&table.id) {
            if table.id != self.id && !self.v6 {
                // Whether a network of another spawner has IPv6 is not known.
                gate::open(&self.netlink, table.id, true).ok();
            }
            gate::open(&self.netlink, table.id, self.v6)?;
            self.reload.shut.remove(&table.id);
        }
        Ok(())
    }
}
