use super::*;

#[test]
fn a_program_survives_the_wire() {
    let exec = Exec {
        argv: vec![b"sh".to_vec(), b"-c".to_vec(), b"".to_vec(), b"a\xffb\n".to_vec()],
        env: vec![b"EMPTY=".to_vec(), b"X=\xfe".to_vec()],
        cwd: PathBuf::from("/with blank"),
    };
    assert_eq!(Exec::from_bytes(&exec.to_bytes().unwrap()), Some(exec.clone()));
    let bad = Exec { argv: vec![b"a\0b".to_vec()], ..exec };
    assert_eq!(bad.to_bytes(), None);
}

#[test]
fn cut_short_it_is_nothing() {
    let bytes = Exec { argv: vec![b"a".to_vec(); 3], ..Exec::default() }.to_bytes().unwrap();
    for end in 0..bytes.len() {
        assert_eq!(Exec::from_bytes(&bytes[..end]), None, "{end}");
    }
}
