//! The platform comes and goes; what should run comes back without a build.

use rustix::process::Signal;

use super::*;

fn pids(shop: &Shop) -> Vec<u64> {
    let ps = shop.json(&["ps"]);
    let items = ps["items"].as_array().unwrap();
    items.iter().filter_map(|process| process["pid"].as_u64()).collect()
}

#[test]
fn everything_is_back_after_any_end() {
    let mut shop = Shop::new("web: python3 server.py\nworker: sleep 1000\n", &[]);
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["scale", "web=2"]);
    for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
        let before = pids(&shop);
        assert_eq!(before.len(), 3);
        shop.serve.end(signal);
        for pid in before {
            poll(SOON, "nothing is left", || {
                (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
            });
        }
        shop.serve.begin();
        until_text(&shop, "shop.localhost", "web.2");
        poll(SOON, "the whole formation is back", || (pids(&shop).len() == 3).then_some(()));
        assert!(shop.tolv(&["releases"]).contains("v1"));
        assert!(!shop.tolv(&["releases"]).contains("v2"), "and no release was made");
    }
}

#[test]
fn one_app_that_cannot_start_keeps_no_other_down() {
    let mut shop =
        Shop::new("web: python3 server.py\nworker: test ! -e \"$FLAG\" && sleep 1000\n", &[]);
    let flag = shop.serve.folder("flags").join("broken");
    shop.tolv(&["config", "set", "FLAG=/nonexistent"]);
    shop.pushed(&["tolv", "main"]);
    shop.serve.end(Signal::INT);
    std::fs::write(&flag, "").unwrap();
    shop.serve.begin();
    until_text(&shop, "shop.localhost", "web.1");
}
