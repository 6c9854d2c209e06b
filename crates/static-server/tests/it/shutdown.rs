//! What happens to requests when the server is told to end.

use super::*;

/// More than the buffers of both sockets hold.
const MUCH: u32 = 32 << 20;

fn site() -> Site {
    let home = Home::new();
    home.write("public/index.html", "hello");
    home.write("public/big.bin", big(MUCH));
    Site::serve(home)
}

/// Reads the head of an answer, and no more than a little of the body.
fn read_some(stream: &mut TcpStream) -> Vec<u8> {
    let mut piece = vec![0; 1024];
    let count = stream.read(&mut piece).unwrap();
    piece.truncate(count);
    piece
}

#[test]
fn a_request_in_flight_is_answered_in_full() {
    let mut site = site();
    let mut stream = site.connect("GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut answer = read_some(&mut stream);
    site.shut_down();
    tolv_testkit::poll(LONG, "connections to be refused", || {
        TcpStream::connect(site.address).err()
    });
    answer.extend(read_to_end(&mut stream));
    let response = http::parse(&answer, false).unwrap();
    assert_eq!(response.status, 200);
    assert!(response.body == big(MUCH), "{} bytes", response.body.len());
    site.ended();
}

#[test]
fn a_connection_with_nothing_to_do_is_closed() {
    let mut site = site();
    let mut stream = site.connect("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = read_some(&mut stream);
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
    site.shut_down();
    read_to_end(&mut stream);
    site.ended();
}

#[test]
fn it_ends_at_once_without_connections() {
    let mut site = site();
    assert_eq!(site.get("/").text(), "hello");
    site.shut_down();
    site.ended();
}

#[test]
fn a_client_that_goes_away_harms_nobody() {
    let mut site = site();
    for _ in 0..20 {
        let mut stream = site.connect("GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n");
        read_some(&mut stream);
    }
    assert_eq!(site.get("/").text(), "hello");
    site.shut_down();
    site.ended();
}
