use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { line: 64, headers: 3, head: 256 };

/// Data, trailers where the body is over, and what is left.
type Read = (Vec<u8>, Option<Fields>, Vec<u8>);

/// What a reader of `bytes`, which come in pieces of `step`, gets.
fn decode(framing: Framing, bytes: &[u8], step: usize) -> Result<Read, Bad> {
    let mut decoder = Decoder::new(framing, LIMITS);
    let mut buffer = BytesMut::new();
    let mut data = Vec::new();
    let mut pieces = bytes.chunks(step.max(1));
    loop {
        match decoder.next(&mut buffer)? {
            Piece::Data(piece) => data.extend_from_slice(&piece),
            Piece::End(trailers) => {
                let rest = [&buffer[..], &pieces.collect::<Vec<_>>().concat()].concat();
                return Ok((data, Some(trailers), rest));
            }
            Piece::More => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return Ok((data, None, buffer.to_vec())),
            },
        }
    }
}

fn check(framing: Framing, bytes: &[u8], data: &[u8], over: bool, rest: &[u8]) {
    for step in 1..=bytes.len() {
        let read = decode(framing, bytes, step).unwrap();
        assert_eq!((&*read.0, read.1.is_some(), &*read.2), (data, over, rest), "steps of {step}");
    }
}

#[test]
fn each_framing_takes_its_own_and_leaves_the_rest() {
    check(Framing::Length(5), b"helloGET /", b"hello", true, b"GET /");
    check(Framing::Length(6), b"hello", b"hello", false, b"");
    check(Framing::Empty, b"GET /", b"", true, b"GET /");
    check(Framing::Length(0), b"GET /", b"", true, b"GET /");
    check(Framing::Close, b"hello", b"hello", false, b"");
    check(Framing::Chunked, b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\nGET /", b"hello", true, b"GET /");
    check(Framing::Chunked, b"3;a=\"b\"\r\nhel\r\n000\r\nA: b\r\n\r\nX", b"hel", true, b"X");
    check(Framing::Chunked, b"A\r\n0123456789\r\n", b"0123456789", false, b"");
}

#[test]
fn only_what_ends_with_the_connection_may_end_with_it() {
    let ends = |framing| Decoder::new(framing, LIMITS).ends_at_close();
    assert!(ends(Framing::Close) && ends(Framing::Empty) && ends(Framing::Length(0)));
    assert!(!ends(Framing::Length(1)) && !ends(Framing::Chunked));
}

#[test]
fn chunks_that_two_readers_could_read_two_ways_are_refused() {
    for (bytes, why) in [
        (&b"\r\n"[..], "bad chunk size"),
        (b"-1\r\n", "bad chunk size"),
        (b"+1\r\nx\r\n", "bad chunk size"),
        (b" 1\r\nx\r\n", "bad chunk size"),
        (b"1 \r\nx\r\n", "bad chunk size"),
        (b"0x1\r\nx\r\n", "bad chunk size"),
        (b"g\r\n", "bad chunk size"),
        (b"1,2\r\n", "bad chunk size"),
        (b"ffffffffffffffff1\r\n", "bad chunk size"),
        (b"0000000000000001\r\n", "bad chunk size"),
        (b"1;a\rb\r\nx\r\n", "bad chunk size"),
        (b"1\nx\r\n", "bare line feed"),
        (b"1\r\nxy\r\n", "chunk longer than its size"),
        (b"1\r\nx\n0\r\n\r\n", "chunk longer than its size"),
        (b"1\r\nx0\r\n\r\n", "chunk longer than its size"),
        (b"0\r\nA: b\n\r\n", "bad trailers"),
        (b"0\r\n A: b\r\n\r\n", "bad trailers"),
        (b"0\r\nA : b\r\n\r\n", "bad header name"),
        (b"0\r\na:\r\na:\r\na:\r\na:\r\na:\r\n\r\n", "bad trailers"),
    ] {
        for step in 1..=bytes.len() {
            let read = decode(Framing::Chunked, bytes, step);
            assert_eq!(read.map(drop), Err(Bad(why)), "{}", bytes.escape_ascii());
        }
    }
    let long = [&b"1;"[..], &[b'a'; 2000]].concat();
    assert_eq!(decode(Framing::Chunked, &long, 7).map(drop), Err(Bad("chunk size line too long")));
}

#[test]
fn trailers_that_frame_or_route_are_left_out() {
    let bytes = b"0\r\nX-Sum: 1\r\nContent-Length: 5\r\nHost: b\r\n\r\n";
    let (_, trailers, _) = decode(Framing::Chunked, bytes, 9).unwrap();
    let mut out = Vec::new();
    Encoder::Chunked.end(&trailers.unwrap(), &mut out);
    assert_eq!(out.escape_ascii().to_string(), r"0\r\nX-Sum: 1\r\n\r\n");
}

proptest! {
    #[test]
    fn chunks_come_back_as_the_data_they_were(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
        rest in prop::collection::vec(any::<u8>(), 0..20),
        step in 1_usize..50,
    ) {
        let mut bytes = Vec::new();
        for part in &parts {
            Encoder::Chunked.data(part, &mut bytes);
        }
        Encoder::Chunked.end(&Fields::default(), &mut bytes);
        bytes.extend_from_slice(&rest);
        let (data, trailers, left) = decode(Framing::Chunked, &bytes, step).unwrap();
        prop_assert!(trailers.is_some());
        prop_assert_eq!(data, parts.concat());
        prop_assert_eq!(left, rest);
    }

    #[test]
    fn pieces_do_not_matter(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "1\r\nx\r\n", "0\r\n", "\r\n", "A: b\r\n", "2;e\r\n", "\n", "x", "f", "\r",
            ]),
            0..10,
        ),
        step in 1_usize..9,
    ) {
        let bytes = words.concat().into_bytes();
        let whole = decode(Framing::Chunked, &bytes, bytes.len());
        let pieces = decode(Framing::Chunked, &bytes, step);
        let plain = |read: Result<Read, Bad>| {
            read.map(|(data, trailers, rest)| (data, trailers.is_some(), rest))
        };
        // Which rule is broken first may depend on the pieces; that one is broken does not.
        prop_assert_eq!(plain(whole).map_err(drop), plain(pieces).map_err(drop));
    }

    #[test]
    fn a_length_is_kept_to_the_byte(
        bytes in prop::collection::vec(any::<u8>(), 0..60), length in 0_u64..80, step in 1_usize..9,
    ) {
        let (data, trailers, rest) = decode(Framing::Length(length), &bytes, step).unwrap();
        let whole = usize::try_from(length).unwrap();
        prop_assert_eq!(data.len(), whole.min(bytes.len()));
        prop_assert_eq!(trailers.is_some(), whole <= bytes.len());
        prop_assert_eq!([data, rest].concat(), bytes);
    }
}
