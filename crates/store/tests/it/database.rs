//! A database that takes nothing, or is away.

use super::*;

/// A schema that is up to date is not made again, and one that is not is told as what it is.
#[tokio::test]
async fn a_database_that_is_read_only_is_opened_and_is_said_so() {
    let bed = Bed::new(true).await;
    bed.shop().await;
    bed.raw("ALTER DATABASE postgres SET default_transaction_read_only = on").unwrap();
    let store = open(&bed.url(), &key(7)).await.unwrap();
    store.could_prepare().await.unwrap();
    store.app(&app("shop")).await.unwrap();
    assert!(store.status().await.unwrap().is_read_only);
    let refused = store.require_writable_database().await;
    assert!(matches!(refused, Err(Error::ReadOnlyDatabase)), "{refused:?}");
    let refused = store.create_app(&app("x"), &DeployName::production(), "x", None, at(1)).await;
    assert!(matches!(refused, Err(Error::ReadOnlyDatabase)), "{refused:?}");
    assert!(refused.unwrap_err().is_unavailable());
    // The sessions of before go on writing: that is how PostgreSQL has it.
    let last = "DELETE FROM _sqlx_migrations WHERE version = \
                (SELECT max(version) FROM _sqlx_migrations)";
    bed.raw(&format!("BEGIN READ WRITE; {last}; COMMIT")).unwrap();
    for refused in [store.prepare().await, store.could_prepare().await] {
        assert!(matches!(refused, Err(Error::ReadOnlyDatabase)), "{refused:?}");
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_said_so_and_is_used_again() {
    let mut bed = Bed::new(true).await;
    bed.shop().await;
    bed.postgres.as_mut().unwrap().stop();
    for _ in 0..3 {
        let error = bed.store.app(&app("shop")).await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        let error = bed.store.set_branch(&"dep_00000000000000000000".parse().unwrap(), "x").await;
        assert!(error.unwrap_err().is_unavailable());
    }
    bed.postgres.as_mut().unwrap().again();
    bed.store.app(&app("shop")).await.unwrap();
}
