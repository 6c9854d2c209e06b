//! The size of a process: how much of the machine it may take (factor VIII).
//!
//! A size is what somebody asked for: app.json, `tolv limits`, the operator's defaults. Each part
//! may be left open; [`Size::or`] fills the open ones from another size. It is written as
//!
//! | text | meaning |
//! |---|---|
//! | `standard-2x` | one of Heroku's names, see [`NAMES`] |
//! | `768M`, `1.5G` | memory; units are powers of 1024 |
//! | `memory=1G,cpu=2,cpu-weight=200` | parts by name: also `processes`, `files`, `tmp`, `shm` |

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::ProcessType;

const MIB: u64 = 1 << 20;

/// Heroku's names: memory in MiB and CPU weight, which is in proportion.
pub const NAMES: [(&str, u64, u32); 19] = [
    ("eco", 512, 100),
    ("basic", 512, 100),
    ("standard-1x", 512, 100),
    ("standard-2x", 1024, 200),
    ("performance-m", 2560, 500),
    ("performance-l", 14 * 1024, 2800),
    ("performance-l-ram", 30 * 1024, 6000),
    ("performance-xl", 62 * 1024, 10_000),
    ("performance-2xl", 126 * 1024, 10_000),
    ("private-s", 1024, 200),
    ("private-m", 2560, 500),
    ("private-l", 14 * 1024, 2800),
    ("shield-s", 1024, 200),
    ("shield-m", 2560, 500),
    ("shield-l", 14 * 1024, 2800),
    ("free", 512, 100),
    ("hobby", 512, 100),
    ("1x", 512, 100),
    ("2x", 1024, 200),
];

/// How much a process may take; an open part is decided elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Size {
    /// Bytes of memory; what it writes to `/tmp` and `/dev/shm` is memory too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Its share of the CPU where others want it too, against 100 for an ordinary process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u32>,
    /// Most CPU time, in percent of one core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<u32>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Open files of each process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u32>,
    /// Bytes of `/tmp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmp: Option<u64>,
    /// Bytes of `/dev/shm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm: Option<u64>,
}

/// A size that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Neither a name, nor a figure, nor parts.
    #[error(
        "`{0}` is not a size: a figure as in `768M` or `1G`, a name as in `standard-2x`, or parts \
         as in `memory=1G,cpu=2`"
    )]
    Syntax(String),
    /// A part that does not exist.
    #[error("`{0}` is not a part of a size: memory, cpu, cpu-weight, processes, files, tmp or shm")]
    Part(String),
    /// A part twice.
    #[error("`{0}` is given twice")]
    Twice(String),
    /// A value that cannot be read or is out of range.
    #[error("`{value}` is not a value of {part}: {wanted}")]
    Value {
        /// Of which part.
        part: &'static str,
        /// The value.
        value: String,
        /// What it may be.
        wanted: &'static str,
    },
}

/// The parts, with what each may be.
const PARTS: [(&str, &str); 7] = [
    ("memory", "from 16M to 16T, as in `768M` or `1G`"),
    ("cpu", "cores from 0.01 to 1024, as in `0.5` or `2`"),
    ("cpu-weight", "a number from 1 to 10000"),
    ("processes", "a number from 1 to 4194304"),
    ("files", "a number from 16 to 1048576"),
    ("tmp", "from 64K to 16T, as in `256M`"),
    ("shm", "from 64K to 16T, as in `64M`"),
];

impl Size {
    /// A size with nothing but memory, in bytes.
    pub fn of_memory(bytes: u64) -> Self {
        Self { memory: Some(bytes), ..Self::default() }
    }

    /// Whether every part is open.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// This size, its open parts filled from `other`.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            memory: self.memory.or(other.memory),
            cpu_weight: self.cpu_weight.or(other.cpu_weight),
            cpu_percent: self.cpu_percent.or(other.cpu_percent),
            processes: self.processes.or(other.processes),
            files: self.files.or(other.files),
            tmp: self.tmp.or(other.tmp),
            shm: self.shm.or(other.shm),
        }
    }

    /// This size, no part of it above `most`; the parts that were, as text.
    pub fn at_most(&self, most: &Self) -> (Self, Vec<String>) {
        fn cut<T: Ord + Copy>(
            value: &mut Option<T>,
            most: Option<T>,
            part: &str,
            show: impl Fn(T) -> String,
            over: &mut Vec<String>,
        ) {
            if let (Some(asked), Some(most)) = (*value, most)
                && asked > most
            {
                over.push(format!("{part} {}: at most {} here", show(asked), show(most)));
                *value = Some(most);
            }
        }
        let (mut size, mut over) = (*self, Vec::new());
        let number = |value: u32| value.to_string();
        cut(&mut size.memory, most.memory, "memory", show_bytes, &mut over);
        cut(&mut size.cpu_percent, most.cpu_percent, "cpu", show_cores, &mut over);
        cut(&mut size.cpu_weight, most.cpu_weight, "cpu-weight", number, &mut over);
        cut(&mut size.processes, most.processes, "processes", number, &mut over);
        cut(&mut size.files, most.files, "files", number, &mut over);
        cut(&mut size.tmp, most.tmp, "tmp", show_bytes, &mut over);
        cut(&mut size.shm, most.shm, "shm", show_bytes, &mut over);
        (size, over)
    }

    fn set(&mut self, part: &str, value: &str) -> Result<(), SizeError> {
        let &(part, wanted) = PARTS
            .iter()
            .find(|(name, _)| *name == part)
            .ok_or_else(|| SizeError::Part(short(part)))?;
        let wrong = || SizeError::Value { part, value: short(value), wanted };
        let number = |least: u32, most: u32| {
            let number = value.parse::<u32>().ok().filter(|n| (least..=most).contains(n));
            number.map(Some).ok_or_else(wrong)
        };
        let room = |least: u64| {
            let bytes = parse_bytes(value).filter(|n| (least..=16 << 40).contains(n));
            bytes.map(Some).ok_or_else(wrong)
        };
        match part {
            "memory" => self.memory = room(16 * MIB)?,
            "cpu" => {
                let percent = parse_scaled(value, 100).and_then(|n| u32::try_from(n).ok());
                let percent = percent.filter(|n| (1..=102_400).contains(n));
                self.cpu_percent = Some(percent.ok_or_else(wrong)?);
            }
            "cpu-weight" => self.cpu_weight = number(1, 10_000)?,
            "processes" => self.processes = number(1, 4_194_304)?,
            "files" => self.files = number(16, 1_048_576)?,
            "tmp" => self.tmp = room(64 << 10)?,
            _ => self.shm = room(64 << 10)?,
        }
        Ok(())
    }
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// A decimal number times `scale`, where that is whole enough: `1.5` and 1024 give 1536.
fn parse_scaled(text: &str, scale: u64) -> Option<u64> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || rest.len() > 6 || !digits(whole) || !digits(rest) {
        return None;
    }
    let rest_scale = 10_u64.pow(u32::try_from(rest.len()).ok()?);
    let rest: u64 = if rest.is_empty() { 0 } else { rest.parse().ok()? };
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    whole.checked_add(rest.checked_mul(scale)? / rest_scale)
}

/// `768M`, `1.5G`, `64KiB`, `1000B`.
fn parse_bytes(text: &str) -> Option<u64> {
    let at = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (figure, unit) = text.split_at(at);
    let scale = match unit.to_ascii_lowercase().as_str() {
        "b" => 1,
        "k" | "kb" | "kib" | "ki" => 1 << 10,
        "m" | "mb" | "mib" | "mi" => 1 << 20,
        "g" | "gb" | "gib" | "gi" => 1 << 30,
        "t" | "tb" | "tib" | "ti" => 1 << 40,
        _ => return None,
    };
    parse_scaled(figure.trim_end(), scale)
}

/// Bytes as text, exactly: `768M`, `1G`, `1000B`.
pub fn show_bytes(bytes: u64) -> String {
    for (unit, shift) in [("T", 40), ("G", 30), ("M", 20), ("K", 10)] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// Percent of one core as cores: `0.5`, `2`.
pub fn show_cores(percent: u32) -> String {
    match (percent / 100, percent % 100) {
        (whole, 0) => whole.to_string(),
        (whole, rest) => format!("{whole}.{rest:02}").trim_end_matches('0').to_owned(),
    }
}

impl FromStr for Size {
    type Err = SizeError;
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let text = text.trim();
        let named = NAMES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(text));
        if let Some((_, mib, weight)) = named {
            return Ok(Self {
                memory: Some(mib * MIB),
                cpu_weight: Some(*weight),
                ..Self::default()
            });
        }
        let mut size = Self::default();
        if !text.contains('=') {
            if !text.starts_with(|first: char| first.is_ascii_digit()) {
                return Err(SizeError::Syntax(short(text)));
            }
            size.set("memory", text)?;
            return Ok(size);
        }
        let mut seen = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (name, value) =
                part.split_once('=').ok_or_else(|| SizeError::Syntax(short(text)))?;
            let (name, value) = (name.trim(), value.trim());
            if seen.contains(&name) {
                return Err(SizeError::Twice(short(name)));
            }
            seen.push(name);
            size.set(name, value)?;
        }
        Ok(size)
    }
}

impl fmt::Display for Size {
    /// The parts that are not open, in one order: equal sizes give equal texts, and the text gives
    /// the size again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<u32>| value.map(|value| value.to_string());
        let parts = [
            ("memory", self.memory.map(show_bytes)),
            ("cpu", self.cpu_percent.map(show_cores)),
            ("cpu-weight", number(self.cpu_weight)),
            ("processes", number(self.processes)),
            ("files", number(self.files)),
            ("tmp", self.tmp.map(show_bytes)),
            ("shm", self.shm.map(show_bytes)),
        ];
        let parts = parts.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (place, (name, value)) in parts.enumerate() {
            write!(f, "{}{name}={value}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Process type → size. `run` is the type of one-off runs, `release` that of the release phase, and
/// a schedule has the type that its name gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes(pub BTreeMap<ProcessType, Size>);

impl Sizes {
    /// The size of a type; open where nothing is said of it.
    pub fn of(&self, process_type: &ProcessType) -> Size {
        self.0.get(process_type).copied().unwrap_or_default()
    }

    /// These sizes with the parts that `other` has in place of their own.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        for (process_type, size) in &other.0 {
            let of = self.0.entry(process_type.clone()).or_default();
            *of = size.or(of);
        }
        self.0.retain(|_, size| !size.is_open());
        self
    }

    /// These sizes without those of some types.
    #[must_use]
    pub fn without(mut self, types: &[ProcessType]) -> Self {
        self.0.retain(|process_type, _| !types.contains(process_type));
        self
    }

    /// What of these sizes `base` does not have: laid over `base` it gives these again.
    #[must_use]
    pub fn beyond(&self, base: &Self) -> Self {
        fn part<T: PartialEq>(own: Option<T>, base: Option<T>) -> Option<T> {
            if own == base { None } else { own }
        }
        let beyond = |(process_type, size): (&ProcessType, &Size)| {
            let base = base.of(process_type);
            let size = Size {
                memory: part(size.memory, base.memory),
                cpu_weight: part(size.cpu_weight, base.cpu_weight),
                cpu_percent: part(size.cpu_percent, base.cpu_percent),
                processes: part(size.processes, base.processes),
                files: part(size.files, base.files),
                tmp: part(size.tmp, base.tmp),
                shm: part(size.shm, base.shm),
            };
            (!size.is_open()).then(|| (process_type.clone(), size))
        };
        Self(self.0.iter().filter_map(beyond).collect())
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Sizes {
    /// `web memory=1G; worker memory=512M,cpu=2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (process_type, size)) in self.0.iter().enumerate() {
            write!(f, "{}{process_type} {size}", if place == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> Size {
        text.parse().unwrap()
    }

    #[test]
    fn figures_names_and_parts_are_read() {
        assert_eq!(size("768M"), Size::of_memory(768 * MIB));
        assert_eq!(size("1.5G"), Size::of_memory(1536 * MIB));
        assert_eq!(size("1GiB"), size("1024mb"));
        let medium = size("Performance-M");
        assert_eq!((medium.memory, medium.cpu_weight), (Some(2560 * MIB), Some(500)));
        let all =
            size("memory=1G, cpu=0.5, cpu-weight=50, processes=64, files=99, tmp=1M, shm=64K");
        assert_eq!(all.cpu_percent, Some(50));
        assert_eq!((all.processes, all.files, all.shm), (Some(64), Some(99), Some(65536)));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["memory=768M", "memory=17M,cpu=0.05,tmp=65537B", "cpu=2,processes=3"] {
            assert_eq!(size(text).to_string(), text);
        }
        for (name, ..) in NAMES {
            assert_eq!(size(&size(name).to_string()), size(name));
        }
    }

    #[test]
    fn bad_sizes_say_what_is_wrong() {
        for (text, wanted) in [
            ("", "is not a size"),
            ("big", "is not a size"),
            ("768", "from 16M to 16T"),
            ("1M", "from 16M to 16T"),
            ("99999999999999999999G", "from 16M to 16T"),
            ("17T", "from 16M to 16T"),
            ("1..5G", "from 16M to 16T"),
            ("-1G", "is not a size"),
            ("memory=1G,memory=2G", "given twice"),
            ("disk=1G", "is not a part"),
            ("cpu=0", "cores from"),
            ("cpu=0.001", "cores from"),
            ("cpu-weight=0", "from 1 to 10000"),
            ("processes=-1", "from 1 to"),
            ("tmp=0M", "from 64K"),
            ("memory=1G,cpu", "is not a size"),
        ] {
            let error = text.parse::<Size>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_are_laid_over_each_other() {
        let web: ProcessType = "web".parse().unwrap();
        let of = |text: &str| Sizes([(web.clone(), size(text))].into());
        let both = of("memory=1G,cpu=2").with(&of("memory=512M,tmp=1M"));
        assert_eq!(both.to_string(), "web memory=512M,cpu=2,tmp=1M");
        assert!(both.clone().without(std::slice::from_ref(&web)).is_empty());
        let base = of("memory=1G,cpu=2");
        assert_eq!(both.beyond(&base).to_string(), "web memory=512M,tmp=1M");
        assert_eq!(base.clone().with(&both.beyond(&base)), both);
        let (cut, over) = both.of(&web).at_most(&size("memory=256M,cpu=4"));
        assert_eq!(cut.to_string(), "memory=256M,cpu=2,tmp=1M");
        assert_eq!(over, ["memory 512M: at most 256M here"]);
    }
}
