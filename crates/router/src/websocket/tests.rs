use proptest::prelude::*;

use super::*;

/// A frame as `direction` has it.
fn frame(direction: Direction, first: u8, payload: usize) -> Vec<u8> {
    let mask = if direction == Direction::Up { MASKED } else { 0 };
    let mut frame = match payload {
        0..126 => vec![first, mask | u8::try_from(payload).unwrap()],
        126..65536 => {
            let length = u16::try_from(payload).unwrap().to_be_bytes();
            [&[first, mask | 126], &length[..]].concat()
        }
        _ => [&[first, mask | 127], &(payload as u64).to_be_bytes()[..]].concat(),
    };
    if direction == Direction::Up {
        frame.extend([1, 2, 3, 4]);
    }
    // Bytes that would be headers of a close frame, were they not payload.
    frame.extend(std::iter::repeat_n(FIN_CLOSE, payload));
    frame
}

proptest! {
    #[test]
    fn frames_end_where_they_end_however_they_come(
        up in any::<bool>(),
        payloads in prop::collection::vec(prop_oneof![0_usize..300, 65_500_usize..65_600], 1..5),
        piece in 1_usize..400,
    ) {
        let direction = if up { Direction::Up } else { Direction::Down };
        let mut frames = Frames::new(direction);
        let (mut all, mut ends) = (Vec::new(), Vec::new());
        for payload in payloads {
            all.extend(frame(direction, 0x82, payload));
            ends.push(all.len());
        }
        let mut followed = 0;
        for piece in all.chunks(piece) {
            frames.follow(piece).unwrap();
            followed += piece.len();
            prop_assert_eq!(frames.is_between(), ends.contains(&followed));
            let end = ends.iter().find(|end| **end >= followed).unwrap();
            prop_assert_eq!(frames.rest_of_frame(&all[followed..]).unwrap(), end - followed);
        }
        prop_assert!(!frames.has_close());
        frames.follow(&frame(direction, FIN_CLOSE, 2)).unwrap();
        prop_assert!(frames.has_close());
    }

    #[test]
    fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for direction in [Direction::Up, Direction::Down] {
            let mut frames = Frames::new(direction);
            let rest = frames.rest_of_frame(&bytes);
            prop_assert!(rest.is_err() || rest.unwrap() <= bytes.len());
            frames.follow(&bytes).ok();
        }
    }
}

#[test]
fn what_is_no_frame_is_seen() {
    for (direction, header) in [
        // Opcodes that are not given to anything.
        (Direction::Down, &[0x83][..]),
        (Direction::Down, &[0x8b]),
        // Control frames in parts, or too long.
        (Direction::Down, &[0x08]),
        (Direction::Down, &[0x89, 126]),
        // Masked by a server, or not by a client.
        (Direction::Down, &[0x81, 0x81]),
        (Direction::Up, &[0x81, 0x01]),
        // Longer than a length may be.
        (Direction::Down, &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]),
    ] {
        let mut frames = Frames::new(direction);
        assert_eq!(frames.follow(header), Err(NotFrames), "{header:x?}");
    }
    let mut longest = Frames::new(Direction::Up);
    longest.follow(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).unwrap();
    assert!(!longest.is_between());
}

#[test]
fn a_close_frame_is_one_in_its_direction() {
    for direction in [Direction::Up, Direction::Down] {
        let bytes = close_frame(direction, SERVICE_RESTART);
        let mut frames = Frames::new(direction);
        frames.follow(&bytes).unwrap();
        assert!(frames.is_between() && frames.has_close());
    }
    let plain = close_frame(Direction::Down, GOING_AWAY);
    assert_eq!(&plain[..4], &[0x88, 12, 0x03, 0xe9]);
    let masked = close_frame(Direction::Up, SERVICE_RESTART);
    let mask = [masked[2], masked[3], masked[4], masked[5]];
    let payload: Vec<u8> =
        masked[6..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    assert_eq!(payload, [&1012_u16.to_be_bytes()[..], b"service restart"].concat());
}
