use super::*;

#[test]
fn the_table_is_sorted() {
    assert!(TYPES.is_sorted_by(|a, b| a.0 < b.0));
}

#[test]
fn goes_by_the_end_of_the_name() {
    for (name, wanted) in [
        ("index.html", "text/html; charset=utf-8"),
        ("A.JPG", "image/jpeg"),
        ("app.min.js", "text/javascript; charset=utf-8"),
        ("app.js.gz", "application/gzip"),
        ("LICENSE", UNKNOWN),
        ("html", UNKNOWN),
        ("a.", UNKNOWN),
        ("a.strange", UNKNOWN),
    ] {
        assert_eq!(of(Path::new(name)), wanted, "{name}");
    }
}
