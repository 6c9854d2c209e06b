//! A client's connection on its way from one router to the next: an upgrade.
//!
//! Its first request has waited for a process here, and nobody worked on it: the whole connection goes,
//! with what was read of it. The client notices nothing, and the next router sees the client's own
//! address.

use std::fmt;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use crate::access::Code;
use crate::error_page;
use crate::head::Fields;

/// For a client to take an answer that fits into every socket's buffer.
const ANSWER: Duration = Duration::from_millis(100);

/// A connection that another router is to go on with.
pub struct Handed {
    /// To the client.
    pub stream: TcpStream,
    /// What the client sent and nobody has worked on: its request's whole head, and what came after it.
    pub read: Vec<u8>,
    /// How long ago the request came.
    pub age: Duration,
}

impl Handed {
    /// Answers that the platform failed, where no other router takes the connection.
    pub fn refuse(mut self) {
        let (page, _) = error_page::render(Code::H99, "", &Fields::default(), false, true);
        let answer = self.stream.set_nonblocking(false);
        let answer = answer.and_then(|()| self.stream.set_write_timeout(Some(ANSWER)));
        // The client may be gone as well.
        answer.and_then(|()| self.stream.write_all(&page)).ok();
    }
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handed").field("read", &self.read.len()).field("age", &self.age).finish()
    }
}
