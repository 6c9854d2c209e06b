//! The toolchains that tests share.

use std::path::PathBuf;

/// A folder of toolchains for `TOLV_TOOLCHAINS`: what one test has copied or fetched, the others
/// find there. A test about toolchains themselves uses a folder of its own.
pub fn toolchains() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/needs/toolchains"))
}
