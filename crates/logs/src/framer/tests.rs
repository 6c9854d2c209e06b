use proptest::prelude::*;

use super::*;

type Piece = (Vec<u8>, Marks);

/// Feeds `chunks`, an idle flush after those that say so, and returns the pieces.
fn frame(chunks: &[(Vec<u8>, bool)]) -> Vec<Piece> {
    let (mut framer, mut pieces) = (Framer::new(), Vec::new());
    let mut take = |batch: Batch<'_>| {
        let lines: Vec<_> = batch.bytes.split(|&b| b == b'\n').collect();
        assert_eq!(lines.len(), batch.lines as usize);
        assert!(batch.lines == 1 || batch.marks == Marks::default());
        pieces.extend(lines.into_iter().map(|line| (line.to_vec(), batch.marks)));
    };
    for (chunk, idle) in chunks {
        for part in chunk.chunks(READ.0) {
            framer.space()[..part.len()].copy_from_slice(part);
            framer.filled(part.len(), &mut take);
        }
        if *idle {
            framer.flush(false, &mut take);
        }
    }
    framer.flush(true, &mut take);
    pieces
}

/// The lines that the pieces make.
fn whole(pieces: &[Piece]) -> Vec<Vec<u8>> {
    let (mut lines, mut open) = (Vec::<Vec<u8>>::new(), false);
    for (text, marks) in pieces {
        assert!(text.len() <= MAX_LINE);
        assert_eq!(marks.continued, open, "a piece goes on exactly where one is open");
        match lines.last_mut() {
            Some(last) if open => last.extend(text),
            _ => lines.push(text.clone()),
        }
        open = marks.more;
    }
    lines
}

fn one(text: &[u8]) -> Vec<Piece> {
    frame(&[(text.to_vec(), false)])
}

#[test]
fn whole_lines_leave_as_they_came() {
    let plain = |text: &[u8]| (text.to_vec(), Marks::default());
    assert_eq!(one(b"a\n\nb\xff\0\n"), [plain(b"a"), plain(b""), plain(b"b\xff\0")]);
    assert_eq!(one(b"no end"), [plain(b"no end")]);
    assert_eq!(one(b""), []);
}

#[test]
fn a_line_of_a_megabyte_is_split_and_marked() {
    let text = vec![b'x'; 1_000_001];
    let pieces = one(&[&text[..], b"\nnext\n"].concat());
    assert_eq!(whole(&pieces), [text, b"next".to_vec()]);
    assert_eq!(pieces.len(), 102);
    assert!(pieces[0].1.long && pieces[0].1.more && !pieces[100].1.more);
    assert_eq!(one(&[&[b'x'; MAX_LINE][..], b"\n"].concat()).len(), 1);
}

#[test]
fn an_idle_line_leaves_marked_and_goes_on() {
    let pieces = frame(&[(b"wait".to_vec(), true), (b" done\nnext\n".to_vec(), false)]);
    let more = Marks { more: true, ..Marks::default() };
    let continued = Marks { continued: true, ..Marks::default() };
    assert_eq!(
        pieces,
        [
            (b"wait".to_vec(), more),
            (b" done".to_vec(), continued),
            (b"next".to_vec(), Marks::default())
        ]
    );
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        lines in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>().prop_filter("no end", |b| *b != b'\n'), 0..40),
                (0usize..25_000).prop_map(|n| vec![b'y'; n]),
            ],
            1..12,
        ),
        cuts in prop::collection::vec((0usize..30_000, any::<bool>()), 0..20),
    ) {
        let text: Vec<u8> = lines.iter().flat_map(|line| [&line[..], b"\n"].concat()).collect();
        let (mut chunks, mut rest) = (Vec::new(), &text[..]);
        for (cut, idle) in cuts {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            chunks.push((head.to_vec(), idle));
            rest = tail;
        }
        chunks.push((rest.to_vec(), false));
        prop_assert_eq!(whole(&frame(&chunks)), lines);
    }
}
