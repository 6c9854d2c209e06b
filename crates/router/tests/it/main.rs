//! The router from the outside: real sockets, a client and processes that the test plays itself,
//! byte by byte.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "clippy's leave for tests does not reach their helpers")]

mod balance;
mod crowd;
mod drain;
mod edge;
mod faults;
mod forward;
mod hold;
mod keep;
mod smuggle;
mod stopped;
mod stream;
mod tunnel;
mod websocket;
mod wire;
