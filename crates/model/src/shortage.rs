//! What a machine, or a limit on it, has run out of: the one place that knows which error numbers of
//! the system mean that.

use std::error::Error;
use std::fmt;
use std::io;

/// Numbers of Linux, the same on every machine that Tolv runs on.
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOBUFS: i32 = 105;

/// Something that there is none of any more, and that may be there again later. Nobody who asked is
/// at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shortage {
    /// Processes and threads.
    Processes,
    /// File descriptors.
    Descriptors,
    /// Memory of the kernel's or of the platform's own.
    Memory,
    /// The helper that starts sandboxed processes has ended; another one takes its place.
    Spawner,
}

impl Shortage {
    /// What the error number of a system call means. `EAGAIN` is what `fork`, `clone` and `execve`
    /// say at a limit of processes; a socket that is not ready is not asked about here.
    pub fn of_errno(errno: i32) -> Option<Self> {
        match errno {
            EAGAIN => Some(Self::Processes),
            EMFILE | ENFILE => Some(Self::Descriptors),
            ENOMEM | ENOBUFS => Some(Self::Memory),
            _ => None,
        }
    }

    /// The first one among an error and its sources.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        std::iter::successors(Some(error), |&error| error.source())
            .filter_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error())
            .find_map(Self::of_errno)
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Processes => {
                "try again later, scale apps down (tolv scale, tolv stop), or have the operator end \
                 processes of the machine or raise the limit (pids.max of the cgroup, TasksMax= of \
                 the systemd unit, kernel.pid_max)"
            }
            Self::Descriptors => {
                "try again later, or have the operator raise the limit (LimitNOFILE= of the systemd \
                 unit, ulimit -n, fs.file-max)"
            }
            Self::Memory => {
                "try again later, scale apps down (tolv scale, tolv stop), or have the operator give \
                 the machine more memory"
            }
            Self::Spawner => "try again in some seconds",
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Processes => "the platform has no free process",
            Self::Descriptors => "the platform has no free descriptor",
            Self::Memory => "the platform has no free memory",
            Self::Spawner => "the platform's spawner is being started again",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Above(io::Error);

    impl fmt::Display for Above {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("above")
        }
    }

    impl Error for Above {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn the_number_is_found_below_other_errors() {
        for (errno, found) in [
            (EAGAIN, Some(Shortage::Processes)),
            (EMFILE, Some(Shortage::Descriptors)),
            (ENFILE, Some(Shortage::Descriptors)),
            (ENOMEM, Some(Shortage::Memory)),
            (ENOBUFS, Some(Shortage::Memory)),
            (2, None),
        ] {
            assert_eq!(Shortage::of(&Above(io::Error::from_raw_os_error(errno))), found);
        }
        assert_eq!(Shortage::of(&io::Error::other("11")), None);
    }
}
