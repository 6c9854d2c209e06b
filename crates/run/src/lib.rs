//! Release to processes: shim, supervisor, readiness, rollout.
