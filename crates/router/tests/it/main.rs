//! The router from the outside: real sockets, a client and processes that the test plays itself,
//! byte by byte.

#![cfg(unix)]

mod balance;
mod drain;
mod edge;
mod faults;
mod forward;
mod hold;
mod keep;
mod smuggle;
mod stream;
mod tunnel;
mod wire;
