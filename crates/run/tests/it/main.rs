//! The engine with real processes, at every level that this machine gives.
//!
//! Each test has an engine, a folder and a mark of its own, so that all may run at once. The mark
//! is in the environment of every process that the test's apps start: what bears it outlived them.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "what cannot be had fails the test")]

mod bed;
mod checks;
mod crash;
mod death;
mod formation;
mod job;
mod limits;
mod lines;
mod one_off;
mod orphan;
mod restart;
mod rollout;
mod stop;
mod versions;
