use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::framer::Batch;
use crate::line::{Marks, Micros, Source, Stream};

const WIDE: Limits = Limits { segment: 1 << 20, total: 8 << 20, min_free: 0 };

struct Bed {
    // Removed when dropped.
    _folder: tempfile::TempDir,
    path: PathBuf,
    limits: Limits,
}

fn bed(limits: Limits) -> Bed {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    Bed { _folder: folder, path, limits }
}

fn tag(process: &str) -> Tag<'_> {
    Tag { source: Source::App, process, release: Some(3) }
}

fn put(writer: &mut Writer, process: &str, bytes: &[u8]) {
    put_at(writer, process, bytes, 7);
}

fn put_at(writer: &mut Writer, process: &str, bytes: &[u8], time: i64) {
    let lines = u32::try_from(bytes.split(|&b| b == b'\n').count()).unwrap();
    let batch = Batch { bytes, lines, marks: Marks::default() };
    writer.append(tag(process), Stream::Out, Micros(time), batch);
}

impl Bed {
    fn writer(&self, id: u64) -> Writer {
        Writer::new(OwnedFd::from(fs::File::open(&self.path).unwrap()), id, self.limits)
    }

    fn segments(&self) -> Vec<PathBuf> {
        let all = segments(&self.path).unwrap();
        all.into_iter().map(|index| self.path.join(segment_name(index))).collect()
    }

    /// From the first line that ever was.
    fn strict(&self) -> Reader {
        Reader::resume(&self.path, Position::default())
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
        Item::Missed { lines, .. } => format!("-{lines}"),
        Item::Gap => "?".to_owned(),
    };
    items.iter().map(show).collect()
}

/// So many lines, of any length.
fn most(lines: usize) -> Most {
    Most { lines, bytes: usize::MAX }
}

fn texts(found: &Found) -> Vec<String> {
    found.lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect()
}

/// Lines and bytes, delivered and missed.
fn sums(items: &[Item]) -> (u64, u64) {
    items.iter().fold((0, 0), |(count, all), item| match item {
        Item::Line(line) => (count + 1, all + line.text.len() as u64 + 1),
        Item::Missed { lines, bytes, .. } => (count + lines, all + bytes),
        Item::Gap => panic!("a gap"),
    })
}

#[test]
fn a_tail_follows_two_writers() {
    let bed = bed(WIDE);
    let (mut web, mut worker) = (bed.writer(1), bed.writer(2));
    let mut reader = Reader::at_end(&bed.path).unwrap();
    assert_eq!(drain(&mut reader), []);
    put(&mut web, "web.1", b"one\r\ntwo");
    put(&mut worker, "worker.1", b"three");
    let items = drain(&mut reader);
    assert_eq!(show(&items), ["one", "two", "three"]);
    let Item::Line(line) = &items[2] else { panic!("{items:?}") };
    assert_eq!((line.time, line.stream, &*line.process), (Micros(7), Stream::Out, "worker.1"));
    assert_eq!((line.source, line.release), (Source::App, Some(3)));
    put(&mut web, "web.1", b"");
    put(&mut web, "web.1", b"four\xff\0\r\r");
    assert_eq!(show(&drain(&mut reader)), ["", "four\u{fffd}\0\r"]);
    assert_eq!(reader.taken(1), web.taken());
    let process: Arc<str> = "web.1".into();
    let missed =
        Item::Missed { source: Source::App, process: Arc::clone(&process), lines: 1, bytes: 9 };
    let Count { lines, bytes } = web.taken();
    let all = Count { lines: lines + 1, bytes: bytes + 9 };
    assert_eq!(reader.finish(1, &process, all), Some(missed));
    assert_eq!(reader.finish(2, &process, worker.taken()), None);
}

#[test]
fn the_oldest_segment_makes_room_and_what_it_held_is_counted() {
    let bed = bed(Limits { segment: 1000, total: 4000, min_free: 0 });
    let (mut one, mut two) = (bed.writer(1), bed.writer(2));
    let mut early = bed.strict();
    put(&mut one, "web.1", b"first");
    let mut seen = drain(&mut early);
    assert_eq!(show(&seen), ["first"]);
    for number in 1..1000u32 {
        let writer = if number % 3 == 0 { &mut two } else { &mut one };
        put(writer, "web.1", number.to_string().as_bytes());
        assert!(size(&bed.path).unwrap() < 5_200);
    }
    seen.extend(drain(&mut early));
    let fresh = drain(&mut bed.strict());
    for items in [seen, fresh] {
        assert!(items.iter().any(|item| matches!(item, Item::Missed { .. })));
        assert_eq!(sums(&items), (1000, one.taken().bytes + two.taken().bytes));
    }
    // Who comes later misses nothing that was there when it came.
    let later = drain(&mut Reader::open(&bed.path));
    assert!(later.iter().all(|item| matches!(item, Item::Line(_))));
}

#[test]
fn a_writer_that_was_overtaken_goes_on_in_the_newest_segment() {
    let bed = bed(Limits { segment: 500, total: 2000, min_free: 0 });
    let (mut slow, mut fast) = (bed.writer(1), bed.writer(2));
    put(&mut slow, "web.1", b"slow one");
    for number in 0..200u32 {
        put(&mut fast, "web.2", number.to_string().as_bytes());
    }
    put(&mut slow, "web.1", b"slow two");
    let texts = show(&drain(&mut Reader::open(&bed.path)));
    assert_eq!(texts.last().unwrap(), "slow two");
    assert!(bed.segments().len() <= 5, "{:?}", bed.segments());
    assert!(!bed.segments()[0].ends_with(segment_name(1)), "no segment comes back");
}

#[test]
fn a_full_disk_costs_nothing_that_the_ring_holds() {
    let bed = bed(Limits { segment: 1000, total: 64_000, min_free: 0 });
    let mut writer = bed.writer(1);
    // No next segment can be made while a folder stands in its place.
    let blocked = bed.path.join(segment_name(1));
    fs::create_dir(&blocked).unwrap();
    for number in 0..100u32 {
        put(&mut writer, "web.1", number.to_string().as_bytes());
    }
    assert!(writer.is_behind());
    fs::remove_dir(&blocked).unwrap();
    writer.retry();
    assert!(!writer.is_behind());
    let want: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(show(&drain(&mut bed.strict())), want);
}

#[test]
fn what_the_ring_does_not_hold_is_counted() {
    let bed = bed(Limits { segment: 64_000, total: 64_000_000, min_free: 0 });
    let mut writer = bed.writer(1);
    let blocked = bed.path.join(segment_name(1));
    fs::create_dir(&blocked).unwrap();
    for _ in 0..3000 {
        put(&mut writer, "web.1", &[b'x'; 1000]);
    }
    fs::remove_dir(&blocked).unwrap();
    writer.retry();
    let items = drain(&mut bed.strict());
    let gaps = items.iter().filter(|item| matches!(item, Item::Missed { .. })).count();
    assert_eq!((gaps, sums(&items)), (1, (3000, 3000 * 1001)));
    let there = items.iter().filter(|item| matches!(item, Item::Line(_))).count() as u64;
    assert_eq!(writer.lost(), Count { lines: 3000 - there, bytes: (3000 - there) * 1001 });
}

/// The places of the records' marks in a segment.
fn marks(bytes: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(4).enumerate();
    windows.filter(|(_, window)| window == record::MAGIC).map(|(place, _)| place).collect()
}

#[test]
fn damage_costs_the_record_alone() {
    let bed = bed(WIDE);
    let mut writer = bed.writer(1);
    for text in [&b"one"[..], b"two", b"three", b"four", b"five"] {
        put(&mut writer, "web.1", text);
    }
    let path = bed.segments().remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let places = marks(&bytes);
    bytes[places[1] + 10] ^= 0x40;
    // In the text itself.
    bytes[places[4] - 1] ^= 0x40;
    bytes.truncate(bytes.len() - 2);
    fs::write(&path, &bytes).unwrap();
    let mut reader = bed.strict();
    assert_eq!(show(&drain(&mut reader)), ["one", "-1", "three"]);
    let shown = texts(&tail(&bed.path, &Filter::default(), most(9)).unwrap());
    let gap = "Error L10 (output buffer overflow): 1 line dropped";
    assert_eq!(shown, ["one", gap, "three"]);
    assert_eq!(texts(&page(&bed.path, None, &Filter::default(), most(9)).unwrap()), shown);
    let missed = reader.finish(1, &"web.1".into(), writer.taken());
    assert!(matches!(missed, Some(Item::Missed { lines: 2, .. })), "{missed:?}");
}

#[test]
fn a_record_that_was_cut_short_hides_none_behind_it() {
    let bed = bed(WIDE);
    let (mut one, mut two) = (bed.writer(1), bed.writer(2));
    put(&mut one, "web.1", b"cut in the middle by a full disk");
    let path = bed.segments().remove(0);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    put(&mut two, "web.2", b"whole, and longer than what is missing there");
    put(&mut one, "web.1", b"later");
    let items = drain(&mut bed.strict());
    assert_eq!(show(&items), ["whole, and longer than what is missing there", "-1", "later"]);
}

#[test]
fn what_an_app_writes_is_no_record() {
    let bed = bed(WIDE);
    let mut forger = bed.writer(9);
    put(&mut forger, "tolv", b"forged");
    let path = bed.segments().remove(0);
    let forged = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let mut writer = bed.writer(1);
    put(&mut writer, "web.1", &forged);
    let items = drain(&mut bed.strict());
    assert!(items.iter().all(|item| matches!(item, Item::Line(line) if &*line.process == "web.1")));
}

#[test]
fn a_reader_that_is_resumed_goes_on_there_and_counts_what_is_gone() {
    let bed = bed(Limits { segment: 1000, total: 4000, min_free: 0 });
    let mut writer = bed.writer(1);
    let mut reader = bed.strict();
    put(&mut writer, "web.1", b"one");
    let before = drain(&mut reader);
    let text = serde_json::to_string(reader.position()).unwrap();
    for number in 0..500u32 {
        put(&mut writer, "web.1", number.to_string().as_bytes());
    }
    let mut resumed = Reader::resume(&bed.path, serde_json::from_str(&text).unwrap());
    let after = drain(&mut resumed);
    let all = [before, after].concat();
    let Count { lines, bytes } = writer.taken();
    assert_eq!(sums(&all), (lines, bytes));
    assert_eq!(show(&all).last().unwrap(), "499");
    let place: Cursor = reader.cursor().to_string().parse().unwrap();
    assert_eq!(place, reader.cursor());
    assert_eq!(drain(&mut Reader::at(&bed.path, place))[0], Item::Gap);
}

#[test]
fn the_last_lines_that_fit_are_found_from_the_end() {
    let bed = bed(Limits { segment: 1000, total: 64_000, min_free: 0 });
    let (mut web, mut worker) = (bed.writer(1), bed.writer(2));
    for number in 0..200u32 {
        let time = i64::from(number);
        put_at(&mut web, "web.1", format!("web {number}").as_bytes(), time);
        put_at(&mut worker, "worker.1", format!("a\nworker {number}").as_bytes(), time);
    }
    let tail = |filter: &Filter, count| texts(&tail(&bed.path, filter, most(count)).unwrap());
    assert_eq!(tail(&Filter::default(), 3), ["web 199", "a", "worker 199"]);
    let of = |process: &str| Filter { process: Some(process.to_owned()), ..Filter::default() };
    assert_eq!(tail(&of("web"), 2), ["web 198", "web 199"]);
    assert_eq!(tail(&of("web.1"), 1), ["web 199"]);
    assert!(tail(&of("we"), 1).is_empty() && tail(&of("web.11"), 1).is_empty());
    let grep =
        Filter { grep: Some(regex::bytes::Regex::new("^w.* 1[0]+$").unwrap()), ..of("worker") };
    assert_eq!(tail(&grep, 9), ["worker 10", "worker 100"]);
    let between = Filter { since: Some(Micros(5)), until: Some(Micros(7)), ..of("web") };
    assert_eq!(tail(&between, 9), ["web 5", "web 6"]);
    assert_eq!(tail(&Filter { release: Some(4), ..Filter::default() }, 9), [""; 0]);
    assert_eq!(tail(&Filter { source: Some(Source::Tolv), ..Filter::default() }, 9), [""; 0]);
    assert_eq!(tail(&Filter::default(), 1000).len(), 600);
    let lines = last_lines(&bed.path, 2, 2).unwrap();
    assert_eq!(
        lines.iter().map(|line| &line.text[..]).collect::<Vec<_>>(),
        [b"a", &b"worker 199"[..]]
    );
}

#[test]
fn pages_put_together_are_everything() {
    let bed = bed(Limits { segment: 1000, total: 64_000, min_free: 0 });
    let mut writer = bed.writer(1);
    for number in 0..200u32 {
        put(&mut writer, "web.1", number.to_string().as_bytes());
    }
    let (mut cursor, mut all) = (None, Vec::new());
    loop {
        let found = page(&bed.path, cursor, &Filter::default(), most(7)).unwrap();
        assert!(found.lines.len() <= 7 && !found.gap);
        all.extend(texts(&found));
        cursor = Some(found.place);
        if !found.more {
            break;
        }
    }
    assert_eq!(all, (0..200).map(|number| number.to_string()).collect::<Vec<_>>());
    put(&mut writer, "web.1", b"new");
    let found = page(&bed.path, cursor, &Filter::default(), most(7)).unwrap();
    assert_eq!(texts(&found), ["new"]);
}

#[test]
fn pages_and_tails_are_cut_at_lines_and_bytes_within_a_record() {
    let bed = bed(Limits { segment: 3000, total: 64_000, min_free: 0 });
    let (mut writer, mut other) = (bed.writer(1), bed.writer(2));
    let mut want = Vec::new();
    for number in 0..40 {
        let lines: Vec<_> = (0..5).map(|line| format!("{number} {line:030}")).collect();
        put(&mut writer, "web.1", lines.join("\n").as_bytes());
        put(&mut other, "worker.1", b"other");
        want.extend(lines);
    }
    let filter = Filter { process: Some("web".to_owned()), ..Filter::default() };
    // One line, an odd number of them, and fewer bytes than a line has.
    let bounds = [(1, usize::MAX), (7, usize::MAX), (99, 10), (99, 100), (200, 3000)];
    for most in bounds.map(|(lines, bytes)| Most { lines, bytes }) {
        for (asked, wanted) in [(None, &want[..]), (Some(83), &want[want.len() - 83..])] {
            let mut found = match asked {
                None => page(&bed.path, None, &filter, most).unwrap(),
                Some(lines) => tail(&bed.path, &filter, Most { lines, ..most }).unwrap(),
            };
            let mut all = Vec::new();
            loop {
                let bytes: usize = found.lines.iter().map(|line| line.text.len()).sum();
                assert!(bytes <= most.bytes || found.lines.len() == 1, "{bytes}: {most:?}");
                assert!(asked.is_some() || found.lines.len() <= most.lines);
                all.extend(texts(&found));
                if !found.more {
                    break;
                }
                let place = found.place.to_string().parse().unwrap();
                found = page(&bed.path, Some(place), &filter, most).unwrap();
            }
            assert_eq!(all, wanted, "{most:?} {asked:?}");
        }
    }
}

#[test]
fn a_place_reads_back() {
    for text in ["12-4039", "0-0.3", "7-9223372036854775807.2621440"] {
        assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
    }
    let none = ["", "1", "1-2.x", "1-2.-3", ".5", "1-2.3.4", "1-2.+3", "1-2."];
    for text in none.into_iter().chain(["0-0.99999999999", "0-9223372036854775808"]) {
        assert!(text.parse::<Place>().is_err(), "{text}");
    }
}

#[test]
fn a_writer_whose_lines_are_all_gone_is_counted_by_its_end() {
    let bed = bed(Limits { segment: 500, total: 2000, min_free: 0 });
    let mut reader = Reader::at_end(&bed.path).unwrap();
    let (mut gone, mut loud) = (bed.writer(writer_id(1)), bed.writer(writer_id(2)));
    put(&mut gone, "run.1", b"one\ntwo");
    for number in 0..200u32 {
        put(&mut loud, "web.1", number.to_string().as_bytes());
    }
    gone.end(tag("run.1"), Micros(9));
    let items = drain(&mut reader);
    let missed = Item::Missed { source: Source::App, process: "run.1".into(), lines: 2, bytes: 8 };
    assert_eq!(items.last(), Some(&missed));
    assert_eq!(sums(&items).0, 202);
}

#[test]
fn nothing_is_missed_that_was_before_the_reader() {
    let bed = bed(WIDE);
    // It began a few moments ago.
    let mut writer = bed.writer(writer_id(1) - (1 << 20));
    put(&mut writer, "web.1", b"before");
    let mut reader = Reader::at_end(&bed.path).unwrap();
    put(&mut writer, "web.1", b"after");
    assert_eq!(show(&drain(&mut reader)), ["after"]);
}

#[test]
fn a_log_that_is_not_there_is_empty() {
    let missing = Path::new("/nonexistent/log");
    assert_eq!(tail(missing, &Filter::default(), most(5)).unwrap(), Found::default());
    assert_eq!(drain(&mut Reader::open(missing)), []);
    assert!("12".parse::<Cursor>().is_err() && "+1-2".parse::<Cursor>().is_err());
}

proptest! {
    #[test]
    fn no_damage_panics_or_invents(
        lines in prop::collection::vec((any::<bool>(), prop::collection::vec(b'a'..=b'z', 0..30)), 1..30),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let bed = bed(Limits { segment: 300, total: 1 << 20, min_free: 0 });
        let mut writers = [bed.writer(1), bed.writer(2)];
        for (second, line) in &lines {
            put(&mut writers[usize::from(*second)], "web.1", line);
        }
        for path in bed.segments() {
            let mut bytes = fs::read(&path).unwrap();
            let length = bytes.len();
            for (place, byte) in &damage {
                bytes[place.index(length)] = *byte;
            }
            bytes.truncate(cut.index(length) + 1);
            fs::write(&path, bytes).unwrap();
        }
        let mut reader = bed.strict();
        let mut items = drain(&mut reader);
        for (id, writer) in [1, 2].into_iter().zip(&writers) {
            items.extend(reader.finish(id, &"web.1".into(), writer.taken()));
        }
        let written = writers.iter().map(|writer| writer.taken().bytes).sum::<u64>();
        prop_assert_eq!(sums(&items), (lines.len() as u64, written));
    }

    #[test]
    fn a_record_s_head_reads_back(
        name: u8, more: u16, writer: u64, first: u64, before: u64, time: i64, lines: u32,
        release: u32, bits in 0u8..8, err: bool, tolv: bool, sum: u32,
    ) {
        let record = record::Record {
            length: u32::from(name) + u32::from(more),
            writer,
            first,
            before,
            time: Micros(time),
            lines,
            release,
            source: if tolv { Source::Tolv } else { Source::App },
            stream: if err { Stream::Err } else { Stream::Out },
            marks: Marks::from_bits(bits),
            name,
            sum,
        };
        prop_assert_eq!(record::Record::from_bytes(&record.to_bytes()), Some(record));
    }
}

#[test]
fn what_lies_behind_a_cursor_is_known() {
    let bed = bed(Limits { segment: 500, total: 4000, min_free: 0 });
    let mut writer = bed.writer(writer_id(1));
    put(&mut writer, "web.1", b"before");
    let mut reader = Reader::open(&bed.path);
    drain(&mut reader);
    assert_eq!(behind(&bed.path, reader.cursor()).unwrap(), 0);
    for number in 0..20u32 {
        put(&mut writer, "web.1", number.to_string().as_bytes());
    }
    let (whole, before) = (size(&bed.path).unwrap(), reader.cursor().offset);
    assert_eq!(behind(&bed.path, reader.cursor()).unwrap(), whole - before);
    drain(&mut reader);
    assert_eq!(behind(&bed.path, reader.cursor()).unwrap(), 0);
    assert_eq!(behind(Path::new("/nonexistent/log"), reader.cursor()).unwrap(), 0);
}

#[test]
fn a_place_that_knows_fewer_writers_misses_nothing_it_cannot_know() {
    let bed = bed(WIDE);
    let [mut old, mut new] = [1, 2].map(|n| bed.writer(writer_id(0) + (n << 12)));
    let mut reader = Reader::at_end(&bed.path).unwrap();
    put(&mut old, "web.1", b"one");
    put(&mut new, "web.2", b"one");
    drain(&mut reader);
    let place = reader.position().newest(1);
    put(&mut old, "web.1", b"two");
    put(&mut new, "web.2", b"two");
    let items = drain(&mut Reader::resume(&bed.path, place));
    assert_eq!(show(&items), ["two", "two"]);
}

/// A disk that has less room than has to stay: each new segment takes the place of an old one.
#[test]
fn on_a_full_disk_the_log_goes_on_and_does_not_grow() {
    let mut bed = bed(Limits { segment: 1000, total: 64_000, min_free: 0 });
    let size = |bed: &Bed| -> u64 {
        bed.segments().iter().map(|segment| fs::metadata(segment).unwrap().len()).sum()
    };
    let mut writer = bed.writer(1);
    let fill = |writer: &mut Writer| {
        (0..100).for_each(|number| put(writer, "web.1", format!("{number:0100}").as_bytes()));
    };
    fill(&mut writer);
    let before = size(&bed);
    assert!(before > 10_000, "{before} bytes");
    bed.limits.min_free = u64::MAX;
    let mut writer = bed.writer(2);
    fill(&mut writer);
    let after = size(&bed);
    assert!(after <= before + 1200, "{before} bytes became {after}");
    assert_eq!(writer.lost(), Count::default());
}
