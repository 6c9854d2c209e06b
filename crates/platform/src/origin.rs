//! Whether the database is the one that the state folder was used with.
//!
//! A server that was replaced by an empty one would take every deploy for gone: what runs would be
//! stopped, and a new owner made.

use std::fs;
use std::path::Path;

use tolv_model::id::DeployId;
use tolv_store::Store;

use super::error::Error;

/// How many deploys a state folder has: those whose ledgers it records, or of which something ran.
pub(super) fn count_deploys(home: &Path) -> usize {
    let count = |folder: &str, is_deploy: fn(&str) -> bool| {
        let entries = fs::read_dir(home.join(folder)).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_str().is_some_and(is_deploy)).count()
    };
    // `shop.production`; others are halves of files that a kill left.
    let recorded = count("anchors", |name| {
        let parts: Vec<_> = name.split('.').collect();
        matches!(parts.as_slice(), [app, deploy] if !app.is_empty() && !deploy.is_empty())
    });
    recorded.max(count("running", |name| name.parse::<DeployId>().is_ok()))
}

/// Refuses a database that a state folder with deploys was not used with. Changes nothing.
///
/// # Errors
///
/// [`Error::OtherDatabase`], or why it is not known.
pub(super) async fn require_own_database(home: &Path, store: &Store) -> Result<(), Error> {
    let deploys = count_deploys(home);
    if deploys == 0 {
        return Ok(());
    }
    match store.found_instead().await? {
        Some(found) => Err(Error::OtherDatabase { path: home.to_owned(), deploys, found }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deploys_are_counted_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        assert_eq!(count_deploys(home), 0);
        for name in ["anchors/complete", "anchors/.tmp", "running/.tmp"] {
            fs::create_dir_all(home.join(name).parent().unwrap()).unwrap();
            fs::write(home.join(name), "").unwrap();
        }
        assert_eq!(count_deploys(home), 0);
        fs::write(home.join("anchors/shop.production"), "").unwrap();
        assert_eq!(count_deploys(home), 1);
        for n in 1..3 {
            let id = DeployId::new(jiff::Timestamp::UNIX_EPOCH, n);
            fs::write(home.join("running").join(id.as_str()), "").unwrap();
        }
        assert_eq!(count_deploys(home), 2);
    }
}
