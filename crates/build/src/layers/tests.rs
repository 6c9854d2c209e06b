use tolv_testkit::Home;

use super::*;

const KEY: Digest = Digest([7; 32]);

fn layer_plan() -> LayerPlan {
    LayerPlan {
        name: "Packages".to_owned(),
        key: KEY,
        path: "/layers/x".into(),
        copies: Vec::new(),
        files: Vec::new(),
        at_run: true,
        sees_app: false,
        steps: Vec::new(),
        remove: Vec::new(),
        links: vec![
            (".venv".to_owned(), "venv".to_owned()),
            ("web/node_modules".to_owned(), String::new()),
        ],
    }
}

#[test]
fn what_killed_builds_left_is_removed() {
    let home = Home::new();
    let (other, held) = (Digest([8; 32]), Digest([9; 32]));
    home.write(&format!("layers/{KEY}/venv/python"), "whole");
    let record = Record { name: "Packages".to_owned(), content: other, size: 5, files: 1 };
    home.write(&format!("layers/{KEY}.json"), serde_json::to_vec(&record).unwrap());
    home.write(&format!("layers/{KEY}.new/half"), "");
    home.write(&format!("layers/{other}/half"), "");
    home.write(&format!("layers/{held}.new/filling"), "");
    let _held = Lock::take(&home.path().join(format!("layers/{held}.lock")), &|| false, &mut || {});
    let layers = Layers::open(home.path()).unwrap();
    let there = |name: String| home.path().join("layers").join(name).exists();
    assert_eq!(layers.find(&KEY), Some(Layer { key: KEY, content: other }));
    assert!(!there(format!("{KEY}.new")) && !there(other.to_string()));
    assert!(there(format!("{held}.new")), "another build is at it");
    assert_eq!(layers.find(&other), None);
}

#[test]
fn links_lead_from_the_app_to_the_layer() {
    let home = Home::new();
    home.write(".venv/pyvenv.cfg", "the codebase's own");
    link(home.path(), &layer_plan()).unwrap();
    let target = |path: &str| fs::read_link(home.path().join(path)).unwrap();
    assert_eq!(target(".venv"), Path::new(&format!("../layers/{KEY}/venv")));
    assert_eq!(target("web/node_modules"), Path::new(&format!("../../layers/{KEY}")));
}
