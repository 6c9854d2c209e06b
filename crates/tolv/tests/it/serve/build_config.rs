//! Config that builds get: `tolv config set --build`.

use super::*;

const DETECT: &str = "#!/bin/sh\ntrue\n";
const COMPILE: &str = "#!/bin/sh\nset -e\ncat $3/API > $1/api.txt\nls $3 > $1/names.txt\n\
    echo ${API-none} > $1/environment.txt\nprintf %s $SOURCE_VERSION > $1/version.txt\n";

fn shop() -> Shop {
    let shop = Shop::site("one", &[]);
    std::fs::remove_file(shop.dir.join("index.html")).unwrap();
    std::fs::create_dir_all(shop.dir.join("pack/bin")).unwrap();
    for (file, text) in [
        ("pack/bin/detect", DETECT),
        ("pack/bin/compile", COMPILE),
        (".buildpacks", "./pack\n"),
        ("Procfile", "web: python3 -m http.server $PORT\n"),
    ] {
        std::fs::write(shop.dir.join(file), text).unwrap();
    }
    git::commit(&shop.dir);
    shop
}

#[test]
fn a_build_gets_what_the_operator_marks_and_a_promotion_says_that_it_differs() {
    let shop = shop();
    for name in ["PATH", "GIT_DIR", "LD_PRELOAD", "LIBRARY_PATH"] {
        let ran = shop.ran(&["config", "set", "--build", &format!("{name}=x")]);
        assert!(!ran.status.success() && ran.err.contains("never enters a build"), "{}", ran.err);
    }
    shop.tolv(&["config", "set", "--build", "API=https://api.example.org"]);
    shop.tolv(&["config", "set", "DATABASE_URL=s3cret"]);
    assert!(shop.tolv(&["config"]).contains("API (builds too)"));
    let said = shop.pushed(&["tolv", "main"]);
    assert!(!said.contains("api.example.org"), "{said}");
    let text = |path: &str| shop.text("shop.localhost", path);
    assert_eq!(text("/api.txt"), "https://api.example.org");
    assert_eq!((text("/names.txt").trim(), text("/environment.txt").trim()), ("API", "none"));
    assert_eq!(text("/version.txt"), git::git(&shop.dir, &["rev-parse", "HEAD"]));
    // The same files with other config are another slug; what is not marked changes none.
    let slug = || shop.json(&["releases"])["items"][0]["slug"].clone();
    let first = slug();
    let push = || {
        git::git(&shop.dir, &["commit", "--quiet", "--allow-empty", "--message", "Again"]);
        shop.pushed(&["tolv", "main"]);
    };
    shop.tolv(&["config", "set", "DATABASE_URL=other"]);
    push();
    assert_eq!(slug(), first);
    shop.tolv(&["config", "set", "API=https://new.example.org"]);
    assert_eq!(slug(), first, "a change of the config builds nothing");
    push();
    assert_ne!(slug(), first);
    assert_eq!(text("/api.txt"), "https://new.example.org");
    // Another deploy of the app with the same value gets it without a word, with another it is told.
    shop.tolv(&["deploys", "create", "staging"]);
    let staging = ["-d", "shop/staging"];
    let set = |value: &str| {
        shop.tolv(&[&["config", "set", "--build", value][..], &staging].concat());
    };
    set("API=https://staging.example.org");
    let promote = || shop.ran(&[&["promote", "shop/production"][..], &staging].concat());
    let ran = promote();
    let told = "differs from that of shop/staging in API";
    assert!(
        ran.status.success() && format!("{}{}", ran.out, ran.err).contains(told),
        "{}",
        ran.err
    );
    assert_eq!(shop.text("shop-staging.localhost", "/api.txt"), "https://new.example.org");
    set("API=https://new.example.org");
    let ran = promote();
    assert!(ran.status.success() && !ran.err.contains("differs"), "{}", ran.err);
}
