use super::*;

#[test]
fn gives_the_value_once_it_is_there() {
    let mut turns = 0;
    let got = poll(Duration::from_secs(5), "the third turn", || {
        turns += 1;
        (turns == 3).then_some(turns)
    });
    assert_eq!(got, 3);
}

#[test]
fn says_what_it_waited_for_and_looks_at_least_once() {
    let mut looked = 0;
    let failure = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        poll(Duration::ZERO, "a green moon", || -> Option<()> {
            looked += 1;
            None
        })
    }));
    let text = *failure.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("waited 0ns for a green moon in vain"), "{text}");
    assert!(text.contains("tests.rs"), "{text}");
    assert_eq!(looked, 1);
}
