//! What comes out of a process comes out of the engine.

use std::fs;
use std::time::Duration;

use tolv_logs::store;
use tolv_logs::{Line, Source, Stream};
use tolv_run::Exit;
use tolv_testkit::poll;

use crate::bed::{Bed, SOON, best, each_level, text};

fn of_app(lines: &[Line], stream: Stream) -> Vec<Line> {
    let its = |line: &&Line| line.source == Source::App && line.stream == stream;
    lines.iter().filter(its).cloned().collect()
}

#[test]
fn bytes_stay_what_they_are() {
    each_level(|level| {
        let mut bed = Bed::new(level);
        let command = r#"perl -e 'binmode STDOUT; print "plain\n\n\xff\xfe\0\x1b[1m\r\nlast"; \
                         print STDERR "oops\n"'"#;
        assert_eq!(bed.run(command).unwrap(), Exit::Code(0));
        bed.stop();
        let lines = bed.lines();
        let out: Vec<_> = of_app(&lines, Stream::Out).into_iter().map(|line| line.text).collect();
        assert_eq!(out, [&b"plain"[..], b"", b"\xff\xfe\0\x1b[1m", b"last"], "{level}");
        let err = of_app(&lines, Stream::Err);
        assert_eq!(err.iter().map(text).collect::<Vec<_>>(), ["oops"], "{level}");
        assert!(lines.iter().all(|line| &*line.process == "run.1"));
    });
}

#[test]
fn an_unfinished_line_comes_without_its_end_and_goes_on_later() {
    let bed = Bed::new(best());
    let command = "printf 'Password: '; while [ ! -e $SHARED/go ]; do sleep 0.01; done; \
                   printf 'wrong\\n'; exec sleep $MARK";
    bed.converge(bed.target(1, &[("worker", command, 1)])).unwrap();
    bed.wait_for_line("worker.1", "Password: ");
    fs::write(bed.shared().join("go"), "").unwrap();
    bed.wait_for_line("worker.1", "wrong");
    let pieces = of_app(&bed.lines(), Stream::Out);
    let marks: Vec<_> = pieces.iter().map(|line| line.marks).collect();
    assert!(marks[0].more && !marks[0].continued && !marks[0].long, "{pieces:?}");
    assert!(!marks[1].more && marks[1].continued, "{pieces:?}");
}

#[test]
fn a_long_line_comes_in_pieces_that_make_it_up() {
    let mut bed = Bed::new(best());
    let exit = bed.run("perl -e 'print \"abcdefghij\" x 2_500, \"\\nnext\\n\"'").unwrap();
    assert!(exit.is_success());
    bed.stop();
    let pieces = of_app(&bed.lines(), Stream::Out);
    assert_eq!(
        pieces.iter().map(|line| line.text.len()).collect::<Vec<_>>(),
        [10_000, 10_000, 5000, 4]
    );
    let whole: String = pieces[..3].iter().map(text).collect();
    assert_eq!(whole, "abcdefghij".repeat(2500));
    assert!(pieces[0].marks.long && pieces[0].marks.more && !pieces[0].marks.continued);
    assert!(pieces[2].marks.continued && !pieces[2].marks.more);
    assert_eq!(text(&pieces[3]), "next");
    assert_eq!(pieces[3].marks, tolv_logs::Marks::default());
}

#[test]
fn much_output_comes_whole_and_in_order() {
    let mut bed = Bed::new(best());
    let exit = bed.run("seq 200000").unwrap();
    assert!(exit.is_success());
    bed.stop();
    let lines = of_app(&bed.lines(), Stream::Out);
    assert_eq!(lines.len(), 200_000);
    for (number, line) in (1..).zip(&lines) {
        assert_eq!(line.text, number.to_string().as_bytes());
    }
    let said = bed.said("run.1");
    assert!(said.iter().all(|line| !line.contains("L10")), "{said:?}");
}

#[test]
fn a_reader_that_does_not_read_holds_up_no_app_and_what_it_missed_is_counted() {
    const LINES: u64 = 400_000;
    let (bed, mut lines) = Bed::unread(best(), |settings| settings.logs_bytes = 1 << 20);
    // It ends although nobody has read a line.
    assert_eq!(bed.run(&format!("seq {LINES}")).unwrap(), Exit::Code(0));
    let stop = bed.runtime().spawn({
        let engine = bed.engine().clone();
        async move { engine.stop().await }
    });
    let (mut came, mut said, mut dropped, mut last) = (0, 0, 0, String::new());
    while let Some(line) = lines.blocking_recv() {
        let text = text(&line);
        if line.source == Source::App {
            came += 1;
            last = text;
        } else if let Some(count) = text.strip_prefix("Error L10 (output buffer overflow): ") {
            dropped += count.split(' ').next().unwrap().parse::<u64>().unwrap();
        } else {
            said += 1;
        }
    }
    bed.runtime().block_on(stop).unwrap();
    assert!(dropped > 0 && came > 0, "{came} came, {dropped} were dropped");
    // Of what the platform said of it (that it starts, is up, exited, is complete) some may be
    // among the dropped.
    assert_eq!(came + said + dropped, LINES + 4);
    // The oldest make room, not the newest.
    assert_eq!(last, LINES.to_string());
}

#[test]
fn a_slow_reader_of_one_process_holds_up_no_other() {
    let (bed, mut lines) = Bed::unread(best(), |settings| {
        settings.logs_bytes = 1 << 20;
        settings.timing.uptime = Duration::from_millis(20);
    });
    let noisy = "yes 'a line that is long enough to fill a log'";
    let beat = "while true; do echo . >> $SHARED/beats; sleep 0.01; done";
    bed.converge(bed.target(1, &[("noisy", noisy, 1), ("worker", beat, 1)])).unwrap();
    let beats = || fs::read(bed.shared().join("beats")).unwrap_or_default().len();
    poll(SOON, "both to have run", || (beats() > 20).then_some(()));
    let logged = || store::size(&bed.shared().with_file_name("logs")).unwrap();
    poll(SOON, "a full log", || (logged() > 800 << 10).then_some(()));
    assert!(logged() < 3 << 20);
    let before = beats();
    poll(SOON, "the worker to go on", || (beats() > before + 4).then_some(()));
    // The engine hears commands all the same.
    bed.runtime().block_on(async {
        let read = async { while lines.recv().await.is_some() {} };
        tokio::join!(bed.engine().stop(), read);
    });
    assert!(bed.left().is_empty());
}

#[test]
fn old_lines_make_room_for_new_ones() {
    let bed = Bed::with(best(), |settings| settings.logs_bytes = 512 << 10);
    for _ in 0..8 {
        bed.run("seq 40000").unwrap();
    }
    let logs = bed.shared().with_file_name("logs");
    let size = store::size(&logs).unwrap();
    assert!(size > 256 << 10 && size <= 640 << 10, "{size}");
}
