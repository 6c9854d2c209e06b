//! Connections whose requests wait for a process, from the old program to the new one.
//!
//! | field | size |
//! |---|---|
//! | `c`, with the connection's descriptor | 1 |
//! | length of what was read of it | 4, big endian |
//! | age of its request, in milliseconds | 8, big endian |
//! | what was read of it | as long as said |
//!
//! The new program answers each with `c` once it has it: until then the old one can still tell the client
//! that the platform failed.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::sync::mpsc;
use tolv_platform::Handed;

const CONNECTION: u8 = b'c';
const HEADER: usize = 1 + 4 + 8;
/// Longer than the router lets a head and what follows it become.
const MAX_READ: usize = 1 << 20;
/// For the new program to take one.
const TAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends connections until there are no more. Those that cannot be sent are answered that the platform
/// failed.
pub(crate) fn send(socket: &UnixStream, mut connections: mpsc::UnboundedReceiver<Handed>) {
    let limited =
        socket.set_nonblocking(false).and_then(|()| socket.set_write_timeout(Some(TAKE_TIMEOUT)));
    let limited = limited.and_then(|()| socket.set_read_timeout(Some(TAKE_TIMEOUT)));
    let mut is_broken = limited.is_err();
    while let Some(connection) = connections.blocking_recv() {
        is_broken = is_broken || send_one(socket, &connection).is_err();
        if is_broken {
            connection.refuse();
        }
    }
}

fn send_one(mut socket: &UnixStream, connection: &Handed) -> io::Result<()> {
    let length = u32::try_from(connection.read.len()).map_err(io::Error::other)?;
    let age = u64::try_from(connection.age.as_millis()).unwrap_or(u64::MAX);
    let header = [&[CONNECTION][..], &length.to_be_bytes(), &age.to_be_bytes()].concat();
    let fds = [connection.stream.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let sent = retry_on_intr(|| {
        sendmsg(socket, &[IoSlice::new(&header)], &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    if sent != header.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    socket.write_all(&connection.read)?;
    let mut taken = [0];
    socket.read_exact(&mut taken)?;
    if taken != [CONNECTION] {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(())
}

/// Takes connections on a thread of its own, until the old program ends.
///
/// # Errors
///
/// There is no thread.
pub(crate) fn receive(
    socket: UnixStream,
    take: impl Fn(Handed) + Send + 'static,
) -> io::Result<()> {
    let run = move || {
        // Whatever is wrong with one, no more can be read behind it.
        while let Ok(connection) = receive_one(&socket) {
            take(connection);
            if (&socket).write_all(&[CONNECTION]).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("old-connections".to_owned()).spawn(run).map(drop)
}

fn receive_one(mut socket: &UnixStream) -> io::Result<Handed> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut header = [0; HEADER];
    let received = loop {
        let mut buffers = [IoSliceMut::new(&mut header)];
        match recvmsg(socket, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    let fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds: Vec<OwnedFd> = fds.flatten().collect();
    let ([CONNECTION, header @ ..], HEADER, Ok([stream])) =
        (header, received.bytes, <[OwnedFd; 1]>::try_from(fds))
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let [a, b, c, d, age @ ..] = header;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(io::Error::other)?;
    if length > MAX_READ {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut read = vec![0; length];
    socket.read_exact(&mut read)?;
    let age = Duration::from_millis(u64::from_be_bytes(age));
    Ok(Handed { stream: stream.into(), read, age })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn connections_arrive_in_order_with_what_was_read_of_them() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (to_send, connections) = mpsc::unbounded_channel();
        let sender = std::thread::spawn(move || send(&ours, connections));
        let age = Duration::from_millis(1234);
        for length in [0, 1, 300_000] {
            let (mut client, stream) = connection();
            to_send.send(Handed { stream, read: vec![b'x'; length], age }).unwrap();
            let mut got = receive_one(&theirs).unwrap();
            (&theirs).write_all(&[CONNECTION]).unwrap();
            assert_eq!((got.read.len(), got.age), (length, age));
            got.stream.write_all(b"y").unwrap();
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            assert_eq!(&byte, b"y");
        }
        drop(to_send);
        sender.join().unwrap();
        receive_one(&theirs).unwrap_err();
    }

    #[test]
    fn a_client_is_told_where_nobody_takes_its_connection() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let (to_send, connections) = mpsc::unbounded_channel();
        let (mut client, stream) = connection();
        to_send.send(Handed { stream, read: b"GET".to_vec(), age: Duration::ZERO }).unwrap();
        drop(to_send);
        send(&ours, connections);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }

    #[test]
    fn what_is_no_connection_ends_it() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(b"c\xff\xff\xff\xff\0\0\0\0\0\0\0\0").unwrap();
        receive_one(&theirs).unwrap_err();
    }
}
