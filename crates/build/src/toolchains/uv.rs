//! Finding and fetching: uv.
