//! Repositories on a real git, in real sandboxes.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy does not see as such")]

mod repo;
