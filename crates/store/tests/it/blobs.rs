//! One suite for every store of blobs: a folder, and moto's S3 server.

use tolv_store::blobs::Blobs;
use tolv_testkit::S3;

use super::*;

/// Larger than what is sent to S3 in one piece.
const LARGE: usize = 25 << 20;

#[tokio::test]
async fn in_a_folder() {
    let home = Home::new();
    suite(&Blobs::folder(&home.path().join("plain")).unwrap()).await;
    let url = format!("file://{}/deep", home.path().display());
    suite(&Blobs::open(&url, &[]).unwrap()).await;
}

#[tokio::test]
async fn on_s3() {
    let s3 = S3::start();
    let options: Vec<_> =
        s3.options().map(|(name, value)| (name.to_ascii_lowercase(), value)).into();
    let blobs = Blobs::open(&s3.url(), &options).unwrap();
    suite(&blobs).await;
    // The address's own folder is before every key, and one bucket serves several platforms.
    blobs.put("own", b"1".to_vec()).await.unwrap();
    let beside = Blobs::open(&s3.url().replace("/tolv", "/other"), &options).unwrap();
    assert!(!beside.has("own").await.unwrap());
    let above = Blobs::open(&s3.url().replace("/tolv", ""), &options).unwrap();
    assert_eq!(above.get("tolv/own").await.unwrap().unwrap(), b"1");
    let missing = Blobs::open(&s3.url().replace(S3::BUCKET, "nowhere"), &options).unwrap();
    let error = missing.put("own", b"1".to_vec()).await.unwrap_err();
    assert!(error.to_string().contains("own"), "{error}");
}

/// Blobs are there whole or not at all.
async fn suite(blobs: &Blobs) {
    assert_eq!(blobs.get("a/b").await.unwrap(), None);
    assert!(!blobs.has("a/b").await.unwrap());
    blobs.put("a/b", b"one".to_vec()).await.unwrap();
    blobs.put("a/b", b"two".to_vec()).await.unwrap();
    assert!(blobs.has("a/b").await.unwrap());
    assert_eq!(blobs.get("a/b").await.unwrap().unwrap(), b"two");
    let folder = Home::new();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let large: Vec<u8> = (0..=u8::MAX).cycle().take(LARGE).collect();
    std::fs::write(&from, &large).unwrap();
    blobs.put_file("a/large", &from).await.unwrap();
    assert!(blobs.get_file("a/large", &to).await.unwrap());
    assert!(large == std::fs::read(&to).unwrap());
    assert!(!blobs.get_file("a/none", &to).await.unwrap());
    let mut listed = blobs.list("a").await.unwrap();
    listed.sort();
    assert_eq!(listed, ["a/b", "a/large"]);
    assert_eq!(blobs.list("b").await.unwrap().len(), 0);
    for _ in 0..2 {
        blobs.delete("a/b").await.unwrap();
    }
    assert!(!blobs.has("a/b").await.unwrap());
    assert_eq!(blobs.list("a").await.unwrap(), ["a/large"]);
}
