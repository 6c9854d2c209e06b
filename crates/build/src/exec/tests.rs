use super::*;

fn lines(chunks: &[&str]) -> Vec<String> {
    let (mut lines, mut all) = (Lines::default(), Vec::new());
    let mut tell = |line: &[u8]| all.push(String::from_utf8_lossy(line).into_owned());
    for chunk in chunks {
        lines.feed(chunk.as_bytes(), &mut tell);
    }
    lines.finish(&mut tell);
    all
}

#[test]
fn output_becomes_lines_wherever_it_is_cut() {
    assert_eq!(lines(&["one\ntwo\n"]), ["one", "two"]);
    assert_eq!(lines(&["on", "e\n", "\n", "tw", "o"]), ["one", "", "two"]);
    assert_eq!(lines(&["one\r", "\ntwo\r\n"]), ["one", "two"]);
    assert!(lines(&[]).is_empty());
}

#[test]
fn a_redrawn_line_is_kept_as_it_was_last() {
    assert_eq!(lines(&[" 10 %\r 50 %\r100 %\n", "done"]), ["100 %", "done"]);
    assert_eq!(lines(&[" 10 %\r"]), [" 10 %"]);
}

#[test]
fn a_line_without_end_is_told_in_pieces() {
    let long = "x".repeat(2 * LONGEST_LINE + 1);
    let all = lines(&[&long, "\n"]);
    assert_eq!(all.iter().map(String::len).collect::<Vec<_>>(), [LONGEST_LINE, LONGEST_LINE, 1]);
}

#[test]
fn registries_pass_and_nothing_else_does() {
    for name in ["HTTPS_PROXY", "SSL_CERT_FILE", "UV_INDEX_PRIVATE_PASSWORD", "CARGO_NET_OFFLINE"] {
        assert!(passes(name), "{name}");
    }
    // What would change a build unseen, secrets, and a name that only looks alike.
    for name in
        ["PATH", "GIT_DIR", "LD_PRELOAD", "LIBRARY_PATH", "HOME", "DATABASE_URL", "XPIP_CERT"]
    {
        assert!(!passes(name), "{name}");
    }
}

#[test]
fn named_files_are_shown_unless_the_stack_has_them() {
    let home = tolv_testkit::Home::new();
    let own = home.write("ca.pem", "");
    let env = BTreeMap::from([
        ("PIP_CERT".to_owned(), own.clone().into_os_string()),
        ("SSL_CERT_FILE".to_owned(), own.clone().into_os_string()),
        ("CURL_CA_BUNDLE".to_owned(), "/etc/ssl/certs/ca-certificates.crt".into()),
        ("REQUESTS_CA_BUNDLE".to_owned(), "relative.pem".into()),
        ("NODE_EXTRA_CA_CERTS".to_owned(), home.path().join("gone").into_os_string()),
        ("PIP_INDEX_URL".to_owned(), home.path().into()),
    ]);
    assert_eq!(named_files(&env), [Mount::read_only(own.clone(), own)]);
}

#[test]
fn a_step_is_shown_as_words() {
    let step = Step::new("", "/app", ["sh", "-c", "exit 3", "", "it's"]);
    assert_eq!(words(&step), r#"sh -c "exit 3" "" "it's""#);
}
