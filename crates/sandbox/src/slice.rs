//! How long the scheduler lets a thread run while others wait (`sched_setattr(2)`).
//!
//! Weights decide who gets how much; slices decide how soon. A thread that wakes waits until the slice
//! of the one that runs is over: some 3 ms each time by default, and among a thousand busy processes
//! far longer. With short slices it goes first at once, and nobody gets more than before.

use rustix::process::getpriority_process;

use crate::sys;

/// Nanoseconds: the least that the kernel takes.
const SHORT: u64 = 100_000;

/// Gives the calling thread short slices, and whatever it starts from now on: threads, helpers, apps.
/// Kernels before Linux 6.12 have one length for all.
pub fn take_short_slices() {
    let nice = getpriority_process(None).unwrap_or(0);
    // Without them everything runs, only later.
    sys::set_slice(SHORT, nice).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_starts_has_its_slices() {
        let kernel = rustix::system::uname();
        let release = kernel.release().to_str().unwrap().to_owned();
        let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let before = sys::slice_of_this_thread().unwrap();
        let own = std::thread::spawn(|| {
            take_short_slices();
            std::thread::spawn(|| sys::slice_of_this_thread().unwrap()).join().unwrap()
        });
        let expected = if version >= (6, 12) { SHORT } else { before };
        assert_eq!((own.join().unwrap(), sys::slice_of_this_thread().unwrap()), (expected, before));
    }
}
