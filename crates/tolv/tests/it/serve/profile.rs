//! `.profile.d/*.sh` and `.profile` are sourced before each process.

use super::*;

const SERVER: &str = "import http.server, os\n\
    class Page(http.server.BaseHTTPRequestHandler):\n    \
    def do_GET(self):\n        \
    text = os.environ.get(self.path[1:], 'none').encode()\n        \
    self.send_response(200)\n        self.end_headers()\n        self.wfile.write(text)\n\
    http.server.HTTPServer(('', int(os.environ['PORT'])), Page).serve_forever()\n";

fn write(shop: &Shop, file: &str, text: &str) {
    std::fs::write(shop.dir.join(file), text).unwrap();
}

#[test]
fn web_worker_run_and_release_phase_have_what_they_export() {
    let procfile = "web: python3 page.py\nworker: echo worker $FIRST; exec sleep 1000\n\
                    release: echo release $FIRST $LAST\n";
    let shop = Shop::new(procfile, &[]);
    std::fs::create_dir_all(shop.dir.join(".profile.d")).unwrap();
    write(&shop, "page.py", SERVER);
    write(&shop, ".profile.d/10-first.sh", "declare -x FIRST='one  word'\nset -- other words\n");
    write(&shop, ".profile.d/20-more.sh", "export LAST=$FIRST\nfalse\n");
    write(&shop, ".profile.d/not-a-script", "exit 1\n");
    shop.change(".profile", "export LAST=\"$LAST, and the last\" PORT_SEEN=$PORT\n");
    let said = shop.pushed(&["tolv", "main"]);
    assert!(said.contains("release one word one word, and the last"), "{said}");
    assert_eq!(shop.text("shop.localhost", "/LAST"), "one  word, and the last");
    assert_eq!(shop.text("shop.localhost", "/PORT_SEEN"), shop.text("shop.localhost", "/PORT"));
    let ran = shop.ran(&["run", "--", "sh", "-c", "echo $LAST $1", "x", "a b"]);
    assert_eq!(ran.out.trim(), "one word, and the last a b", "{}", ran.err);
    assert_eq!(shop.ran(&["run", "--", "no-such-program"]).status.code(), Some(127));
    shop.tolv(&["scale", "worker=1"]);
    poll(SOON, "the worker", || {
        shop.tolv(&["logs", "-n", "100"]).contains("worker one word").then_some(())
    });
    // One that ends the shell is told, and keeps the old release.
    write(&shop, "page.py", SERVER);
    shop.change(".profile", "echo 'no licence' >&2\nexit 3\n");
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success());
    let text = ".profile ended the process before its command was started";
    assert!(ran.err.contains(text) && ran.err.contains("no licence"), "{}", ran.err);
    assert_eq!(shop.text("shop.localhost", "/LAST"), "one  word, and the last");
    // A mistake of its syntax has its place.
    shop.change(".profile", "export A=1\nif then\n");
    shop.pushed(&["tolv", "main"]);
    poll(SOON, "the mistake", || {
        shop.tolv(&["logs", "-n", "100"]).contains(".profile: line 2: syntax error").then_some(())
    });
}
