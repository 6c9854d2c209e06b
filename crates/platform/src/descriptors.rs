//! Who may have how many of the platform's descriptors, so that nobody takes those of the others.
//!
//! | part | who |
//! |---|---|
//! | a half | the router: a connection of a client, one to its process, and half of an unused one |
//! | a quarter | the API and git: connections of clients |
//! | a quarter | launches, logs, the database, drains: no stranger decides how many |

use rustix::process::{Resource, getrlimit};

/// Descriptors that one connection of the router's clients may need, times two.
const PER_TWO_CONNECTIONS: usize = 5;
/// Connections of the API that are enough, however many descriptors there are.
const MAX_API_CONNECTIONS: usize = 1024;
/// Where there are next to no descriptors.
const MIN_CONNECTIONS: usize = 8;

/// How many connections the router's clients may have.
pub(crate) fn router_connections() -> usize {
    router_part(limit())
}

/// How many connections the API's and git's clients may have.
pub fn api_connections() -> usize {
    api_part(limit())
}

fn router_part(limit: usize) -> usize {
    let max = tolv_router::Settings::default().connections;
    (limit / 2 / PER_TWO_CONNECTIONS * 2).clamp(MIN_CONNECTIONS, max)
}

fn api_part(limit: usize) -> usize {
    (limit / 4).clamp(MIN_CONNECTIONS, MAX_API_CONNECTIONS)
}

/// Descriptors that this process may have.
fn limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_left_whatever_the_limit_is() {
        for limit in [128, 256, 1024, 4096, 20_000, 65_536, usize::MAX] {
            let taken = router_part(limit) * PER_TWO_CONNECTIONS / 2 + api_part(limit);
            assert!(taken <= limit / 4 * 3, "{limit}: {taken}");
        }
        assert_eq!((router_part(1024), api_part(1024)), (204, 256));
        assert_eq!((router_part(usize::MAX), api_part(usize::MAX)), (10_000, 1024));
    }
}
