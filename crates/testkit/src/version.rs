//! A program whose shims speak another version of their protocol.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

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
    // Other programs write it: a program that this one has open for writing, it or a child that it
    // forks meanwhile, cannot be executed.
    ran(Command::new("cp").arg(program).arg(copy), "");
    let file = File::open(copy).expect("open the copy");
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
    let own = std::str::from_utf8(&digits).ok().and_then(|text| text.parse::<u32>().ok());
    let version = own.and_then(|own| own.checked_add_signed(by)).expect("a version");
    let to = [format!("of={}", copy.display()), format!("seek={at}")];
    let dd = ["oflag=seek_bytes", "conv=notrunc", "status=none"];
    ran(Command::new("dd").args(to).args(dd), &format!("{version:0DIGITS$}"));
    version
}

/// Runs a program that has to succeed.
#[track_caller]
fn ran(command: &mut Command, input: &str) {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("start it");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("write to it");
    let status = child.wait().expect("wait for it");
    assert!(status.success(), "{command:?}: {status}");
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
