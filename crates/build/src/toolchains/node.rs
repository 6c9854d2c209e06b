//! Finding and fetching: node.
