use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

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
        prev = row.hash();
        (row, prev)
    };
    (1..=length).map(row).collect()
}

fn check(rows: &[(Row, Digest)]) -> Result<Digest, Broken> {
    verify(rows.iter().map(|(row, hash)| (row, *hash)))
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
        // Whoever hashes the row again is found at that row or the next.
        rows[at].1 = rows[at].0.hash();
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
    rows[1].1 = rows[1].0.hash();
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
        "6b33c2877b28a281534675404a01882873f0ed5f1a67a87c10898dbd31147d3c"
    );
}
