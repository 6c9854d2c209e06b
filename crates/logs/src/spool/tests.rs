use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::framer::Batch;
use crate::line::{Marks, Micros, Stream};

struct Spool {
    // Removed when dropped.
    _folder: tempfile::TempDir,
    path: PathBuf,
    writer: Writer,
}

fn spool(limits: Limits) -> Spool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let fd = OwnedFd::from(fs::File::open(&path).unwrap());
    Spool { _folder: folder, path, writer: Writer::new(fd, "web.1", limits) }
}

const WIDE: Limits = Limits { segment: 1 << 20, total: 8 << 20 };

impl Spool {
    fn put(&mut self, bytes: &[u8]) {
        let lines = u32::try_from(bytes.split(|&b| b == b'\n').count()).unwrap();
        let batch = Batch { bytes, lines, marks: Marks::default() };
        self.writer.append(Stream::Out, Micros(7), batch);
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.path, "web.1".into())
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut all: Vec<_> =
            fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all
    }
}

fn drain(reader: &mut Reader) -> Vec<Item> {
    let mut items = Vec::new();
    while reader.read(&mut items).unwrap() {}
    items
}

/// Texts, and `-3` for three that are missing.
fn show(items: &[Item]) -> Vec<String> {
    let show = |item: &Item| match item {
        Item::Line(line) => String::from_utf8_lossy(&line.text).into_owned(),
        Item::Missed(count) => format!("-{count}"),
    };
    items.iter().map(show).collect()
}

#[test]
fn a_tail_follows_the_writer() {
    let mut spool = spool(WIDE);
    let mut reader = spool.reader();
    assert_eq!(drain(&mut reader), []);
    spool.put(b"one\r\ntwo");
    let items = drain(&mut reader);
    assert_eq!(show(&items), ["one", "two"]);
    let Item::Line(line) = &items[1] else { panic!("{items:?}") };
    assert_eq!((line.time, line.stream, &*line.process), (Micros(7), Stream::Out, "web.1"));
    spool.put(b"");
    spool.put(b"four\xff\0\r\r");
    assert_eq!(show(&drain(&mut reader)), ["", "four\u{fffd}\0\r"]);
    assert_eq!(reader.finish(5), Some(Item::Missed(1)));
    assert_eq!(reader.finish(5), None);
}

#[test]
fn the_oldest_segment_makes_room_and_what_it_held_is_counted() {
    let mut spool = spool(Limits { segment: 1000, total: 4000 });
    let mut early = spool.reader();
    spool.put(b"first");
    assert_eq!(show(&drain(&mut early)), ["first"]);
    for number in 1..1000u32 {
        spool.put(number.to_string().as_bytes());
        let size: u64 = spool.segments().iter().map(|path| path.metadata().unwrap().len()).sum();
        assert!(size < 5_200, "{size}");
    }
    for mut reader in [early, spool.reader()] {
        let (mut delivered, mut missed) = (reader.position(), 0);
        for item in drain(&mut reader) {
            match item {
                Item::Line(_) => delivered += 1,
                Item::Missed(count) => missed += count,
            }
        }
        assert!(missed > 0 && delivered > 0);
        assert_eq!(delivered + missed, 1000);
    }
}

#[test]
fn a_full_disk_costs_nothing_that_the_ring_holds() {
    let mut spool = spool(Limits { segment: 1000, total: 64_000 });
    // No next segment can be made while a folder stands in its place.
    let blocked = spool.path.join(segment_name(1));
    fs::create_dir(&blocked).unwrap();
    for number in 0..100u32 {
        spool.put(number.to_string().as_bytes());
    }
    assert!(spool.writer.is_behind());
    fs::remove_dir(&blocked).unwrap();
    spool.writer.retry();
    assert!(!spool.writer.is_behind());
    let want: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(show(&drain(&mut spool.reader())), want);
}

#[test]
fn what_the_ring_does_not_hold_is_counted() {
    let mut spool = spool(Limits { segment: 64_000, total: 64_000_000 });
    let blocked = spool.path.join(segment_name(1));
    fs::create_dir(&blocked).unwrap();
    for _ in 0..3000 {
        spool.put(&[b'x'; 1000]);
    }
    fs::remove_dir(&blocked).unwrap();
    spool.writer.retry();
    let mut reader = spool.reader();
    let items = drain(&mut reader);
    let lines = items.iter().filter(|item| matches!(item, Item::Line(_))).count();
    let [missed] = items
        .iter()
        .filter_map(|i| if let Item::Missed(n) = i { Some(*n) } else { None })
        .collect::<Vec<_>>()[..]
    else {
        panic!("one gap")
    };
    assert!(lines > 1000 && lines as u64 + missed == 3000, "{lines} {missed}");
}

#[test]
fn damage_costs_the_record_alone() {
    let mut spool = spool(WIDE);
    for text in [&b"one"[..], b"two", b"three", b"four"] {
        spool.put(text);
    }
    let path = spool.segments().remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let second = bytes.windows(4).enumerate().filter(|(_, w)| w == record::MAGIC).nth(1).unwrap().0;
    bytes[second + 10] ^= 0x40;
    bytes.truncate(bytes.len() - 2);
    fs::write(&path, &bytes).unwrap();
    let mut reader = spool.reader();
    assert_eq!(show(&drain(&mut reader)), ["one", "-1", "three"]);
    assert_eq!(reader.finish(4), Some(Item::Missed(1)));
}

#[test]
fn the_last_lines_are_the_last() {
    let mut spool = spool(Limits { segment: 1000, total: 64_000 });
    for number in 0..200u32 {
        spool.put(number.to_string().as_bytes());
    }
    let lines = last_lines(&spool.path, "web.1".into(), 2).unwrap();
    assert_eq!(lines.iter().map(|line| &line.text[..]).collect::<Vec<_>>(), [b"198", b"199"]);
}

#[test]
fn the_oldest_spools_go_but_not_those_in_use() {
    let root = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        fs::create_dir(root.path().join(name)).unwrap();
        fs::write(root.path().join(name).join(segment_name(0)), [0; 100]).unwrap();
    }
    assert_eq!(tidy(root.path(), 300, &|_| false).unwrap(), 0);
    assert_eq!(tidy(root.path(), 150, &|name| name == "a").unwrap(), 2);
    assert!(root.path().join("a").exists());
}

proptest! {
    #[test]
    fn no_damage_panics_or_invents(
        lines in prop::collection::vec(prop::collection::vec(b'a'..=b'z', 0..30), 1..30),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut spool = spool(Limits { segment: 300, total: 1 << 20 });
        for line in &lines {
            spool.put(line);
        }
        for path in spool.segments() {
            let mut bytes = fs::read(&path).unwrap();
            let length = bytes.len();
            for (place, byte) in &damage {
                bytes[place.index(length)] = *byte;
            }
            bytes.truncate(cut.index(length) + 1);
            fs::write(&path, bytes).unwrap();
        }
        let mut reader = spool.reader();
        let mut items = drain(&mut reader);
        items.extend(reader.finish(lines.len() as u64));
        let count = |item: &Item| if let Item::Missed(n) = item { *n } else { 1 };
        prop_assert_eq!(items.iter().map(count).sum::<u64>(), lines.len() as u64);
    }

    #[test]
    fn a_record_s_header_reads_back(length in 0u32..1 << 20, first: u64, time: i64, lines: u32, bits in 0u8..8, err: bool) {
        let record = record::Record {
            length,
            first,
            time: Micros(time),
            lines,
            stream: if err { Stream::Err } else { Stream::Out },
            marks: Marks::from_bits(bits),
        };
        prop_assert_eq!(record::Record::from_bytes(&record.to_bytes()), Some(record));
    }
}
