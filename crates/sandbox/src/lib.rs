//! The contract with the operating system: isolation levels, limits, probing.
