//! Finding and fetching: fetch.
