//! Telling a sandboxed process from the platform's own where both have one user and one process
//! table: at level landlock.

use std::fs;
use std::os::fd::AsFd;

use rustix::net::sockopt::socket_peercred;

/// Whether the process that connected to a socket is shut in more tightly than this one is.
///
/// Its seccomp filters and its no-new-privileges are with a process for good, and with whatever it
/// starts. One that is gone, or of which nothing is to be read, counts as shut in.
pub fn is_peer_confined(socket: impl AsFd) -> bool {
    let Ok(peer) = socket_peercred(socket) else { return true };
    let peer = confinement(&peer.pid.as_raw_nonzero().to_string());
    match (peer, confinement("self")) {
        (Some(peer), Some(own)) => peer.filters > own.filters || (peer.sealed && !own.sealed),
        _ => true,
    }
}

/// How tightly a process is shut in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Confinement {
    /// Seccomp filters; 0 on a kernel that does not count them.
    filters: u32,
    /// No new privileges.
    sealed: bool,
}

fn confinement(process: &str) -> Option<Confinement> {
    parse(&fs::read_to_string(format!("/proc/{process}/status")).ok()?)
}

fn parse(status: &str) -> Option<Confinement> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse::<u32>().ok())
    };
    Some(Confinement {
        filters: field("Seccomp_filters").unwrap_or(0),
        sealed: field("NoNewPrivs")? != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_how_tightly_a_process_is_shut_in() {
        let status = "Name:\tx\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        assert_eq!(parse(status), Some(Confinement { filters: 3, sealed: true }));
        let old = "Name:\tx\nNoNewPrivs:\t0\nSeccomp:\t0\n";
        assert_eq!(parse(old), Some(Confinement { filters: 0, sealed: false }));
        assert_eq!(parse("Name:\tx\n"), None);
    }

    #[test]
    fn a_process_is_not_shut_in_more_than_itself() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!is_peer_confined(&one));
    }
}
