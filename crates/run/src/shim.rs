//! The shim: the parent of one app process, inside its sandbox.
//!
//! A single-threaded poll loop that owns the app's pipes, writes to the log of its deploy, and holds its exit
//! status. It wakes up for output, signals, orders and its own deadlines, and for nothing else.
//!
//! ```text
//!              leader ends                 nobody is left
//!  Running ─────────────────▶ Sweeping ─────────────────▶ drained, `exited`, end
//!     │ stop: SIGTERM to the     │ SIGTERM to the rest, then SIGKILL
//!     ▼ leader, a deadline       ▼
//!  (deadline: SIGKILL to everything)
//! ```
//!
//! # Invariants
//!
//! * The leader's end is not the group's: whatever it left below the shim, `setsid` and double
//!   forks included, is told to go and then killed, before `exited` is said.
//! * `exited` is said after all output is in the log.
//! * Neither a full disk nor a deaf supervisor stops the app or the loop.
//! * With a door it outlives its supervisor, and so does `exited`, until somebody has heard it or a
//!   day is over. Where the folder of its log is removed meanwhile nobody comes any more: it ends.

mod hand;
mod quota;
mod socket;
mod stdio;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::stdio::dup2_stderr;
use tolv_logs::framer::Framer;
use tolv_logs::store::Writer;
use tolv_logs::{Micros, Stream};
use tolv_sandbox::{
    Body, Ended as End, Entered, Level, Memory, ProcessCount, SignalFd, has_children,
    is_peer_confined, kill_descendants, reap_all, signal_descendants,
};

use crate::protocol::frozen::{self, Exited, Hello};
use crate::protocol::{Ended, Head, Order, Orders, PACKET, TETHER, ToShim, Word, version};
use crate::shim::hand::Hand;
use crate::shim::quota::Quota;
use crate::shim::socket::{Door, is_heard, receive, say};
use crate::shim::stdio::{Bad, Stdio};

/// The shim's name and function, for `tolv_sandbox::spawner_main`.
pub const SHIM: (&str, Body) = ("shim", shim);

/// Between two looks for refused forks, where the kernel does not tell of them.
const FORKS: Duration = Duration::from_millis(500);
/// An unfinished line goes out after this long without more.
const IDLE_LINE: Duration = Duration::from_millis(200);
/// Between two tries of a disk that took nothing.
const RETRY: Duration = Duration::from_millis(500);
/// Between two looks, without a supervisor, whether there can be another: wake-ups of nobody else.
const FOLDER: Duration = Duration::from_secs(5);
/// What a leader that ended by itself left behind has this long after SIGTERM.
const SWEEP: Duration = Duration::from_secs(1);
/// For output that somebody outside still holds the pipe of.
const DRAIN: Duration = Duration::from_millis(200);
/// For the supervisor to take the last word.
const LAST_WORD: Duration = Duration::from_secs(2);
/// For another supervisor to come and hear it, where this one is gone.
const UNHEARD: Duration = Duration::from_secs(24 * 3600);

/// Exit codes of the shim itself; nobody but a debugger looks at them.
fn shim(entered: Entered) -> i32 {
    match Shim::start(entered) {
        Ok(Some(shim)) => shim.run(),
        Ok(None) => 0,
        Err(_) => 1,
    }
}

/// One of the two pipes.
struct Pipe {
    stream: Stream,
    /// Nothing once it is at its end.
    file: Option<File>,
    framer: Framer,
    /// When its unfinished line goes out.
    flush_at: Option<Instant>,
}

impl Pipe {
    fn new(stream: Stream, end: Option<OwnedFd>) -> Self {
        Self { stream, file: end.map(File::from), framer: Framer::new(), flush_at: None }
    }

    /// One read; whether it brought something.
    fn read(&mut self, log: &mut Hand) -> bool {
        let Some(file) = &mut self.file else { return false };
        let read = match file.read(self.framer.space()) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => 0,
        };
        let (time, stream) = (Micros::now(), self.stream);
        if read == 0 {
            self.end(log);
            return false;
        }
        self.framer.filled(read, |batch| log.append(stream, time, batch));
        self.flush_at = self.framer.is_pending().then(|| Instant::now() + IDLE_LINE);
        true
    }

    fn flush_if_idle(&mut self, now: Instant, log: &mut Hand) {
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_at = None;
            let stream = self.stream;
            self.framer.flush(false, |batch| log.append(stream, Micros::now(), batch));
        }
    }

    fn end(&mut self, log: &mut Hand) {
        self.file = None;
        self.flush_at = None;
        let stream = self.stream;
        self.framer.flush(true, |batch| log.append(stream, Micros::now(), batch));
    }
}

/// The watch over refused forks.
#[derive(Default)]
struct Forks {
    is_told: bool,
    looked: Option<Instant>,
    look_at: Option<Instant>,
}

struct Shim {
    entered: Entered,
    control: Option<OwnedFd>,
    door: Option<Door>,
    signals: SignalFd,
    pipes: [Pipe; 2],
    log: Hand,
    leader: Pid,
    /// Whether it was told to end.
    stopping: bool,
    /// Whether that was by a platform that has no other way to it: nobody comes to hear how it ends.
    dismissed: bool,
    /// How the leader ended.
    end: Option<End>,
    /// Whether the rest got its SIGTERM.
    swept: bool,
    /// When everything is killed.
    kill_at: Option<Instant>,
    /// Ring once there are more lines than this.
    armed: Option<u64>,
    retry_at: Option<Instant>,
    /// Over its memory.
    quota: Quota,
    /// Kills for want of memory that were told.
    oom_told: u64,
    forks: Forks,
}

impl Shim {
    /// Executes the app; nothing where it could not be, which is said.
    fn start(mut entered: Entered) -> io::Result<Option<Self>> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let orders = Orders::from_bytes(&entered.payload).ok_or_else(invalid)?;
        entered.payload = Vec::new();
        let mut fds = std::mem::take(&mut entered.fds).into_iter();
        let (Some(control), Some(folder)) = (fds.next(), fds.next()) else {
            return Err(invalid());
        };
        let signals = SignalFd::new(&[libc::SIGCHLD, libc::SIGTERM])?;
        let Head { process, release, writer, log, io, identity, .. } = orders.head.clone();
        let door = match identity {
            Some(identity) => Some(Door { listener: fds.next().ok_or_else(invalid)?, identity }),
            None => None,
        };
        if door.is_some() {
            // Whoever waits for the end of the supervisor's output does not wait for this too.
            dup2_stderr(File::options().write(true).open("/dev/null")?)?;
        }
        let log = Hand { process, release, writer: Writer::new(folder, writer, log) };
        let stdio = match Stdio::new(io, fds) {
            Ok(stdio) => Ok(stdio),
            Err(Bad::Exec(error)) => Err(error),
            Err(Bad::Io(error)) => return Err(error),
        };
        let cwd = Path::new(&orders.head.cwd);
        let executed = stdio.and_then(|stdio| {
            let leader = entered.exec(&orders.argv, &orders.env, cwd, stdio.app())?;
            Ok((leader, stdio.ours))
        });
        let (leader, [out, err]) = match executed {
            Ok(executed) => executed,
            Err(error) => {
                let word = Word::exec_failed(error.errno, &error.what);
                say(&control, word, LAST_WORD);
                return Ok(None);
            }
        };
        let started = Word::Started { pid: leader.as_raw_nonzero().get() };
        say(&control, started, Duration::ZERO);
        if let Some(memory) = entered.memory() {
            memory.watch();
            // What was before it is no hint.
            memory.clear();
        }
        let mut forks = Forks::default();
        if let Some(processes) = entered.processes() {
            processes.refused();
            // One that does nothing but fork wakes nobody.
            let asks = processes.hint().is_none();
            forks.look_at = asks.then(|| Instant::now() + FORKS);
        }
        Ok(Some(Self {
            entered,
            control: Some(control),
            door,
            signals,
            pipes: [Pipe::new(Stream::Out, out), Pipe::new(Stream::Err, err)],
            log,
            leader,
            stopping: false,
            dismissed: false,
            end: None,
            swept: false,
            kill_at: None,
            armed: None,
            retry_at: None,
            quota: Quota::default(),
            oom_told: 0,
            forks,
        }))
    }

    fn run(mut self) -> i32 {
        loop {
            self.wait();
            let now = Instant::now();
            self.obey(now);
            self.look_at_folder(now);
            for (pid, end) in reap_all() {
                if pid == self.leader {
                    self.end = Some(end);
                }
            }
            if self.end.is_some() && !self.sweep(now) {
                break;
            }
            if self.kill_at.is_some_and(|at| at <= now) {
                self.kill();
                break;
            }
            for pipe in &mut self.pipes {
                pipe.flush_if_idle(now, &mut self.log);
            }
            if self.retry_at.is_none_or(|at| at <= now) {
                self.log.writer.retry();
                self.retry_at = self.log.writer.is_behind().then(|| now + RETRY);
            }
            self.ring();
            self.look_at_memory(now);
        }
        self.finish();
        0
    }

    /// Sleeps until something happens, and takes in the output that came.
    fn wait(&mut self) {
        let deadlines = self.pipes.iter().map(|pipe| pipe.flush_at);
        let others = [self.kill_at, self.retry_at, self.quota.look_at, self.forks.look_at];
        let folder_at = self.is_alone().then(|| Instant::now() + FOLDER);
        let next = deadlines.chain(others).chain([folder_at]).flatten().min();
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|limit| Timespec::try_from(limit).ok());
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        fds.extend(self.control.iter().map(|control| PollFd::new(control, PollFlags::IN)));
        let door = self.door.as_ref().filter(|_| self.control.is_none());
        fds.extend(door.iter().map(|door| PollFd::new(&door.listener, PollFlags::IN)));
        let places = self.pipes.each_ref().map(|pipe| {
            pipe.file.as_ref().map(|file| {
                fds.push(PollFd::new(file, PollFlags::IN));
                fds.len() - 1
            })
        });
        let memory = self.entered.memory().filter(|_| self.quota.is_quiet());
        let memory = memory.and_then(|memory| Some((memory, memory.hint()?)));
        let memory_at = fds.len();
        fds.extend(memory.iter().map(|(_, (fd, what))| PollFd::new(fd, *what)));
        let processes = self.entered.processes().filter(|_| !self.forks.is_told);
        let processes_at = fds.len();
        let hint = processes.and_then(ProcessCount::hint);
        fds.extend(hint.iter().map(|(fd, what)| PollFd::new(fd, *what)));
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return;
        }
        let is_ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        if let Some((memory, _)) = &memory
            && is_ready(memory_at)
        {
            memory.clear();
            self.quota.hint(Instant::now());
        }
        let is_refused = is_ready(processes_at);
        let ready = places.map(|place| place.is_some_and(|at| !fds[at].revents().is_empty()));
        drop(fds);
        self.look_at_forks(is_refused);
        self.look_at_signals();
        for (pipe, ready) in self.pipes.iter_mut().zip(ready) {
            if ready {
                pipe.read(&mut self.log);
            }
        }
    }

    /// Whether another supervisor may come.
    fn is_alone(&self) -> bool {
        self.control.is_none() && self.door.is_some()
    }

    /// A platform that finds no way to this shim on the disk sends SIGTERM, and kills it later on. To
    /// one that has a supervisor nobody else has anything to say.
    fn look_at_signals(&mut self) {
        let is_told = self.signals.drain().contains(&libc::SIGTERM);
        if is_told && self.is_alone() {
            self.dismissed = true;
            self.stop(libc::SIGTERM, None);
        }
    }

    /// Ends where the state folder is gone, and every supervisor that there could be with it.
    fn look_at_folder(&mut self, now: Instant) {
        if self.is_alone() && self.log.writer.is_folder_gone() {
            self.door = None;
            self.stop(libc::SIGTERM, Some(now + TETHER));
        }
    }

    /// Lets the next supervisor in, if one is at the door.
    fn admit(&mut self) {
        let (None, Some(door)) = (&self.control, &self.door) else { return };
        let Ok(control) = accept_with(&door.listener, SocketFlags::CLOEXEC) else { return };
        // Where apps run as the platform's user and see its processes, one of them may connect.
        if self.entered.spec.level == Level::Landlock && is_peer_confined(&control) {
            return;
        }
        let hello = Hello {
            version: version(),
            process: self.log.process.clone(),
            release: self.log.release,
            writer: self.log.writer.id(),
            identity: door.identity.clone(),
            written: self.log.written(),
            stopping: self.stopping,
        };
        say(&control, frozen::Word::Hello(hello), LAST_WORD);
        self.control = Some(control);
    }

    /// Takes in what the supervisor said.
    fn obey(&mut self, now: Instant) {
        self.admit();
        let mut packet = [0; PACKET];
        while let Some(control) = &self.control {
            match receive(control, &mut packet) {
                // Hung up without having read a word: its orders come behind this error.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(Errno::AGAIN) => return,
                Ok((read, fd)) if read > 0 => match ToShim::from_bytes(&packet[..read]) {
                    Some(ToShim::Frozen(frozen::Order::Stop { signal, grace_ms })) => {
                        let grace = Duration::from_millis(grace_ms);
                        self.stop(signal, now.checked_add(grace));
                    }
                    Some(ToShim::Versioned(Order::Signal { signal })) => self.signal(signal),
                    Some(ToShim::Versioned(Order::Kill)) => {
                        self.stopping = true;
                        self.kill_at = Some(now);
                    }
                    Some(ToShim::Versioned(Order::Arm { lines })) => self.armed = Some(lines),
                    Some(ToShim::Versioned(Order::Count)) => {
                        say(control, Word::Bell(self.log.written()), Duration::ZERO);
                    }
                    Some(ToShim::Versioned(Order::Door)) => {
                        if let (Some(door), Some(listener)) = (&mut self.door, fd) {
                            door.listener = listener;
                        }
                    }
                    // Only of an end; or a supervisor of another version, who can still hang up.
                    Some(ToShim::Frozen(frozen::Order::Heard)) | None => {}
                },
                Ok(_) | Err(_) => {
                    self.control = None;
                    self.armed = None;
                    if self.door.is_none() {
                        self.stop(libc::SIGTERM, Some(now + TETHER));
                    }
                }
            }
        }
    }

    /// Without a deadline where that is beyond the clock.
    fn stop(&mut self, signal: i32, kill_at: Option<Instant>) {
        self.stopping = true;
        self.kill_at = self.kill_at.into_iter().chain(kill_at).min();
        if self.end.is_none() {
            let signal = Signal::from_named_raw(signal).unwrap_or(Signal::TERM);
            // Gone already is seen at the next reaping.
            kill_process(self.leader, signal).ok();
        }
    }

    fn signal(&self, signal: i32) {
        if let (None, Some(signal)) = (self.end, Signal::from_named_raw(signal)) {
            kill_process_group(self.leader, signal).ok();
        }
    }

    /// The leader has ended: whether somebody is still left below.
    fn sweep(&mut self, now: Instant) -> bool {
        if !has_children() {
            return false;
        }
        if !self.swept {
            self.swept = true;
            signal_descendants(Signal::TERM);
            // On a stop the grace period is the whole group's: what does the work may stand behind
            // a wrapper (`npm run job`) that ends at once.
            let stopping = self.stopping.then_some(self.kill_at).flatten();
            self.kill_at = Some(stopping.unwrap_or(now + SWEEP));
        }
        true
    }

    fn kill(&mut self) {
        for (pid, end) in kill_descendants() {
            if pid == self.leader {
                self.end = Some(end);
            }
        }
    }

    fn look_at_memory(&mut self, now: Instant) {
        if self.quota.look_at.is_none_or(|at| at > now) {
            return;
        }
        // Before the look: what comes behind it is a hint again.
        let memory = self.entered.memory().inspect(|memory| memory.clear());
        let found = memory.and_then(Memory::usage);
        self.tell_kills();
        if self.quota.looked(now, found)
            && let (Some(found), Some(control)) = (found, &self.control)
        {
            let word = Word::Memory { held: found.held, limit: found.limit };
            say(control, word, Duration::ZERO);
        }
    }

    /// Says once that a fork was refused. Where the kernel does not tell (v1), whatever else wakes the
    /// shim is a reason to ask, now and then: what cannot fork, or has lost a worker, says so.
    fn look_at_forks(&mut self, is_refused: bool) {
        let (processes, memory) = (self.entered.processes(), self.entered.memory());
        let now = Instant::now();
        if !is_refused {
            let next = match self.forks.looked {
                _ if is_told(processes, memory) => return,
                Some(looked) => looked + FORKS,
                None => now,
            };
            if next > now {
                self.forks.look_at = Some(next);
                return;
            }
        }
        self.forks.looked = Some(now);
        self.forks.look_at = None;
        if let (false, Some(control), Some(processes)) =
            (self.forks.is_told, &self.control, processes)
            && processes.refused() > 0
        {
            say(control, Word::ForkRefused { limit: processes.limit() }, Duration::ZERO);
            self.forks.is_told = true;
        }
        self.tell_kills();
    }

    /// A worker that was killed while its leader lives on is told of at once.
    fn tell_kills(&mut self) {
        let (kills, Some(memory)) = (self.entered.oom_kills(), self.entered.memory()) else {
            return;
        };
        if let (true, Some(control)) = (kills > self.oom_told && self.end.is_none(), &self.control)
        {
            let word = Word::Killed { kills: kills - self.oom_told, limit: memory.limit() };
            say(control, word, Duration::ZERO);
            self.oom_told = kills;
        }
    }

    fn ring(&mut self) {
        if self.armed.is_some_and(|lines| self.log.writer.taken().lines > lines)
            && let Some(control) = &self.control
        {
            self.armed = None;
            say(control, Word::Bell(self.log.written()), Duration::ZERO);
        }
    }

    /// Everything is gone: takes in what is left in the pipes, and says how it ended.
    fn finish(mut self) {
        let deadline = Instant::now() + DRAIN;
        for pipe in &mut self.pipes {
            while pipe.file.is_some() && Instant::now() < deadline {
                // Empty but open: somebody outside holds it, and what he writes is not ours.
                if !pipe.read(&mut self.log) {
                    break;
                }
            }
            pipe.end(&mut self.log);
        }
        self.log.end();
        let (code, signal) = match self.end {
            Some(End::Exited(code)) => (Some(code), None),
            Some(End::Signaled(signal)) => (None, Some(signal)),
            None => (None, Some(libc::SIGKILL)),
        };
        self.forks.looked = None;
        self.look_at_forks(false);
        let all = self.entered.oom_kills();
        let oom_kills = all.saturating_sub(self.oom_told);
        // The kill of the leader may have been told of before its end was seen; a shell says it so.
        let is_kill = signal == Some(libc::SIGKILL) || code == Some(128 + libc::SIGKILL);
        let out_of_memory = oom_kills > 0 || all > 0 && is_kill && !self.stopping;
        let memory_limit = self.entered.memory().map_or(0, Memory::limit);
        let written = self.log.written();
        let exited = Exited { code, signal, written };
        let ended = Ended { exited, oom_kills, out_of_memory, memory_limit };
        let until = Instant::now() + UNHEARD;
        loop {
            if let Some(control) = &self.control {
                say(control, frozen::Word::Exited(ended), LAST_WORD);
            }
            let Some(door) = &self.door else { return };
            if self.control.take().is_some_and(|control| is_heard(&control)) {
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            if self.dismissed || left.is_zero() || self.log.writer.is_folder_gone() {
                return;
            }
            let timeout = Timespec::try_from(left.min(FOLDER)).ok();
            let mut fds = [&door.listener as &dyn AsFd, &self.signals]
                .map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
            poll(&mut fds, timeout.as_ref()).ok();
            self.look_at_signals();
            self.admit();
        }
    }
}

/// Whether the kernel tells by itself of refused forks and of kills.
fn is_told(processes: Option<&ProcessCount>, memory: Option<&Memory>) -> bool {
    processes.is_none_or(|processes| processes.hint().is_some())
        && memory.is_none_or(Memory::tells_kills)
}
