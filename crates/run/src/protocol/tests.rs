use proptest::prelude::*;
use serde_json::{json, to_value};
use tolv_logs::store::Count;
use tolv_model::slug::Digest;

use super::frozen::Hello;
use super::*;

fn head() -> Head {
    let log = store::Limits::of(1 << 20);
    Head::new("web.1".to_owned(), 3, "/app".to_owned(), 7, log)
}

/// What execve takes: any bytes but NUL.
fn any_string() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1_u8..=255, 0..40)
}

fn any_order() -> impl Strategy<Value = ToShim> {
    prop_oneof![
        (any::<i32>(), any::<u64>()).prop_map(|(signal, grace_ms)| frozen::Order::Stop {
            signal,
            grace_ms
        }
        .into()),
        Just(frozen::Order::Heard.into()),
        Just(Order::Kill.into()),
        Just(Order::Count.into()),
        any::<i32>().prop_map(|signal| Order::Signal { signal }.into()),
        any::<u64>().prop_map(|lines| Order::Arm { lines }.into()),
    ]
}

fn any_written() -> impl Strategy<Value = Written> {
    let count = || any::<(u64, u64)>().prop_map(|(lines, bytes)| Count { lines, bytes });
    (count(), count()).prop_map(|(written, lost)| Written { written, lost })
}

fn any_word() -> impl Strategy<Value = FromShim> {
    let ended = (any::<Option<i32>>(), any::<Option<i32>>(), any::<u64>(), any_written());
    let numbers = any::<(u32, u32, u64, u16, bool)>();
    let hello = (any::<[u8; 32]>(), numbers, ".{0,70}", any_written());
    prop_oneof![
        hello.prop_map(|(plan, (version, release, writer, port, stopping), process, written)| {
            let identity = Identity { plan: Digest(plan), port };
            let hello = Hello { version, process, release, writer, identity, written, stopping };
            frozen::Word::Hello(hello).into()
        }),
        any::<i32>().prop_map(|pid| Word::Started { pid }.into()),
        (any::<i32>(), ".{0,5000}")
            .prop_map(|(errno, what)| Word::exec_failed(errno, &what).into()),
        any_written().prop_map(|written| Word::Bell(written).into()),
        (any::<u64>(), any::<u64>()).prop_map(|(held, limit)| Word::Memory { held, limit }.into()),
        ended.prop_map(|(code, signal, oom_kills, written)| {
            let exited = Exited { code, signal, written };
            frozen::Word::Exited(Ended { exited, oom_kills, ..Ended::default() }).into()
        }),
    ]
}

proptest! {
    #[test]
    fn orders_read_back(
        argv in prop::collection::vec(any_string(), 1..6),
        env in prop::collection::vec(any_string(), 0..6),
    ) {
        let head = Head { arguments: argv.len(), ..head() };
        let orders = Orders { head, argv, env };
        prop_assert_eq!(Orders::from_bytes(&orders.to_bytes().unwrap()), Some(orders));
    }

    #[test]
    fn cut_or_foreign_orders_are_no_panic(
        argv in prop::collection::vec(any_string(), 1..4),
        place in any::<prop::sample::Index>(),
        foreign in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let orders = Orders { head: head(), argv, env: Vec::new() };
        let bytes = orders.to_bytes().unwrap();
        prop_assert_eq!(Orders::from_bytes(&bytes[..place.index(bytes.len())]), None);
        prop_assert_eq!(Orders::from_bytes(&foreign), None);
    }

    #[test]
    fn every_order_reads_back_from_one_packet(order in any_order()) {
        let packet = order.to_bytes();
        prop_assert!(packet.len() <= PACKET);
        prop_assert_eq!(ToShim::from_bytes(&packet), Some(order));
    }

    #[test]
    fn every_word_reads_back_from_one_packet(word in any_word()) {
        let packet = word.to_bytes();
        prop_assert!(packet.len() <= PACKET, "{} bytes", packet.len());
        prop_assert_eq!(FromShim::from_bytes(&packet), Some(word));
    }
}

#[test]
fn a_long_reason_is_cut_and_still_fits() {
    for letter in ["x", "\u{1}", "\u{1f980}"] {
        let word = Word::exec_failed(2, &letter.repeat(PACKET));
        assert!(FromShim::from(word).to_bytes().len() <= PACKET, "{letter:?}");
    }
    let short = Word::exec_failed(2, "chdir /app");
    assert_eq!(short, Word::ExecFailed { errno: 2, what: "chdir /app".to_owned() });
}

#[test]
fn orders_of_another_version_are_refused() {
    let argv = vec![b"sh".to_vec()];
    let head = Head { version: version() + 1, ..head() };
    let bytes = Orders { head, argv, env: Vec::new() }.to_bytes().unwrap();
    assert_eq!(Orders::from_bytes(&bytes), None);
}

#[test]
fn nothing_to_execute_is_refused() {
    let bytes = Orders { head: head(), argv: Vec::new(), env: vec![b"A=1".to_vec()] };
    assert_eq!(Orders::from_bytes(&bytes.to_bytes().unwrap()), None);
}

/// A change here is a new version.
#[test]
fn the_words_of_this_version_are_these() {
    assert_eq!(version(), 6);
    assert_eq!(
        Packet::from(Order::Arm { lines: 3 }).to_bytes(),
        br#"{"v":6,"is":{"arm":{"lines":3}}}"#
    );
    let orders = [Order::Kill, Order::Arm { lines: 3 }, Order::Count, Order::Signal { signal: 2 }];
    assert_eq!(
        to_value(orders).unwrap(),
        json!(["kill", { "arm": { "lines": 3 } }, "count", { "signal": { "signal": 2 } }])
    );
    let terminal = Io::Terminal { rows: 24, columns: 80 };
    assert_eq!(
        to_value([Io::Log, Io::Pipes, terminal]).unwrap(),
        json!(["log", "pipes", { "terminal": { "rows": 24, "columns": 80 } }])
    );
    let written = Written { written: Count { lines: 3, bytes: 9 }, lost: Count::default() };
    let words = [
        Word::Started { pid: 2 },
        Word::exec_failed(2, "exec"),
        Word::Bell(written),
        Word::Memory { held: 5, limit: 6 },
        Word::Killed { kills: 1, limit: 6 },
        Word::ForkRefused { limit: 7 },
    ];
    let told = json!({ "written": { "lines": 3, "bytes": 9 }, "lost": { "lines": 0, "bytes": 0 } });
    assert_eq!(
        to_value(words).unwrap(),
        json!([
            { "started": { "pid": 2 } },
            { "exec_failed": { "errno": 2, "what": "exec" } },
            { "bell": told },
            { "memory": { "held": 5, "limit": 6 } },
            { "killed": { "kills": 1, "limit": 6 } },
            { "fork_refused": { "limit": 7 } },
        ])
    );
    let ended =
        Ended { exited: Exited { code: Some(7), signal: None, written }, ..Ended::default() };
    assert_eq!(
        to_value(ended).unwrap(),
        json!({
            "code": 7, "signal": null, "written": told,
            "oom_kills": 0, "out_of_memory": false, "memory_limit": 0,
        })
    );
}

#[test]
fn what_another_version_says_is_not_understood() {
    let own = ToShim::from(Order::Kill).to_bytes();
    assert_eq!(ToShim::from_bytes(&own), Some(Order::Kill.into()));
    for other in [r#"{"v":7,"is":"kill"}"#, r#"{"v":6,"is":"sing"}"#, r#""kill""#, "{", ""] {
        assert_eq!(ToShim::from_bytes(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn a_tethered_app_is_gone_within_a_second() {
    assert!(TETHER < Duration::from_secs(1));
}
