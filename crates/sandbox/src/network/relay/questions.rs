//! Questions by UDP: each goes to the name servers that the machine has when it is asked, one after
//! another, until one answers.
//!
//! The process knows one server, the relay, and leaves the choice among the machine's to it. As the
//! C library does (resolv.conf(5)), the next one is asked where one refuses, fails or is silent.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::{MAX_QUESTIONS, is_passing};
use crate::network::names::{MAX_SERVERS, Servers};

/// For a name server to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Until the next server is asked too: all are, before the C library asks again after five seconds.
const NEXT_SERVER_DELAY: Duration = Duration::from_secs(2);
/// The largest question; those with a name of 255 bytes and options have some hundred.
const MAX_QUESTION_BYTES: usize = 4096;
/// The header of a message: RFC 1035, 4.1.1.
const HEADER_BYTES: usize = 12;
const SERVFAIL: u8 = 2;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;

pub(super) struct Questions {
    servers: Servers,
    /// The one that has answered last.
    answered: Option<SocketAddr>,
    /// The oldest first.
    open: Vec<Question>,
}

/// A question that is not answered yet.
struct Question {
    text: Vec<u8>,
    client: SocketAddr,
    asked: Vec<Asked>,
    /// When the next server is asked.
    next_at: Instant,
    until: Instant,
    /// What a server has answered that could not.
    refusal: Option<Vec<u8>>,
    is_over: bool,
}

/// A server that was asked.
struct Asked {
    server: SocketAddr,
    /// Nothing once no answer is to be had of it.
    socket: Option<UdpSocket>,
}

impl Questions {
    pub(super) fn new(servers: Servers) -> Self {
        Self { servers, answered: None, open: Vec::new() }
    }

    /// The machine's servers now; first the one that answers.
    pub(super) fn servers(&mut self) -> Vec<SocketAddr> {
        let mut servers = self.servers.refresh().to_vec();
        servers.sort_by_key(|server| Some(*server) != self.answered);
        servers
    }

    /// Takes a question of a client, and passes it on.
    pub(super) fn take(&mut self, names: &UdpSocket, buffer: &mut [u8]) {
        let Ok((length, client)) = names.recv_from(buffer) else { return };
        if !(HEADER_BYTES..=MAX_QUESTION_BYTES).contains(&length) {
            return;
        }
        if self.open.len() >= MAX_QUESTIONS {
            self.open.remove(0);
        }
        let now = Instant::now();
        let mut question = Question {
            text: buffer[..length].to_vec(),
            client,
            asked: Vec::new(),
            next_at: now,
            until: now + ANSWER_TIMEOUT,
            refusal: None,
            is_over: false,
        };
        question.ask_next(self.servers.refresh(), names);
        if !question.is_over {
            self.open.push(question);
        }
    }

    /// What is waited for: the question, which server of it, and the socket.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (usize, usize, &UdpSocket)> {
        self.open.iter().enumerate().flat_map(|(number, question)| {
            let asked = question.asked.iter().enumerate();
            asked.filter_map(move |(at, asked)| Some((number, at, asked.socket.as_ref()?)))
        })
    }

    /// When [`Questions::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let next = |question: &Question| match question.has_next() {
            true => question.next_at.min(question.until),
            false => question.until,
        };
        self.open.iter().map(next).min()
    }

    /// Asks the next servers where the time has come, and forgets what is over.
    pub(super) fn tick(&mut self, names: &UdpSocket, now: Instant) {
        for question in &mut self.open {
            if !question.is_over && question.has_next() && question.next_at <= now {
                question.ask_next(self.servers.refresh(), names);
            }
        }
        self.open.retain(|question| !question.is_over && question.until > now);
    }

    /// Takes the answer of a server, and passes it back.
    pub(super) fn answer(
        &mut self,
        names: &UdpSocket,
        (number, at): (usize, usize),
        buffer: &mut [u8],
    ) {
        let Some(question) = self.open.get_mut(number).filter(|it| !it.is_over) else { return };
        let Some(asked) = question.asked.get_mut(at) else { return };
        let Some(socket) = &asked.socket else { return };
        match socket.recv(buffer) {
            Ok(length) => {
                let answer = &buffer[..length];
                // What is no answer to this question is somebody else's word.
                if length < HEADER_BYTES || answer[..2] != question.text[..2] {
                    return;
                }
                if [SERVFAIL, NOTIMP, REFUSED].contains(&(answer[3] & 0x0f)) {
                    asked.socket = None;
                    question.refusal = Some(answer.to_vec());
                    question.ask_next(self.servers.refresh(), names);
                } else {
                    self.answered = Some(asked.server);
                    question.finish(names, answer);
                }
            }
            Err(error) if is_passing(&error) => {}
            // Nobody listens there.
            Err(_) => {
                asked.socket = None;
                question.ask_next(self.servers.refresh(), names);
            }
        }
    }
}

impl Question {
    fn has_next(&self) -> bool {
        self.asked.len() < MAX_SERVERS
    }

    /// Asks the first server that was not asked yet. Where there is none, and none may still answer,
    /// the client is told so.
    fn ask_next(&mut self, servers: &[SocketAddr], names: &UdpSocket) {
        let now = Instant::now();
        self.next_at = now + NEXT_SERVER_DELAY;
        for &server in servers {
            if !self.has_next() || self.asked.iter().any(|asked| asked.server == server) {
                continue;
            }
            let socket = ask(server, &self.text).ok();
            let is_asked = socket.is_some();
            self.asked.push(Asked { server, socket });
            if is_asked {
                return;
            }
        }
        if self.asked.iter().all(|asked| asked.socket.is_none()) {
            let refusal = self.refusal.take().unwrap_or_else(|| failure(&self.text));
            self.finish(names, &refusal);
        }
    }

    fn finish(&mut self, names: &UdpSocket, answer: &[u8]) {
        self.is_over = true;
        // Lost as on any network.
        names.send_to(answer, self.client).ok();
    }
}

fn ask(server: SocketAddr, text: &[u8]) -> io::Result<UdpSocket> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    socket.send(text)?;
    Ok(socket)
}

/// The answer that no server could be asked.
fn failure(question: &[u8]) -> Vec<u8> {
    let mut answer = question.to_vec();
    if let [_, _, flags, code, ..] = &mut answer[..] {
        *flags |= 0x80;
        // Recursion is available.
        *code = 0x80 | SERVFAIL;
    }
    answer
}
