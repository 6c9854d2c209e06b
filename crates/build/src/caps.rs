//! The limits of one build. Each is a default; the error that one causes names it.

use std::time::Duration;

use tolv_sandbox::Limits;

/// What a build may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Wall clock of all its steps together.
    pub time: Duration,
    /// Bytes of the source, of the slug, and of each layer.
    pub slug: u64,
    /// Bytes of one file of the source.
    pub file: u64,
    /// Files of the source, of the slug, and of each layer.
    pub files: u64,
    /// Bytes of the app's build cache.
    pub cache: u64,
    /// Bytes of the disk that stay free.
    pub min_free: u64,
    /// What each step may take of the machine.
    pub room: Room,
    /// Whether a codebase without a lock is refused; else one is made and kept.
    pub require_lock: bool,
}

/// What one step of a build may take of the machine; see [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are those of `Limits`")]
pub struct Room {
    pub memory: Option<u64>,
    pub processes: Option<u64>,
    pub open_files: Option<u64>,
    pub cpu_percent: Option<u32>,
    pub cpu_weight: Option<u32>,
    pub tmp: u64,
    pub shm: u64,
}

impl From<Limits> for Room {
    fn from(limits: Limits) -> Self {
        let Limits { memory, processes, open_files, cpu_percent, cpu_weight, tmp, shm } = limits;
        Self { memory, processes, open_files, cpu_percent, cpu_weight, tmp, shm }
    }
}

impl From<Room> for Limits {
    fn from(room: Room) -> Self {
        let Room { memory, processes, open_files, cpu_percent, cpu_weight, tmp, shm } = room;
        Self { memory, processes, open_files, cpu_percent, cpu_weight, tmp, shm }
    }
}

impl Default for Room {
    /// Of a build that somebody runs on a machine of his own: no bound on memory.
    fn default() -> Self {
        Self {
            memory: None,
            processes: Some(8192),
            open_files: Some(65_536),
            cpu_percent: None,
            cpu_weight: Some(20),
            tmp: 2 << 30,
            shm: 64 << 20,
        }
    }
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(15 * 60),
            slug: 2 << 30,
            file: 1 << 30,
            files: 200_000,
            cache: 20 << 30,
            min_free: 0,
            room: Room::default(),
            require_lock: false,
        }
    }
}

/// `2 GiB`, `512 MiB`, `900 bytes`.
pub(crate) fn bytes(count: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let tenths = (u128::from(count) * 10) >> shift;
        if tenths >= 10 {
            let rest = if tenths % 10 == 0 { String::new() } else { format!(".{}", tenths % 10) };
            return format!("{}{rest} {unit}", tenths / 10);
        }
    }
    format!("{count} bytes")
}

/// `15 min`, `90 s`.
pub(crate) fn time(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds if seconds >= 120 && seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, time};
    use std::time::Duration;

    #[test]
    fn in_words() {
        assert_eq!(bytes(2 << 30), "2 GiB");
        assert_eq!(bytes(1_600_000), "1.5 MiB");
        assert_eq!(bytes(900), "900 bytes");
        assert_eq!(time(Duration::from_secs(900)), "15 min");
        assert_eq!(time(Duration::from_secs(90)), "90 s");
        assert_eq!(time(Duration::from_millis(300)), "300 ms");
    }
}
