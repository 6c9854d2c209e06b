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
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EDQUOT: i32 = 122;

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
    /// Room on the disk, for bytes or for one more file.
    DiskSpace,
    /// A disk that may be written to: it is read-only.
    WritableDisk,
    /// A disk without errors.
    SoundDisk,
    /// Room on the disk of a database server.
    DatabaseSpace,
    /// A disk without errors at a database server.
    SoundDatabaseDisk,
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

    /// What the error of a file of the platform's own means for its disk. The same numbers mean other
    /// things of other calls.
    pub fn of_disk(error: &io::Error) -> Option<Self> {
        match error.raw_os_error()? {
            ENOSPC | EDQUOT => Some(Self::DiskSpace),
            EROFS => Some(Self::WritableDisk),
            _ => None,
        }
    }

    /// Whether it is the disk.
    pub fn is_disk(self) -> bool {
        match self {
            Self::DiskSpace
            | Self::WritableDisk
            | Self::SoundDisk
            | Self::DatabaseSpace
            | Self::SoundDatabaseDisk => true,
            Self::Processes | Self::Descriptors | Self::Memory | Self::Spawner => false,
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
            Self::DiskSpace => {
                "make some space on the disk of the state folder, for bytes and for files (df, df -i); \
                 what frees space is not refused (tolv stop, tolv scale, tolv destroy)"
            }
            Self::WritableDisk => {
                "the kernel makes a disk read-only when it fails: have the operator see dmesg, repair \
                 the disk and mount it again"
            }
            Self::SoundDisk => "have the operator see dmesg and tolv status --platform",
            Self::DatabaseSpace => {
                "what runs goes on: have the operator make space on the disk of the database server, \
                 and try again"
            }
            Self::SoundDatabaseDisk => {
                "what runs goes on: have the operator see the log of the database server, and try again"
            }
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
            Self::DiskSpace => "the disk of the platform is full",
            Self::WritableDisk => "the disk of the platform is read-only",
            Self::SoundDisk => "the disk of the platform gives errors",
            Self::DatabaseSpace => "the disk of the database is full",
            Self::SoundDatabaseDisk => "the disk of the database gives errors",
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

    #[test]
    fn the_disk_is_at_fault_only_for_files_of_the_platforms_own() {
        for (errno, found) in [
            (ENOSPC, Some(Shortage::DiskSpace)),
            (EDQUOT, Some(Shortage::DiskSpace)),
            (EROFS, Some(Shortage::WritableDisk)),
            (EAGAIN, None),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(Shortage::of_disk(&error), found);
            assert!(found.is_none_or(Shortage::is_disk));
            // As of a namespace too many, and of a mount.
            assert!(found.is_none() || Shortage::of(&error).is_none());
        }
    }
}
