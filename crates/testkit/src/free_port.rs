//! A port that nothing listens on.

use std::net::{Ipv4Addr, TcpListener};

/// A port of 127.0.0.1 that was free a moment ago.
///
/// Somebody else may take it before the test does. Where a program can be told to take any port
/// and says which it took, that is the better way.
///
/// # Panics
///
/// When the system has no free port.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind any port of 127.0.0.1");
    listener.local_addr().expect("ask for the address bound").port()
}

#[cfg(test)]
mod tests;
