use super::*;

fn manifest(entries: &[(&str, Entry)]) -> Manifest {
    Manifest {
        entries: entries.iter().map(|(p, e)| (p.as_bytes().to_vec(), e.clone())).collect(),
        layers: Vec::new(),
        toolchains: Vec::new(),
        process_types: BTreeMap::new(),
        env: BTreeMap::new(),
        path: Vec::new(),
        declared: Default::default(),
        profile: Vec::new(),
        build_config: BTreeMap::new(),
        buildpacks: Vec::new(),
        stack: None,
    }
}

fn file(text: &str, executable: bool) -> Entry {
    Entry::File { digest: Digest::of(text.as_bytes()), size: text.len() as u64, executable }
}

#[test]
fn the_id_depends_on_content_mode_and_path_but_not_on_order() {
    let one = manifest(&[("a", file("x", false)), ("b", file("y", false))]);
    let other = manifest(&[("b", file("y", false)), ("a", file("x", false))]);
    assert_eq!(one.id(), other.id());
    for changed in [
        manifest(&[("a", file("x", true)), ("b", file("y", false))]),
        manifest(&[("a", file("z", false)), ("b", file("y", false))]),
        manifest(&[("a2", file("x", false)), ("b", file("y", false))]),
    ] {
        assert_ne!(one.id(), changed.id());
    }
    let mut typed = one.clone();
    typed.process_types.insert(ProcessType::web(), "serve".to_owned());
    assert_ne!(one.id(), typed.id());
}

#[test]
fn a_digest_reads_back() {
    let digest = Digest::of(b"tolv");
    assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
    assert!("zz".parse::<Digest>().is_err());
}
