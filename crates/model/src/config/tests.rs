use super::*;

#[test]
fn what_builds_get_stays_so_until_it_is_unset() {
    let name: EnvName = "API".parse().unwrap();
    let new = |build| NewValue { value: b"x".to_vec(), secret: false, build };
    let set = |name: &EnvName, build| Change {
        set: BTreeMap::from([(name.clone(), new(build))]),
        unset: BTreeSet::new(),
    };
    let marked = Config::default().with(&set(&name, true)).unwrap();
    let again = marked.with(&set(&name, false)).unwrap();
    assert_eq!(again.of_builds().count(), 1);
    let unset = Change { set: BTreeMap::new(), unset: BTreeSet::from([name.clone()]) };
    let gone = again.with(&unset).unwrap().with(&set(&name, false)).unwrap();
    assert_eq!(gone.of_builds().count(), 0);
    let path = set(&"PATH".parse().unwrap(), true);
    assert!(matches!(Config::default().with(&path), Err(EnvError::NotInBuilds(_))));
}

fn name(text: &str) -> EnvName {
    text.parse().unwrap()
}

fn set(pairs: &[(&str, &[u8], bool)]) -> Change {
    let pair = |&(key, value, secret): &(&str, &[u8], bool)| {
        (name(key), NewValue { value: value.to_vec(), secret, build: false })
    };
    Change { set: pairs.iter().map(pair).collect(), unset: BTreeSet::new() }
}

#[test]
fn several_changes_are_one_version() {
    let first = Config::default().with(&set(&[("A", b"1", false), ("B", b"2", true)])).unwrap();
    let change = Change { unset: [name("A"), name("NEVER")].into(), ..set(&[("C", b"3", false)]) };
    let second = first.with(&change).unwrap();
    assert_eq!(second.names().map(EnvName::as_str).collect::<Vec<_>>(), ["B", "C"]);
    assert!(second.secret.contains(&name("B")));
    assert!(first.vars.get("A").is_some(), "the version before is as it was");
}

#[test]
fn a_secret_stays_one_until_it_is_unset() {
    let config = Config::default().with(&set(&[("A", b"1", true)])).unwrap();
    let config = config.with(&set(&[("A", b"2", false)])).unwrap();
    assert!(config.secret.contains(&name("A")));
    let unset = Change { unset: [name("A")].into(), ..Change::default() };
    assert!(config.with(&unset).unwrap().secret.is_empty());
}

#[test]
fn one_bad_value_refuses_the_whole_change() {
    let config = Config::default();
    assert!(config.with(&set(&[("A", b"1", false), ("PORT", b"80", false)])).is_err());
    assert!(config.with(&set(&[("A", b"\0", false)])).is_err());
    let large = vec![b'x'; crate::env::MAX_VALUE + 1];
    assert!(config.with(&set(&[("A", &large, false)])).is_err());
}

#[test]
fn the_limit_is_for_the_result() {
    let value = vec![b'x'; crate::env::MAX_VALUE];
    let full: Vec<_> = ["A", "B", "C"].map(|key| (key, value.as_slice(), false)).into();
    let config = Config::default().with(&set(&full)).unwrap();
    // All three again, in one change: never more than three at a time.
    config.with(&set(&full)).unwrap();
}

#[test]
fn what_lies_between_two_configs_leads_from_one_to_the_other() {
    let value =
        |text: &str, secret| NewValue { value: text.as_bytes().to_vec(), secret, build: false };
    let name = |text: &str| text.parse::<EnvName>().unwrap();
    let first = Change {
        set: [("SAME", "1"), ("OTHER", "2"), ("GONE", "3")]
            .map(|(key, text)| (name(key), value(text, key == "SAME")))
            .into(),
        ..Change::default()
    };
    let config = Config::default().with(&first).unwrap();
    let wanted: BTreeMap<_, _> = [("SAME", "1"), ("OTHER", "two"), ("NEW", "")]
        .map(|(k, v)| (name(k), value(v, false)))
        .into();
    let change = Change::between(&config, wanted.clone());
    assert_eq!(change.set.keys().map(EnvName::as_str).collect::<Vec<_>>(), ["NEW", "OTHER"]);
    assert_eq!(change.unset, [name("GONE")].into());
    let next = config.with(&change).unwrap();
    assert!(next.secret.contains(&name("SAME")), "a secret stays one");
    assert_eq!(Change::between(&next, wanted), Change::default());
}
