//! One-offs with words, pipes and terminals.

use std::time::Duration;

use tolv_model::env::EnvName;
use tolv_model::run::{Argv, WindowSize};
use tolv_run::{Connection, Ending, Exit, Job, Reason, Running, Streams};

use crate::bed::{Bed, SOON, best, each_level};

const SIZE: WindowSize = WindowSize { rows: 40, columns: 132 };

fn job(bed: &Bed, words: &[&str], connection: Connection) -> Job {
    Job {
        target: bed.target(1, &[]),
        name: "run.1".parse().unwrap(),
        argv: Argv::new(words.iter().map(|word| word.as_bytes().to_vec()).collect()).unwrap(),
        env: Vec::new(),
        connection,
        limit: SOON,
    }
}

fn begin(bed: &Bed, job: Job) -> Running {
    let _inside = bed.runtime().enter();
    bed.engine().begin(job).unwrap()
}

/// What is there until its end, after this was typed.
fn talk(bed: &Bed, job: Job, input: &[u8]) -> (String, Ending) {
    let mut running = begin(bed, job);
    bed.runtime().block_on(async {
        let (_, streams) = (&mut running.started).await.unwrap();
        let Streams { input: to, outputs } = streams.unwrap();
        let write = async {
            let mut rest = input;
            while !rest.is_empty() {
                let written = to.write(rest).await.unwrap();
                rest = &rest[written..];
            }
            // A terminal must stay open: its hang-up would end the process.
            to.is_terminal().then_some(to)
        };
        let mut all = Vec::new();
        let read = async {
            for (_, output) in &outputs {
                let mut buffer = [0; 4096];
                loop {
                    match output.read(&mut buffer).await.unwrap() {
                        0 => break,
                        read => all.extend_from_slice(&buffer[..read]),
                    }
                }
            }
        };
        let both = tokio::time::timeout(SOON, async { tokio::join!(write, read) });
        both.await.expect("it ends in time");
        let ending = (&mut running.ended).await.unwrap().unwrap();
        (String::from_utf8_lossy(&all).into_owned(), ending)
    })
}

async fn read_until(streams: &Streams, wanted: &str) {
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    while !seen.contains(wanted) {
        let read = streams.outputs[0].1.read(&mut buffer);
        let read = tokio::time::timeout(SOON, read).await.unwrap_or(Ok(0)).unwrap();
        assert_ne!(read, 0, "no {wanted:?} in {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
}

fn code(code: i32) -> Ending {
    Ending { exit: Exit::Code(code), reason: None, late: false }
}

#[test]
fn words_arrive_as_they_are_and_pipes_carry_everything() {
    each_level(|level| {
        let bed = Bed::new(level);
        let script = "printf '<%s>' \"$@\"; cat; echo to stderr >&2; exit 3";
        let words = ["sh", "-c", script, "sh", "a  b", "", "*", "$HOME", "it's"];
        let (output, ending) = talk(&bed, job(&bed, &words, Connection::Pipes), b"typed");
        assert_eq!(output, "<a  b><><*><$HOME><it's>typedto stderr\n", "{level}");
        assert_eq!(ending, code(3));
        assert!(bed.output("run.1").is_empty(), "{level}: its output is not the log's");
        // More than any pipe holds, both ways.
        let large = vec![b'x'; 3 << 20];
        let (output, ending) = talk(&bed, job(&bed, &["cat"], Connection::Pipes), &large);
        assert_eq!((output.len(), ending), (large.len(), code(0)), "{level}");
    });
}

#[test]
fn a_terminal_is_the_processs_own() {
    each_level(|level| {
        let bed = Bed::new(level);
        let script = "stty size; test \"$(readlink /proc/self/fd/0)\" = \"$(tty)\" && test -c \"$(tty)\" \
            && : > \"$(tty)\" && : < /dev/tty && echo mine; read line; echo \"<$line>\"; exit 4";
        let terminal = Connection::Terminal(SIZE);
        let (output, ending) = talk(&bed, job(&bed, &["sh", "-c", script], terminal), b"hello\n");
        assert!(output.contains("40 132\r\n"), "{level}: {output:?}");
        assert!(output.contains("mine\r\n") && output.contains("<hello>\r\n"), "{level}: {output}");
        assert_eq!(ending, code(4), "{level}");
        // Ctrl-C is for the process at the terminal, Ctrl-D for whoever reads it.
        let script = "trap 'echo caught; exit 5' INT; cat > /dev/null; echo read; \
            while :; do sleep 0.05; done";
        let mut running = begin(&bed, job(&bed, &["sh", "-c", script], terminal));
        bed.runtime().block_on(async {
            let (_, streams) = (&mut running.started).await.unwrap();
            let streams = streams.unwrap();
            assert_eq!(streams.input.write(b"x\n\x04").await.unwrap(), 3);
            read_until(&streams, "read\r\n").await;
            assert_eq!(streams.input.write(b"\x03").await.unwrap(), 1);
            read_until(&streams, "caught\r\n").await;
            assert_eq!((&mut running.ended).await.unwrap().unwrap(), code(5), "{level}");
        });
        assert!(bed.left().is_empty(), "{level}: {:?}", bed.left());
    });
}

#[test]
fn a_terminal_can_be_resized_and_a_stop_hangs_it_up() {
    let bed = Bed::new(best());
    // Ignores SIGTERM, as an interactive shell does.
    let script = "trap '' TERM; trap 'stty size' WINCH; echo begun; while :; do sleep 0.05; done";
    let terminal = Connection::Terminal(SIZE);
    let mut running = begin(&bed, job(&bed, &["sh", "-c", script], terminal));
    bed.runtime().block_on(async {
        let (handle, streams) = (&mut running.started).await.unwrap();
        let streams = streams.unwrap();
        read_until(&streams, "begun").await;
        handle.resize(50, 100);
        read_until(&streams, "50 100").await;
        running.stop.stop();
        let ending = (&mut running.ended).await.unwrap().unwrap();
        assert_eq!(ending.exit, Exit::Signal(1));
        // After the end nothing of this has an effect, and nothing fails.
        handle.resize(1, 1);
        handle.signal(2);
    });
}

#[test]
fn signals_reach_the_group_of_the_process() {
    let bed = Bed::new(best());
    // The one that hears it is not the leader, which waits for it.
    let script = "trap : INT; sh -c \"trap 'echo got it; exit 6' INT; echo begun; \
        while :; do sleep 0.05; done\"; exit $?";
    let mut running = begin(&bed, job(&bed, &["sh", "-c", script], Connection::Pipes));
    bed.runtime().block_on(async {
        let (handle, streams) = (&mut running.started).await.unwrap();
        let streams = streams.unwrap();
        let mut buffer = [0; 64];
        let read = streams.outputs[0].1.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..read], b"begun\n");
        handle.signal(2);
        let read = streams.outputs[0].1.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..read], b"got it\n");
        assert_eq!((&mut running.ended).await.unwrap().unwrap(), code(6));
    });
}

#[test]
fn variables_are_over_those_of_the_release_and_the_log_has_the_rest() {
    let bed = Bed::new(best());
    let mut job = job(&bed, &["sh", "-c", "echo $MARK $DYNO"], Connection::Log);
    let name: EnvName = "MARK".parse().unwrap();
    job.env = vec![(name, b"mine".to_vec())];
    let mut running = begin(&bed, job);
    bed.runtime().block_on(async {
        assert!((&mut running.started).await.unwrap().1.is_none());
        assert_eq!((&mut running.ended).await.unwrap().unwrap(), code(0));
    });
    bed.wait_for_line("run.1", "mine run.1");
    bed.wait_for_line("run.1", "Starting process with command `sh`");
}

#[test]
fn what_cannot_be_executed_and_what_takes_too_long_is_said() {
    each_level(|level| {
        let bed = Bed::new(level);
        for connection in [Connection::Log, Connection::Pipes, Connection::Terminal(SIZE)] {
            for (program, status) in [("no-such-program", 127), ("./web.pl", 126)] {
                let mut running = begin(&bed, job(&bed, &[program], connection));
                let ending = bed.runtime().block_on(&mut running.ended).unwrap().unwrap();
                let exit = Exit::Code(status);
                let reason = Some(Reason::CommandNotFound(exit));
                assert_eq!(ending, Ending { exit, reason, late: false }, "{level}: {connection:?}");
                assert!(bed.runtime().block_on(&mut running.started).is_err());
            }
        }
    });
    let bed = Bed::new(best());
    let mut late = job(&bed, &["sleep", &bed.mark], Connection::Pipes);
    late.limit = Duration::from_millis(300);
    let mut running = begin(&bed, late);
    let ending = bed.runtime().block_on(&mut running.ended).unwrap().unwrap();
    assert_eq!(ending, Ending { exit: Exit::Signal(15), reason: None, late: true });
    // Nobody who wants it any more.
    drop(begin(&bed, job(&bed, &["sleep", &bed.mark], Connection::Pipes)));
    bed.wait_until_none_is_left();
}
