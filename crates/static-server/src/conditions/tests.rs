use std::time::Duration;

use hyper::header::HeaderValue;
use proptest::prelude::*;

use super::*;

const DATE: &str = "Thu, 01 Jan 2026 12:00:00 GMT";

fn verdict(headers: &[(&'static str, &str)]) -> Verdict {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let validators = Validators { etag: "\"abc\"".to_owned(), modified: Some(DATE.to_owned()) };
    judge(&map, &validators, 1000, true)
}

#[test]
fn what_the_client_has_is_not_sent() {
    for tags in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "\"x,y\",\"abc\" ", "*"] {
        assert_eq!(verdict(&[("if-none-match", tags)]), Verdict::NotModified, "{tags}");
    }
    for tags in ["\"ab\"", "abc", "", "\"x\""] {
        assert_eq!(verdict(&[("if-none-match", tags)]), Verdict::Whole, "{tags}");
    }
    let two = [("if-none-match", "\"x\""), ("if-none-match", "\"abc\"")];
    assert_eq!(verdict(&two), Verdict::NotModified);
    assert_eq!(verdict(&[("if-modified-since", DATE)]), Verdict::NotModified);
}

#[test]
fn any_other_date_is_another_file() {
    for date in ["Wed, 31 Dec 2025 12:00:00 GMT", "Fri, 02 Jan 2026 12:00:00 GMT", "tomorrow"] {
        assert_eq!(verdict(&[("if-modified-since", date)]), Verdict::Whole, "{date}");
    }
    let other_tag = [("if-none-match", "\"x\""), ("if-modified-since", DATE)];
    assert_eq!(verdict(&other_tag), Verdict::Whole, "a tag says more than a date");
}

#[test]
fn a_file_the_client_does_not_want_is_not_sent() {
    assert_eq!(verdict(&[("if-match", "\"x\"")]), Verdict::Failed);
    assert_eq!(verdict(&[("if-match", "W/\"abc\"")]), Verdict::Failed);
    assert_eq!(verdict(&[("if-match", "\"abc\"")]), Verdict::Whole);
    assert_eq!(verdict(&[("if-match", "*")]), Verdict::Whole);
}

#[test]
fn ranges() {
    for (range, wanted) in [
        ("bytes=0-0", Verdict::Part(0, 1)),
        ("bytes=0-499", Verdict::Part(0, 500)),
        ("BYTES=500-", Verdict::Part(500, 1000)),
        ("bytes=999-", Verdict::Part(999, 1000)),
        ("bytes=0-99999999999999999999999", Verdict::Part(0, 1000)),
        ("bytes=-1", Verdict::Part(999, 1000)),
        ("bytes=-5000", Verdict::Part(0, 1000)),
        ("bytes=1000-", Verdict::OutOfRange),
        ("bytes=99999999999999999999999-", Verdict::OutOfRange),
        ("bytes=-0", Verdict::OutOfRange),
        ("bytes=5-4", Verdict::Whole),
        ("bytes=-", Verdict::Whole),
        ("bytes=0-1,5-6", Verdict::Whole),
        ("bytes=+1-2", Verdict::Whole),
        ("lines=0-1", Verdict::Whole),
        ("bytes", Verdict::Whole),
    ] {
        assert_eq!(verdict(&[("range", range)]), wanted, "{range}");
    }
    assert_eq!(range("bytes=-5", 0), Verdict::Whole);
    assert_eq!(range("bytes=0-", 0), Verdict::OutOfRange);
    assert_eq!(verdict(&[("range", "bytes=0-1"), ("range", "bytes=2-3")]), Verdict::Whole);
}

#[test]
fn a_range_of_another_file_is_no_range() {
    let with = |condition: &str| verdict(&[("range", "bytes=0-0"), ("if-range", condition)]);
    assert_eq!(with("\"abc\""), Verdict::Part(0, 1));
    assert_eq!(with(DATE), Verdict::Part(0, 1));
    assert_eq!(with("W/\"abc\""), Verdict::Whole);
    assert_eq!(with("\"x\""), Verdict::Whole);
    assert_eq!(with("Wed, 31 Dec 2025 12:00:00 GMT"), Verdict::Whole);
}

#[test]
fn a_head_request_has_no_range() {
    let headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=0-0"))]);
    let validators = Validators { etag: "\"abc\"".to_owned(), modified: None };
    assert_eq!(judge(&headers, &validators, 10, false), Verdict::Whole);
}

#[test]
fn validators_follow_the_file() {
    let home = tolv_testkit::Home::new();
    let path = home.write("a", "one");
    let now = SystemTime::now();
    let meta = || path.metadata().unwrap();
    let first = Validators::of(&meta(), now + Duration::from_secs(60));
    assert_eq!(first, Validators::of(&meta(), now + Duration::from_secs(90)));
    assert!(first.modified.unwrap().ends_with(" GMT"));
    assert_eq!(Validators::of(&meta(), now - Duration::from_secs(3600)).modified, None);
    // The same name, size and time of writing, as after another deploy.
    let written = meta().modified().unwrap();
    let other = home.write("b", "two");
    std::fs::File::options().write(true).open(&other).unwrap().set_modified(written).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert_ne!(first.etag, Validators::of(&meta(), now).etag);
}

proptest! {
    #[test]
    fn a_part_is_inside_the_file(text in "(bytes=)?[-0-9,= ]{0,12}", length in 0..2000u64) {
        if let Verdict::Part(start, end) = range(&text, length) {
            prop_assert!(start < end && end <= length);
        }
    }
}
