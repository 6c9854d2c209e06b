use super::*;

fn message(kind: u8, text: &str) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[4..6].copy_from_slice(&u16::from_le_bytes([kind, 10]).to_ne_bytes());
    bytes.extend(text.as_bytes());
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[test]
fn what_changes_of_a_table_is_heard() {
    let other = message(2, "tolv_000002_1_0");
    for kind in CHANGED {
        assert!(names(&message(kind, "tolv_000001_1_0"), "tolv_000001_1_0"));
        let both = [other.clone(), message(kind, "tolv_000001_1_0")].concat();
        assert!(names(&both, "tolv_000001_1_0"));
    }
    assert!(!names(&other, "tolv_000001_1_0"));
    assert!(!names(&message(9, "tolv_000001_1_0"), "tolv_000001_1_0"), "a set is none of it");
    for bytes in [&[][..], &[255; 40], &[0; 40], &message(2, "tolv_000001_1_0")[..20]] {
        assert!(!names(bytes, "tolv_000001_1_0"));
    }
}

#[test]
fn what_cannot_be_heard_counts_as_changed() {
    let tables = ["tolv_000001_1_0".to_owned(), "tolv_000002_1_0".to_owned()];
    let deaf = Watch(fs::File::open("/dev/null").unwrap().into());
    let (lost, heard) = deaf.lost(&tables);
    assert_eq!((lost, heard.is_err()), (vec![true; 2], true));
}
