//! Builds and processes on a stack: what they see of the machine, and what is proven of it.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// Says which programs and folders it sees, and what the hook of its build made.
const LOOK: &str = r#"
import os, shutil
from http.server import BaseHTTPRequestHandler, HTTPServer
import six

def seen():
    programs = [name for name in ("sh", "gcc", "git") if shutil.which(name)]
    folders = [path for path in ("/usr/local", "/opt", "/home", "/root") if os.path.exists(path)]
    return " ".join([*programs, *folders, open("made").read().strip()])

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(seen())))
        self.end_headers()
        self.wfile.write(seen().encode())

if __name__ == "__main__":
    HTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// Needs a compiler, and fails where the build sees more of the machine than the stack.
const HOOK: &str = "set -eu
test ! -e /usr/local && test ! -e /opt
printf '#include <stdio.h>\\nint main() { return puts(\"compiled\") < 0; }' > made.c
gcc made.c -o /tmp/made
echo \"$(/tmp/made) on $STACK\" > made
";

#[test]
fn an_app_is_built_and_run_on_a_stack_and_on_nothing_else() {
    let stacks = tolv_testkit::Home::new();
    let folder = stacks.path().join("stacks");
    let named = folder.to_str().unwrap();
    let mut shop = Shop::new(
        "web: python server.py\nrelease: python -c 'import server; print(\"sees\", server.seen())'\n",
        &[("TOLV_STACK", "host"), ("TOLV_STACKS", named)],
    );
    std::fs::create_dir(shop.dir.join("bin")).unwrap();
    std::fs::write(shop.dir.join("bin/pre_compile"), HOOK).unwrap();
    std::fs::write(shop.dir.join("requirements.txt"), "six==1.17.0\n").unwrap();
    shop.change("server.py", LOOK);
    let said = shop.pushed(&["tolv", "main"]);
    assert!(said.contains("-----> Stack host@"), "{said}");
    let saw = "sh compiled on host";
    assert!(said.contains(&format!("sees {saw}")), "{said}");
    assert_eq!(shop.text("shop.localhost", "/"), saw);
    let one_off = shop.tolv(&["run", "--", "python", "-c", "import server; print(server.seen())"]);
    assert_eq!(one_off.trim(), saw);

    // The release names the version that is here.
    let list = shop.json(&["stack", "list", "--stacks", named]);
    let stack = &list["stacks"][0];
    let digest = stack["digest"].as_str().unwrap();
    let release = shop.json(&["releases", "info", "v1"]);
    assert_eq!(release["stack"], format!("host@{digest}"));
    let info = shop.tolv(&["releases", "info", "v1"]);
    assert!(info.contains(&format!("Stack         host@{digest}\n")), "{info}");

    // A file of it that was changed is found before each start, and so is a layer that is gone.
    let run = folder.join(stack["run"]["digest"].as_str().unwrap());
    let file = run.join("usr/lib/os-release");
    let before = std::fs::read(&file).unwrap();
    let write = |bytes: &[u8]| {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::fs::write(&file, bytes).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o444)).unwrap();
    };
    let refused = |why: &str| {
        let ran = shop.ran(&["restart"]);
        let told = ["the stack host@", why, "tolv stack make host"];
        let is_told = told.iter().all(|text| ran.err.contains(text));
        assert!(!ran.status.success() && is_told, "{}", ran.err);
        assert_eq!(shop.text("shop.localhost", "/"), saw, "the old process still runs");
    };
    let mut other = before.clone();
    other[0] ^= 1;
    write(&other);
    refused("differs at `usr/lib/os-release`");
    super::proof::does_not_hold(&shop, "the stack host@");
    write(&before);
    shop.tolv(&["restart"]);
    let aside = run.with_extension("aside");
    std::fs::rename(&run, &aside).unwrap();
    refused("is not here");
    std::fs::rename(&aside, &run).unwrap();
    shop.tolv(&["restart"]);

    // What is built on a stack runs on it, whatever the platform builds on next.
    shop.serve.end(rustix::process::Signal::TERM);
    shop.serve.set(&[("TOLV_STACKS", named)]);
    shop.serve.begin();
    until_text(&shop, "shop.localhost", saw);
}
