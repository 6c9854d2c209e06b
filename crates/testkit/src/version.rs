//! A program whose shims speak another version of their protocol.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

/// What stands in front of the version in a program.
const MARK: &str = "tolv shim protocol ";
/// Digits of the version.
const DIGITS: usize = 5;

/// Copies a program of ours to `copy`, and makes it one of an earlier or later version of the shim
/// protocol: `by` is added to its own. Returns the version.
///
/// # Panics
///
/// When it cannot be copied, or does not say which version it is.
#[track_caller]
pub fn of_other_version(program: &Path, copy: &Path, by: i32) -> u32 {
    fs::copy(program, copy).unwrap_or_else(|error| panic!("copy {}: {error}", program.display()));
    let file = File::options().read(true).write(true).open(copy).expect("open the copy");
    let mut found = Vec::new();
    for offset in offsets(copy) {
        let mut digits = [0; DIGITS];
        let at = offset + MARK.len() as u64;
        // Elsewhere in the program the mark alone may stand, as it does here.
        if file.read_exact_at(&mut digits, at).is_ok() && digits.iter().all(u8::is_ascii_digit) {
            found.push((at, digits));
        }
    }
    let [(at, digits)] = found[..] else { panic!("{found:?} in {}", program.display()) };
    let own: u32 =
        std::str::from_utf8(&digits).ok().and_then(|text| text.parse().ok()).expect("digits");
    let version = own.checked_add_signed(by).expect("a version");
    file.write_all_at(format!("{version:0DIGITS$}").as_bytes(), at).expect("write the version");
    version
}

/// Where the mark stands. A program in debug has hundreds of megabytes.
fn offsets(program: &Path) -> Vec<u64> {
    let output = Command::new("grep")
        .env("LC_ALL", "C")
        .args(["-obUaF", "-e", MARK])
        .arg(program)
        .output()
        .expect("run grep");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| line.split_once(':')?.0.parse().ok()).collect()
}
