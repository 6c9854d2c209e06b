//! The bytes. A change here breaks the upgrade of every platform that runs: it is never right.

use tolv_logs::store::Count;

use super::*;
use crate::protocol::{Ended, FromShim, ToShim};

const HELLO: &str = r#"{"hello":{"version":6,"process":"web.1","release":3,"writer":7,"identity":{"plan":"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff","port":20001},"written":{"written":{"lines":3,"bytes":9},"lost":{"lines":0,"bytes":0}},"stopping":false}}"#;
const STOP: &str = r#"{"stop":{"signal":15,"grace_ms":30000}}"#;
const EXITED: &str = r#"{"exited":{"code":7,"signal":null,"written":{"written":{"lines":3,"bytes":9},"lost":{"lines":0,"bytes":0}}}}"#;
const HEARD: &str = r#""heard""#;

fn written() -> Written {
    Written { written: Count { lines: 3, bytes: 9 }, lost: Count::default() }
}

fn hello() -> Hello {
    let identity = Identity { plan: Digest([255; 32]), port: 20_001 };
    Hello {
        version: 6,
        process: "web.1".to_owned(),
        release: 3,
        writer: 7,
        identity,
        written: written(),
        stopping: false,
    }
}

fn exited() -> Exited {
    Exited { code: Some(7), signal: None, written: written() }
}

fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap()
}

#[test]
fn the_frozen_bytes_are_these_for_ever() {
    assert_eq!(text(&Word::<Exited>::Hello(hello())), HELLO);
    assert_eq!(text(&Word::Exited(exited())), EXITED);
    assert_eq!(text(&Order::Stop { signal: 15, grace_ms: 30_000 }), STOP);
    assert_eq!(text(&Order::Heard), HEARD);
}

#[test]
fn this_version_says_and_understands_them_as_they_are() {
    let word: FromShim = FromShim::Frozen(Word::Hello(hello()));
    assert_eq!(word.to_bytes(), HELLO.as_bytes());
    assert_eq!(FromShim::from_bytes(HELLO.as_bytes()), Some(word));
    let stop = ToShim::Frozen(Order::Stop { signal: 15, grace_ms: 30_000 });
    assert_eq!(stop.to_bytes(), STOP.as_bytes());
    assert_eq!(ToShim::from_bytes(STOP.as_bytes()), Some(stop));
    let heard = ToShim::Frozen(Order::Heard);
    assert_eq!(heard.to_bytes(), HEARD.as_bytes());
    assert_eq!(ToShim::from_bytes(HEARD.as_bytes()), Some(heard));
    // Its own end has more, which others do not have to know.
    let ended = Ended { exited: exited(), oom_kills: 2, ..Ended::default() };
    let said = FromShim::Frozen(Word::Exited(ended)).to_bytes();
    assert_eq!(serde_json::from_slice::<Word>(&said).unwrap(), Word::Exited(exited()));
    let understood = Ended { exited: exited(), ..Ended::default() };
    let understood = FromShim::Frozen(Word::Exited(understood));
    assert_eq!(FromShim::from_bytes(EXITED.as_bytes()), Some(understood));
}

#[test]
fn what_a_later_version_adds_is_ignored() {
    for (known, more) in [
        (HELLO, HELLO.replace(r#""release":3"#, r#""release":3,"mood":{"good":[1]}"#)),
        (EXITED, EXITED.replace(r#""signal":null"#, r#""signal":null,"oom_kills":"many""#)),
    ] {
        let known: Word = serde_json::from_str(known).unwrap();
        assert_eq!(serde_json::from_str::<Word>(&more).unwrap(), known);
    }
    let more = STOP.replace(r#""signal":15"#, r#""signal":15,"softly":true"#);
    let stop: Order = serde_json::from_str(STOP).unwrap();
    assert_eq!(serde_json::from_str::<Order>(&more).unwrap(), stop);
}
