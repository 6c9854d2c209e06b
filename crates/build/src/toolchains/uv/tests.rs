use serde_json::json;

use super::*;

fn file(name: &str, yanked: Value) -> Value {
    json!({"filename": name, "url": format!("../../f/{name}"), "hashes": {"sha256": "00"}, "yanked": yanked})
}

#[test]
fn the_own_release_or_the_newest_wheel_is_taken() {
    let x86 = "py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl";
    let page = json!({"files": [
        file(&format!("uv-0.9.9-{x86}"), json!(false)),
        file(&format!("uv-0.13.9-{x86}"), json!(false)),
        file(&format!("uv-0.14.2-{x86}"), json!(false)),
        file(&format!("uv-0.13.10-{x86}"), json!("broken")),
        file(&format!("uv-0.14.0rc1-{x86}"), json!(false)),
        file("uv-0.13.9-py3-none-musllinux_1_1_x86_64.whl", json!(false)),
        file("uv-0.15.0-py3-none-manylinux_2_28_aarch64.whl", json!(false)),
        file("uv-0.15.0-py3-none-manylinux_2_17_i686.manylinux2014_i686.whl", json!(false)),
        file("uv-0.15.0.tar.gz", json!(false)),
        json!({"filename": 3}),
    ]});
    let found = |arch, glibc| preferred(&page, arch, glibc).map(|wheel| wheel.version.to_string());
    assert_eq!(found("x86_64", true).as_deref(), Some("0.13.9"));
    assert_eq!(found("x86_64", false).as_deref(), Some("0.13.9"));
    assert_eq!(found("aarch64", true).as_deref(), Some("0.15.0"));
    assert_eq!(found("s390x", true), None);
    assert_eq!(preferred(&json!([]), "x86_64", true), None);
}

#[test]
fn links_of_an_index_are_resolved() {
    let base = "https://me@host:8/simple/uv/";
    assert_eq!(absolute(base, "https://x/y"), "https://x/y");
    assert_eq!(absolute(base, "/f/uv.whl"), "https://me@host:8/f/uv.whl");
    assert_eq!(absolute(base, "../../f/uv.whl"), "https://me@host:8/f/uv.whl");
    assert_eq!(absolute(base, "../../../../f"), "https://me@host:8/f");
    assert_eq!(absolute(base, "uv.whl"), "https://me@host:8/simple/uv/uv.whl");
}
