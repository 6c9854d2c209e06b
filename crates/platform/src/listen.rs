//! Where the local router listens.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

/// First port tried where none was asked for.
const DEFAULT: u16 = 8080;
/// How many ports from there on are tried.
const TRIES: u16 = 100;

/// The router has nowhere to listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address that was asked for.
    #[error("cannot listen on {address}")]
    Asked {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// None of the default ports.
    #[error("no port from {DEFAULT} to {} is free on 127.0.0.1", DEFAULT + TRIES - 1)]
    NoneFree,
}

/// Listens on `asked`, or on the first free loopback port from 8080 on.
///
/// # Errors
///
/// [`ListenError::Asked`] when an address was asked for and is not to be had: it is not replaced
/// by another. [`ListenError::NoneFree`] when all of the default ports are taken.
pub(crate) async fn listen(asked: Option<SocketAddr>) -> Result<TcpListener, ListenError> {
    if let Some(address) = asked {
        return TcpListener::bind(address)
            .await
            .map_err(|source| ListenError::Asked { address, source });
    }
    for port in DEFAULT..DEFAULT + TRIES {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return Ok(listener);
        }
    }
    Err(ListenError::NoneFree)
}

#[cfg(test)]
mod tests;
