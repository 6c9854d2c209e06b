use proptest::prelude::*;

use super::*;

/// Names and values as text, or the errors, one `line:column: message` each.
fn read(text: &str) -> Result<Vec<(String, String)>, Vec<String>> {
    match parse(text.as_bytes()) {
        Ok(pairs) => Ok(pairs
            .into_iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8(value).unwrap()))
            .collect()),
        Err(error) => Err(error
            .problems()
            .map(|problem| format!("{}:{}: {}", problem.line, problem.column, problem.message))
            .collect()),
    }
}

#[track_caller]
fn check(text: &str, wanted: &[(&str, &str)]) {
    let pairs = read(text).unwrap_or_else(|errors| panic!("{text:?}: {errors:?}"));
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    assert_eq!(pairs, wanted, "{text:?}");
}

#[track_caller]
fn check_errors(text: &str, wanted: &[&str]) {
    assert_eq!(read(text).unwrap_err(), wanted, "{text:?}");
}

#[test]
fn plain_values() {
    check("", &[]);
    check("\n  \n\t# only a comment\n", &[]);
    check("A=1\nB=two words\n", &[("A", "1"), ("B", "two words")]);
    check("A=1", &[("A", "1")]);
    check("  A=1  \t", &[("A", "1")]);
    check("A=1 # one\nB=a#b\nC=#c\n", &[("A", "1"), ("B", "a#b"), ("C", "#c")]);
    check("A=\nB=  \nC= # nothing\n", &[("A", ""), ("B", ""), ("C", "")]);
    check("A=${B} $(date) `date` \\n\n", &[("A", "${B} $(date) `date` \\n")]);
    check("A={\"a\": 'b'}\n", &[("A", "{\"a\": 'b'}")]);
    check("A=postgres://u:p@h/d?x=y&z\n", &[("A", "postgres://u:p@h/d?x=y&z")]);
    check("\u{feff}A=1\n", &[("A", "1")]);
}

#[test]
fn export_changes_nothing() {
    check("export A=1\nexport\t B=2\n", &[("A", "1"), ("B", "2")]);
    check("export=1\n", &[("export", "1")]);
    check("exported=1\n", &[("exported", "1")]);
}

#[test]
fn quoted_values() {
    check("A='a # b' # c\n", &[("A", "a # b")]);
    check("A='$B \\n \"'\n", &[("A", "$B \\n \"")]);
    check(r#"A="\n \r \t \\ \" \$ $B 'x'""#, &[("A", "\n \r \t \\ \" $ $B 'x'")]);
    check("A='one\ntwo\n'\nB=3\n", &[("A", "one\ntwo\n"), ("B", "3")]);
    check("A=\"one\n# two\n\" \nB=3\n", &[("A", "one\n# two\n"), ("B", "3")]);
    check("A=''\nB=\"\"", &[("A", ""), ("B", "")]);
}

#[test]
fn line_ends() {
    check(
        "A=1\r\nB='2'\r\n\r\n# c\r\nC=\r\nD=4\r",
        &[("A", "1"), ("B", "2"), ("C", ""), ("D", "4")],
    );
    check("A='1\r\n2'\r\n", &[("A", "1\r\n2")]);
    check("A=1\r2\n", &[("A", "1\r2")]);
}

#[test]
fn values_are_bytes() {
    let pairs = parse(b"A=\xff\xfe\nB='\x80'\nC=\"\xc3\x28\"\n").unwrap();
    let values: Vec<_> = pairs.into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, [&b"\xff\xfe"[..], b"\x80", b"\xc3\x28"]);
}

#[test]
fn errors_have_their_place() {
    check_errors("A=1\nB\n", &["2:1: the line has no `=` after a variable name"]);
    check_errors("export A\n", &["1:8: the line has no `=` after a variable name"]);
    check_errors("=1\n", &["1:1: the line has no variable name before its `=`"]);
    check_errors("A=1\n  2B=1\n", &["2:3: what is before the `=` is not a variable name"]);
    check_errors("A-B=1\n", &["1:1: what is before the `=` is not a variable name"]);
    check_errors("é=1\n", &["1:1: what is before the `=` is not a variable name"]);
    check_errors("A =1\n", &["1:2: there is a blank between the variable name and its `=`"]);
    check_errors("A= 1\n", &["1:3: there is a blank between the `=` and the value"]);
    check_errors("A=1\nB=2\nA=3\n", &["3:1: `A` is given twice"]);
    check_errors("A='1\nB=2\n", &["1:3: the value has no closing `'`"]);
    check_errors("A='1'x\n", &["1:6: there is text after the closing quote"]);
    check_errors("A='1'#x\n", &["1:6: there is text after the closing quote"]);
    check_errors("A=\"\\x\"\n", &["1:4: this backslash begins no escape"]);
    check_errors(
        "A=1\0\n",
        &["1:4: the value has a NUL byte, which no process environment can carry"],
    );
    assert_eq!(
        parse(b"\xff\xfeA\0=\x001\0").unwrap_err().to_string(),
        ".env:1:1: the file is UTF-16"
    );
}

#[test]
fn all_errors_are_found_at_once() {
    check_errors(
        "A\nB=\"\\q\" \nC=3\nC=4\n",
        &[
            "1:1: the line has no `=` after a variable name",
            "2:4: this backslash begins no escape",
            "4:1: `C` is given twice",
        ],
    );
}

#[test]
fn an_error_is_named_by_the_caller() {
    let error = parse(b"A").unwrap_err().named("config/dev.env");
    assert_eq!(error.to_string(), "config/dev.env:1:1: the line has no `=` after a variable name");
}

/// The drawing of an error.
fn drawn(text: &[u8]) -> String {
    let error = parse(text).unwrap_err();
    let mut drawn = String::new();
    miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none())
        .with_context_lines(9)
        .render_report(&mut drawn, &error)
        .unwrap();
    drawn
}

#[test]
fn a_drawing_keeps_names_and_hides_values() {
    let drawn = drawn(b"# hunter1\nexport KEY=hunter2\nURL='hunter3' hunter4\nhunter5\n1KEY=x\n");
    assert!(!drawn.contains("hunter"), "{drawn}");
    for kept in ["export KEY=*******", "URL='*******' *******", "1KEY=*"] {
        assert!(drawn.contains(kept), "{kept} in {drawn}");
    }
}

#[test]
fn a_wrong_name_that_may_be_a_secret_is_hidden() {
    let drawn = drawn(b"MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj/AgEAAoIBAQ==\nsk_live+x=1\n");
    assert!(!drawn.contains("MII") && !drawn.contains("sk_live"), "{drawn}");
}

/// Writes a value between single quotes if it can be, or double quotes.
fn quoted(value: &[u8], single: bool) -> Vec<u8> {
    if single && !value.contains(&b'\'') {
        return [b"'", value, b"'"].concat();
    }
    let mut text = vec![b'"'];
    for &byte in value {
        match byte {
            b'\n' => text.extend(b"\\n"),
            b'\r' => text.extend(b"\\r"),
            b'\t' => text.extend(b"\\t"),
            b'\\' | b'"' | b'$' => text.extend([b'\\', byte]),
            byte => text.push(byte),
        }
    }
    text.push(b'"');
    text
}

proptest! {
    #[test]
    fn written_values_round_trip(
        pairs in proptest::collection::btree_map(
            "[A-Za-z_][A-Za-z0-9_]{0,8}",
            (proptest::collection::vec(1..=u8::MAX, 0..24), any::<bool>(), any::<bool>()),
            0..6,
        ),
        newline in proptest::sample::select(vec!["\n", "\r\n", " # it's\n", "\t\r\n\n"]),
    ) {
        let mut text = Vec::new();
        for (name, (value, single, export)) in &pairs {
            let export: &[u8] = if *export { b"export " } else { b"" };
            text.extend([export, name.as_bytes(), b"=", &quoted(value, *single)].concat());
            text.extend(newline.as_bytes());
        }
        let read: Vec<_> =
            parse(&text).unwrap().into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        let wanted: Vec<_> =
            pairs.into_iter().map(|(name, (value, ..))| (name, value)).collect();
        prop_assert_eq!(read, wanted);
    }

    #[test]
    fn plain_values_are_as_they_are(value in "[!-~&&[^'\"]]([ -~&&[^#]]{0,12}[!-~&&[^#]])?") {
        let read = parse(format!("A={value}\n").as_bytes()).unwrap();
        prop_assert_eq!(&read[0].1[..], value.as_bytes());
    }

    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        parse(&bytes).ok();
    }

    /// Neither reading nor drawing panics.
    #[test]
    fn never_panics_near_what_is_right(
        text in "([A-B]|export| |\t|=|'|\"|\\\\|#|\n|\r|\0|é){0,24}",
    ) {
        if parse(text.as_bytes()).is_err() {
            drawn(text.as_bytes());
        }
    }
}

proptest::proptest! {
    #[test]
    fn what_is_written_reads_back(
        values in proptest::collection::vec(proptest::collection::vec(1_u8.., 0..40), 0..6),
    ) {
        let name = |place: usize| format!("NAME_{place}").parse::<EnvName>().unwrap();
        let mut text = Vec::new();
        for (place, value) in values.iter().enumerate() {
            write(&name(place), value, &mut text);
        }
        let read = parse(&text).unwrap();
        let wanted: Vec<_> =
            values.into_iter().enumerate().map(|(place, value)| (name(place), value)).collect();
        proptest::prop_assert_eq!(read, wanted);
    }
}
