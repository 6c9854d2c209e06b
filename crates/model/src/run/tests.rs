use proptest::prelude::*;

use super::*;

fn argv(words: &[&[u8]]) -> Result<Argv, ArgvError> {
    Argv::new(words.iter().map(|word| word.to_vec()).collect())
}

#[test]
fn what_execve_cannot_take_is_refused() {
    assert_eq!(argv(&[]), Err(ArgvError::Empty));
    assert_eq!(argv(&[b""]), Err(ArgvError::Empty));
    assert_eq!(argv(&[b"a", b"b\0c"]), Err(ArgvError::Nul(2)));
    let long = vec![b'x'; MAX_WORD + 1];
    assert_eq!(argv(&[b"a", &long]), Err(ArgvError::TooLong { place: 2, len: MAX_WORD + 1 }));
    let half = vec![b'x'; MAX_WORD];
    assert_eq!(argv(&[b"a", &half, &half]), Err(ArgvError::TooLarge(2 * (MAX_WORD + 1) + 2)));
    assert!(argv(&[b"a", b"", &half]).is_ok());
}

#[test]
fn words_are_shown_as_a_person_would_type_them() {
    let shown = argv(&[b"python", b"-c", b"print(\"a  b\")", b"", b"it's", b"a=b/c"]).unwrap();
    assert_eq!(shown.to_string(), r#"python -c 'print("a  b")' '' 'it'\''s' a=b/c"#);
    assert_eq!(shown.program().to_string(), "python");
}

#[test]
fn signals_have_names() {
    assert_eq!("INT".parse::<Signal>().unwrap().number(), 2);
    assert_eq!("SIGTERM".parse::<Signal>().unwrap().number(), 15);
    for bad in ["", "9", "STOP", "int"] {
        assert!(bad.parse::<Signal>().is_err(), "{bad}");
    }
}

#[test]
fn variables_of_the_platform_are_refused() {
    let one = |name: &str| check_env(&[(name.parse().unwrap(), b"x".to_vec())]);
    assert!(one("GREETING").is_ok());
    for name in ["PORT", "DYNO", "TOLV_RELEASE"] {
        assert_eq!(one(name), Err(EnvError::Reserved(name.to_owned())));
    }
}

proptest! {
    #[test]
    fn words_survive_json(words in prop::collection::vec(prop::collection::vec(1..=255_u8, 1..20), 1..8)) {
        let argv = Argv::new(words).unwrap();
        let text = serde_json::to_string(&argv).unwrap();
        prop_assert_eq!(serde_json::from_str::<Argv>(&text).unwrap(), argv);
    }

    /// However often pieces are sent again, what is taken is the input, once.
    #[test]
    fn input_that_is_sent_again_is_taken_once(
        input in prop::collection::vec(any::<u8>(), 0..200),
        tries in prop::collection::vec((0..220_usize, 0..80_usize), 0..60),
    ) {
        let mut taken = Vec::new();
        for (at, len) in tries {
            let at = at.min(input.len());
            let piece = &input[at..(at + len).min(input.len())];
            match fresh(taken.len() as u64, at as u64, piece.len()) {
                Some(known) => taken.extend_from_slice(&piece[known..]),
                None => prop_assert!(at > taken.len()),
            }
            prop_assert_eq!(&taken[..], &input[..taken.len()]);
        }
    }
}
