use proptest::prelude::*;

use super::*;

/// Reads a text: the value as `serde_json` would have it, and the errors.
fn check(text: &str) -> (Option<serde_json::Value>, Vec<String>) {
    let mut report = Report::new("app.json", text.as_bytes());
    let node = read(text, &mut report);
    let value = node.as_ref().map(plain);
    let errors = match report.finish(()) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems().map(|problem| problem.message.clone()).collect(),
    };
    (value, errors)
}

fn plain(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(text) => serde_json::from_str(text).unwrap(),
        Value::String(text) => text.clone().into(),
        Value::Array(nodes) => nodes.iter().map(plain).collect(),
        Value::Object(members) => {
            members.iter().map(|member| (member.key.clone(), plain(&member.node))).collect()
        }
    }
}

fn first_error(text: &str) -> String {
    let (_, errors) = check(text);
    errors.into_iter().next().unwrap_or_default()
}

#[test]
fn every_value_knows_its_place() {
    let text = r#"{ "web": [1, "zwei"] }"#;
    let mut report = Report::new("app.json", text.as_bytes());
    let node = read(text, &mut report).unwrap();
    let Value::Object(members) = &node.value else { panic!("{node:?}") };
    assert_eq!(&text[members[0].span.clone()], "\"web\"");
    let Value::Array(nodes) = &members[0].node.value else { panic!("{node:?}") };
    assert_eq!(&text[nodes[0].span.clone()], "1");
    assert_eq!(&text[nodes[1].span.clone()], "\"zwei\"");
}

#[test]
fn says_what_is_wrong() {
    let cases = [
        ("", "expected a JSON value, but the file ends here"),
        ("{", "expected a key in double quotes, but the file ends here"),
        ("{'a': 1}", "expected a key in double quotes"),
        ("{\"a\" 1}", "expected `:` after the key"),
        ("{,}", "expected a key in double quotes"),
        ("{\"a\": 1,,}", "expected a key in double quotes"),
        ("[1,,]", "expected a JSON value"),
        ("[1] /* x", "there is text after the end of the JSON value"),
        ("# x\n[1]", "expected a JSON value"),
        ("[1 2]", "expected `,` or `]`"),
        ("[1] 2", "there is text after the end of the JSON value"),
        ("yes", "`yes` is not a JSON value"),
        ("01", "this is not a JSON number"),
        ("1.", "this is not a JSON number"),
        ("-", "this is not a JSON number"),
        ("\"a\nb\"", "the string has no closing `\"` on its line"),
        ("\"a\tb\"", "a control byte 0x09 in a string"),
        (r#""\x""#, "this escape is not one of JSON's"),
        (r#""\ud800""#, "this `\\u` escape is not a letter"),
        (r#"{"a": 1, "a": 2}"#, "key `a` is given twice"),
    ];
    for (text, wanted) in cases {
        assert_eq!(first_error(text), wanted, "{text}");
    }
}

#[test]
fn comments_and_last_commas_are_passed_over_and_places_stay_right() {
    let text = "// first\n{ /* a \"key\": */ \"web\": [1, // one\n  \"a // b\", /**/], \n} // end";
    assert_eq!(check(text).1, [""; 0]);
    let value = check(text).0.unwrap();
    assert_eq!(value, serde_json::json!({"web": [1, "a // b"]}));
    let mut report = Report::new("app.json", text.as_bytes());
    let node = read(text, &mut report).unwrap();
    let Value::Object(members) = &node.value else { panic!("{node:?}") };
    assert_eq!(&text[members[0].span.clone()], "\"web\"");
    let error = crate::app_json::AppJson::parse(b"// x\n{\n  /* y\n */ \"env\": 5, }");
    assert_eq!(error.unwrap_err().to_string().split(' ').next(), Some("app.json:4:12:"));
    // As many as the file may have, in one pass.
    let many = "/**/".repeat(100_000) + "{}";
    assert_eq!(check(&many), (Some(serde_json::json!({})), Vec::new()));
}

#[test]
fn nests_as_deep_as_serde_json() {
    for levels in [127, 128] {
        let text = "[".repeat(levels) + &"]".repeat(levels);
        let theirs = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        assert_eq!(check(&text).1.is_empty(), theirs, "{levels} levels");
    }
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(|number| if number.is_finite() { number } else { 0.5 }.into()),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// Text of the pieces that JSON is made of, mostly wrong.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => proptest::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\\", " ", "\n", "null", "true", "\"a\"", "\"b\":",
            "//", "/*", "*/", "/",
            "0", "-1", "1.5", "2e3", "E", ".", "\\u00e9", "\\ud83d", "\\ude00", "é", "\u{1}",
        ])
        .prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// The text without comments and last commas, as plain JSON has it.
fn without_extras(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let length = match rest.as_bytes() {
            [b'/', b'/', ..] => rest.find('\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => rest[2..].find("*/").map_or(0, |end| end + 4),
            _ => 0,
        };
        let string = if letter == '"' { string_length(rest) } else { 0 };
        if length > 0 {
            plain.push(' ');
            rest = &rest[length..];
        } else if string > 0 {
            plain.push_str(&rest[..string]);
            rest = &rest[string..];
        } else {
            if matches!(letter, ']' | '}')
                && let Some(before) =
                    plain.trim_end_matches([' ', '\n', '\t', '\r']).strip_suffix(',')
                && !before.trim_end_matches([' ', '\n', '\t', '\r']).ends_with(['[', '{', ',', ':'])
            {
                plain.truncate(before.len());
            }
            plain.push(letter);
            rest = &rest[letter.len_utf8()..];
        }
    }
    plain
}

/// Bytes of the string that a text begins with; all of it where the string has no end.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

proptest! {
    #[test]
    fn reads_what_serde_json_writes(value in value()) {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            // Written and read once by the other reader: its numbers may lose a last digit.
            let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(check(&text), (Some(theirs), Vec::new()));
        }
    }

    #[test]
    fn accepts_what_serde_json_accepts(text in pieces()) {
        let theirs = serde_json::from_str::<serde_json::Value>(&without_extras(&text));
        let (_, errors) = check(&text);
        let twice = |error: &String| error.ends_with("is given twice");
        prop_assert_eq!(
            errors.iter().all(twice),
            theirs.is_ok(),
            "{:?}: {:?} {:?}", text, errors, theirs
        );
    }
}
