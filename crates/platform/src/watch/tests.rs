use std::fs;

use tokio::time::timeout;

use super::*;

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_change_in_a_new_folder_is_seen_and_ignored_folders_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join(".tolv")).unwrap();
    fs::create_dir_all(root.join("node_modules")).unwrap();
    fs::write(root.join(".gitignore"), "node_modules\n").unwrap();
    let mut watch = Watch::start(root, &root.join(".tolv")).unwrap();

    fs::create_dir(root.join("src")).unwrap();
    timeout(LONG, watch.changed()).await.expect("the new folder is a change").unwrap();
    fs::write(root.join("src/a"), "1").unwrap();
    timeout(LONG, watch.changed()).await.expect("a file in it is a change").unwrap();

    fs::write(root.join("node_modules/x"), "1").unwrap();
    fs::write(root.join(".tolv/x"), "1").unwrap();
    assert!(timeout(QUIET * 4, watch.changed()).await.is_err(), "ignored folders are no change");
}

#[tokio::test]
async fn a_pipe_in_the_place_of_an_ignore_file_is_not_read() {
    let (dir, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (root, fifo) = (dir.path().canonicalize().unwrap(), rustix::fs::FileType::Fifo);
    fs::create_dir(root.join("deep")).unwrap();
    for path in [".gitignore", "deep/.gitignore"] {
        let path = root.join(path);
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, 0o600.into(), 0).unwrap();
    }
    let started = tokio::task::spawn_blocking({
        let (root, away) = (root.clone(), away.path().to_owned());
        move || Watch::start(&root, &away)
    });
    let mut watch = timeout(LONG, started).await.unwrap().unwrap().unwrap();
    fs::write(root.join("new"), "").unwrap();
    timeout(LONG, watch.changed()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_folder_that_is_made_again_at_once_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let src = root.join("src");
    fs::create_dir(&src).unwrap();
    let mut watch = Watch::start(root, &root.join(".tolv")).unwrap();
    fs::remove_dir_all(&src).unwrap();
    fs::create_dir(&src).unwrap();
    assert_eq!(timeout(LONG, watch.changed()).await.unwrap().unwrap(), Seen::Change);
    fs::write(src.join("a"), "1").unwrap();
    assert_eq!(timeout(LONG, watch.changed()).await.unwrap().unwrap(), Seen::Change);
}

#[tokio::test]
async fn a_root_below_a_folder_that_was_renamed_is_gone_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (above, aside) = (folder.path().join("above"), folder.path().join("aside"));
    let root = above.join("root");
    fs::create_dir_all(&root).unwrap();
    let mut watch = Watch::start(&root, &folder.path().join("state")).unwrap();
    fs::rename(&above, &aside).unwrap();
    assert_eq!(timeout(LONG, watch.changed()).await.unwrap().unwrap(), Seen::Gone);
    fs::rename(&aside, &above).unwrap();
    assert_eq!(timeout(LONG, watch.changed()).await.unwrap().unwrap(), Seen::Back);
    fs::write(root.join("a"), "1").unwrap();
    assert_eq!(timeout(LONG, watch.changed()).await.unwrap().unwrap(), Seen::Change);
}
