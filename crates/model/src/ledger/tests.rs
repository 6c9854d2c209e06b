use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

fn key() -> LedgerKey {
    [7; 32].into()
}

fn chain(length: u32) -> Vec<(Row, Digest)> {
    let mut prev = GENESIS;
    let deploy = DeployId::new(Timestamp::UNIX_EPOCH, 7);
    let row = |number: u32| {
        let row = Row {
            deploy: deploy.clone(),
            number: ReleaseNumber(number),
            slug: SlugId(Digest::of(&number.to_be_bytes())),
            commit: Some("c0ffee".to_owned()),
            config_version: number,
            config_digest: Digest::of(b"config"),
            process_types: [("web".parse().unwrap(), "run".to_owned())].into(),
            sizes: crate::size::Sizes([("web".parse().unwrap(), "1G".parse().unwrap())].into()),
            reason: Reason::Config { set: vec!["A".to_owned()], unset: vec!["B".to_owned()] },
            actor: "owner".to_owned(),
            created: Timestamp::UNIX_EPOCH,
            prev,
        };
        prev = row.hash(&key());
        (row, prev)
    };
    (1..=length).map(row).collect()
}

fn stored<T: Clone>(
    all: &[(T, Digest)],
    of: impl Fn(&T) -> (ReleaseNumber, Digest),
) -> Vec<Stored<T>> {
    let one = |(contents, hash): &(T, Digest)| {
        let ((number, prev), contents) = (of(contents), Ok(contents.clone()));
        Stored { number, contents, prev: Some(prev), hash: *hash }
    };
    all.iter().map(one).collect()
}

fn audit(key: &LedgerKey, rows: &[(Row, Digest)], outcomes: &[(Settled, Digest)]) -> Audit {
    let outcomes = stored(outcomes, |outcome| (outcome.number, outcome.prev));
    super::audit(key, &stored(rows, |row| (row.number, row.prev)), &outcomes)
}

fn check(rows: &[(Row, Digest)]) -> Result<Digest, Broken> {
    let audit = audit(&key(), rows, &[]);
    audit.broken.into_iter().next().map_or(Ok(audit.end), Err)
}

type Chain = (Vec<(Row, Digest)>, Vec<(Settled, Digest)>);

/// As a platform appends them: each row, then its outcome; the second failed.
fn settled(length: u32) -> Chain {
    let (mut rows, mut outcomes, mut prev) = (Vec::new(), Vec::new(), GENESIS);
    for (mut row, _) in chain(length) {
        row.prev = prev;
        prev = row.hash(&key());
        let outcome = match row.number.0 {
            2 => Outcome::Failed,
            _ => Outcome::Succeeded,
        };
        let error = (outcome == Outcome::Failed).then(|| "no".to_owned());
        let (deploy, number) = (row.deploy.clone(), row.number);
        let ended = Timestamp::UNIX_EPOCH;
        let outcome = Settled { deploy, number, outcome, error, ended, prev };
        rows.push((row, prev));
        prev = outcome.hash(&key());
        outcomes.push((outcome, prev));
    }
    (rows, outcomes)
}

#[test]
fn outcomes_are_in_the_chain() {
    let (rows, outcomes) = settled(3);
    let holds = audit(&key(), &rows, &outcomes);
    let current = Some(ReleaseNumber(3));
    assert_eq!(holds, Audit { broken: vec![], end: outcomes[2].1, current });
    // The last release is not settled yet.
    let pending = audit(&key(), &rows, &outcomes[..2]);
    assert_eq!((pending.broken.len(), pending.end), (0, rows[2].1));
    assert_eq!(pending.current, Some(ReleaseNumber(1)));
    let second = ReleaseNumber(2);
    let mut changed = outcomes.clone();
    changed[1].0.outcome = Outcome::Succeeded;
    assert_eq!(audit(&key(), &rows, &changed).broken, [Broken::Outcome(second)]);
    changed[1].1 = changed[1].0.hash(&key());
    assert_eq!(audit(&key(), &rows, &changed).broken[0], Broken::Unlinked(ReleaseNumber(3)));
    let gone = [outcomes[0].clone(), outcomes[2].clone()];
    assert_eq!(audit(&key(), &rows, &gone).broken[0], Broken::Unlinked(ReleaseNumber(3)));
    let mut forged = outcomes.clone();
    forged[2].0.prev = outcomes[0].0.prev;
    assert!(!audit(&key(), &rows, &forged).broken.is_empty());
}

#[test]
fn the_chain_goes_on_behind_what_cannot_be_read() {
    let (rows, outcomes) = settled(3);
    let mut rows = stored(&rows, |row| (row.number, row.prev));
    let mut outcomes = stored(&outcomes, |outcome| (outcome.number, outcome.prev));
    rows[1].contents = Err("no".to_owned());
    outcomes[1].contents = Err("no".to_owned());
    let second = ReleaseNumber(2);
    let found = super::audit(&key(), &rows, &outcomes);
    assert_eq!(
        found.broken,
        [Broken::Unreadable(second, "no".to_owned()), Broken::Outcome(second)]
    );
    assert_eq!((found.end, found.current), (outcomes[2].hash, Some(ReleaseNumber(3))));
}

type Change = fn(&mut Row);

const CHANGES: &[Change] = &[
    |row| row.deploy = DeployId::new(Timestamp::UNIX_EPOCH, 8),
    |row| row.slug = SlugId(Digest::of(b"other")),
    |row| row.commit = None,
    |row| row.config_version += 1,
    |row| row.config_digest = Digest::of(b"other"),
    |row| row.process_types.clear(),
    |row| row.sizes = crate::size::Sizes::default(),
    |row| row.sizes.0.values_mut().for_each(|size| size.memory = Some(1 << 29)),
    |row| row.reason = Reason::Deploy,
    |row| row.reason = Reason::Config { set: vec![], unset: vec!["A".into(), "B".into()] },
    |row| row.actor.push('x'),
    |row| row.created = Timestamp::from_microsecond(1).unwrap(),
    |row| row.prev = Digest::of(b"other"),
];

proptest! {
    #[test]
    fn a_change_anywhere_is_found_where_it_is(
        length in 1_u32..12, at in 0_usize..12, change in 0..CHANGES.len(),
    ) {
        let mut rows = chain(length);
        prop_assert_eq!(check(&rows), Ok(rows.last().unwrap().1));
        let at = at % rows.len();
        CHANGES[change](&mut rows[at].0);
        let number = ReleaseNumber(u32::try_from(at + 1).unwrap());
        prop_assert_eq!(check(&rows), Err(Broken::Changed(number)));
        // Hashed again with another key, it is no better.
        rows[at].1 = rows[at].0.hash(&[8; 32].into());
        prop_assert_eq!(check(&rows), Err(Broken::Changed(number)));
        // Whoever hashes the row again is found at that row or the next.
        rows[at].1 = rows[at].0.hash(&key());
        prop_assert!(check(&rows).is_err() || at + 1 == rows.len());
    }

    #[test]
    fn a_row_that_is_gone_is_missed(length in 2_u32..12, at in 0_usize..12) {
        let mut rows = chain(length);
        let at = at % (rows.len() - 1);
        rows.remove(at);
        let expected = ReleaseNumber(u32::try_from(at + 1).unwrap());
        prop_assert_eq!(
            check(&rows),
            Err(Broken::Missing { expected, found: ReleaseNumber(expected.0 + 1) })
        );
    }
}

#[test]
fn a_row_that_was_replaced_whole_unlinks_the_next() {
    let mut rows = chain(3);
    rows[1].0.actor = "somebody".to_owned();
    rows[1].1 = rows[1].0.hash(&key());
    assert_eq!(check(&rows), Err(Broken::Unlinked(ReleaseNumber(3))));
}

#[test]
fn an_empty_ledger_holds() {
    assert_eq!(check(&[]), Ok(GENESIS));
}

#[test]
fn the_hash_is_fixed_for_ever() {
    let hash = chain(1)[0].1;
    assert_eq!(
        hash.to_string(),
        "f143c492df7b36687bf413818ef5bfc082c3c7882e3391912600add78c22c08a"
    );
}
