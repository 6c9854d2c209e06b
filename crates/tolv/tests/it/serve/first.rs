//! What starts with the first deploy on a platform.

use super::*;

#[test]
fn web_alone_starts_and_the_others_are_named_with_how_to_start_them() {
    let shop = Shop::new("web: python3 server.py\n", &[]);
    // Types that others start by hand; each would fail a whole deploy.
    let procfile =
        "web: python3 server.py\nconsole: exit 1\nrake: false\ncustom: echo custom runs\n";
    shop.change("Procfile", procfile);
    let said = shop.pushed(&["tolv", "main"]);
    assert!(said.contains("-----> Starting web=1 "), "{said}");
    let idle = "-----> Not started: console, custom, rake (to start one: tolv scale console=1)";
    assert!(said.contains(idle), "{said}");
    let processes = || shop.json(&["ps"])["items"].as_array().unwrap().len();
    assert_eq!(processes(), 1, "{said}");
    // A change of the config brings no new types.
    let ran = shop.ran(&["config", "set", "A=1"]);
    assert!(ran.status.success() && !ran.err.contains("Not started"), "{}", ran.err);
    // What the operator has said holds, 0 too, and app.json's word is one.
    shop.tolv(&["scale", "console=0"]);
    std::fs::write(shop.dir.join("waits.py"), "import time\ntime.sleep(1000)\n").unwrap();
    let app_json = "// first quantities\n{\"formation\": {\"custom\": {\"quantity\": 2}, },}\n";
    std::fs::write(shop.dir.join("app.json"), app_json).unwrap();
    shop.change("Procfile", &procfile.replace("echo custom runs", "python3 waits.py"));
    let said = shop.pushed(&["tolv", "main"]);
    assert!(said.contains("-----> Starting custom=2,web=1 "), "{said}");
    assert!(said.contains("-----> Not started: rake (to start one: tolv scale rake=1)"), "{said}");
    // The web process before ends in its own time.
    poll(SOON, "one web and two of the others", || (processes() == 3).then_some(()));
}
