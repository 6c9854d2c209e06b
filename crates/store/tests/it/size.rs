//! A store as big as a platform gets: a thousand deploys, ten thousand releases.

use std::time::Duration;

use super::*;

on_both!(a_big_store_is_asked_without_reading_all_of_it);

const NUMBERS: &str = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ";

async fn a_big_store_is_asked_without_reading_all_of_it(mut bed: Bed) {
    let deploy = bed.shop().await;
    let (id, zeros) = (deploy.id.as_str(), "0".repeat(64));
    let fill = [
        format!(
            "INSERT INTO deploys (id, app, app_name, name, host, created, config_version, \
             formation, stopped) {NUMBERS} 999) SELECT 'dep_000000000000' || \
             CAST(10000000 + n AS TEXT), '{}', 'shop', 'd' || CAST(n AS TEXT), \
             'd' || CAST(n AS TEXT), 1, 0, '{{}}', 0 FROM n",
            deploy.app.as_str()
        ),
        format!(
            "INSERT INTO operations (id, deploy, deploy_name, request, actor, state, created, \
             ended) {NUMBERS} 10000) SELECT 'op_000000000000' || CAST(10000000 + n AS TEXT), \
             '{id}', 'shop/production', '{{\"kind\":\"stop\"}}', 'ada', 'succeeded', 1, 2 FROM n"
        ),
        format!(
            "INSERT INTO releases (deploy, number, operation, slug, config_version, \
             config_digest, process_types, reason, actor, created, prev, hash) {NUMBERS} 10000) \
             SELECT '{id}', n, CAST(n AS TEXT), '{zeros}', 0, '{zeros}', '{{}}', \
             '{{\"kind\":\"deploy\"}}', 'ada', 1, '{zeros}', '{zeros}' FROM n"
        ),
    ];
    for statement in fill {
        bed.raw(&statement).unwrap();
    }
    // The rows get their codes.
    bed.restart().await;
    let store = &bed.store;
    // Far more than it takes, and far less than where each question reads every row.
    tokio::time::timeout(Duration::from_secs(20), async {
        assert_eq!(store.all_deploys().await.unwrap().len(), 1000);
        for n in 1..=100 {
            let page = store.releases(&deploy.id, Some(ReleaseNumber(n * 100)), 20).await.unwrap();
            assert_eq!(page.len(), 20);
            assert_eq!(page[0].row.number, ReleaseNumber(n * 100 - 1));
            assert_eq!(store.operations(&deploy.id, None, 20).await.unwrap().len(), 20);
            assert_eq!(store.next(&deploy.id).await.unwrap(), None);
            let change = set(&[("A", n.to_string().as_bytes())]);
            store.change_config(&deploy.id, None, &change, None, at(2)).await.unwrap();
        }
        let (_, release) = bed.release(&deploy, Outcome::Succeeded).await;
        assert_eq!(release.row.number, ReleaseNumber(10_001));
        assert_eq!(store.kept(10).await.unwrap().len(), 2);
        assert_eq!(store.ledger(&deploy.id, true).await.unwrap().rows.len(), 10_001);
    })
    .await
    .unwrap();
}
