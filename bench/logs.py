"""What it costs to capture an app's output: CPU seconds per million 100-byte lines.

The app writes lines in blocks of 64 KiB to its standard output, first one, then, a while later,
all of them, and then sleeps. What the manager's processes used between the two is the cost; the
app's own time is not in it. `cat` into a file is the floor of anything that copies the bytes once.

store    tolv's shim alone: from the app's pipe into the durable store
shown    lines of the app that reached the manager's output, where that is a file; tolv never makes
         the app wait: what its bounded store has no room for is dropped, and it tells how much
"""
import os
import re
import time
from pathlib import Path

import common
from common import Program, cell, median

LINE = b"time=12:00:00.000000 level=info request=0123456789abcdef path=/entries/42".ljust(99, b".")
LINE += b"\n"
# As many lines as fill whole blocks: 25 of them.
LINES = LINE * 16384
# In Perl, which every Debian system and so every sandbox has.
FLOOD = """# After one line and a pause, writes as many as the first argument says; then it sleeps.
open my $file, '<', 'lines' or die "lines: $!";
read $file, my $cycle, -s $file;
my ($left, $at, $block) = ($ARGV[0] * 100, 0, 65536);
sub put {
  my ($data, $from) = ($_[0], 0);
  $from += syswrite STDOUT, $data, length($data) - $from, $from while $from < length $data;
}
put("ready\\n");
sleep PAUSE;
while ($left > 0) {
  put(substr $cycle, $at, $left < $block ? $left : $block);
  ($left, $at) = ($left - $block, ($at + $block) % length $cycle);
}
sleep 3600;
"""
# Between the app's first line and the flood: a manager's start is over by then.
PAUSE = 4
# The flood is over when the managers used less than this for three looks in a row.
QUIET, LOOK = 0.003, 0.5


def app(folder):
    """An app of one process type, called with the number of lines."""
    folder.mkdir()
    (folder / "lines").write_bytes(LINES)
    (folder / "flood.pl").write_text(FLOOD.replace("PAUSE", str(PAUSE)))
    return folder


def flood(lines):
    """The app's command; the marker finds its process."""
    return f"perl flood.pl {lines} marker-{os.getpid()}"


def procfile(folder, lines):
    """Writes the Procfile for `lines` lines and returns the marker."""
    (folder / "Procfile").write_text(f"flood: {flood(lines)}\n")
    return f"marker-{os.getpid()}".encode()


def peers(args, folder, out):
    """Name → lines, command, where its output goes."""
    up = [args.tolv, "up", "--listen", "127.0.0.1:0"]
    cat = ["sh", "-c", f"{flood(args.lines)} | cat"]
    few = args.lines // 10
    return {
        "cat → /dev/null": (args.lines, cat, os.devnull),
        "cat → file": (args.lines, cat, out),
        "tolv → /dev/null": (args.lines, up, os.devnull),
        "tolv → file": (args.lines, up, out),
        "foreman → /dev/null": (few, ["foreman", "start"], os.devnull),
        "foreman → file": (few, ["foreman", "start"], out),
        "honcho → /dev/null": (few, [args.peers / "honcho", "start"], os.devnull),
        "honcho → file": (few, [args.peers / "honcho", "start"], out),
    }


def flooding(program, marker):
    """Waits for the app; returns its pid, the one that was executed, not a shell's."""
    def look():
        program.check()
        for pid in common.descendants(program.pid):
            words = common.argv(pid)
            if words[-1:] == [marker] and b"flood.pl" in words:
                return pid
        return None
    return common.until(look, 300, "the app")


def settled(managers, app):
    """Waits until the app has written everything and the managers have nothing to do."""
    still, before = 0, None
    while still < 3:
        time.sleep(LOOK)
        now = sum(map(common.cpu, [*managers, app]))
        still = still + 1 if before is not None and now - before < QUIET else 0
        before = now


def sample(folder, lines, command, out):
    """CPU seconds per million lines of one manager."""
    marker = procfile(folder, lines)
    with Program(command, folder, out) as program:
        app = flooding(program, marker)
        time.sleep(PAUSE / 2)
        managers = [pid for pid in common.descendants(program.pid) if pid != app]
        before = {pid: common.cpu(pid) for pid in managers}
        time.sleep(PAUSE / 2)
        settled(managers, app)
        used = {pid: common.cpu(pid) - before[pid] for pid in managers}
        figures = {"cpu": sum(used.values()) / lines * 1e6,
                   "store": used[parent(app, managers)] / lines * 1e6}
        return figures | (kept(program, lines) if out != os.devnull else {})


def parent(app, managers):
    """The manager's process that is the app's parent: tolv's shim."""
    return [pid for pid in managers if app in common.descendants(pid)][-1]


def kept(program, lines):
    """Shares of the lines that came out, and that were told to be dropped."""
    output = program.output()
    told = sum(map(int, re.findall(rb"output buffer overflow\): (\d+) line", output)))
    return {"shown": output.count(LINE) / lines * 100, "told": told / lines * 100}


def main():
    """Runs it all."""
    args = common.arguments(__doc__.splitlines()[0], lines=1_000_000)
    with common.workspace() as temporary:
        folder, out = app(Path(temporary, "app")), Path(temporary, "output")
        under_test = peers(args, folder, out)
        samples = {name: [] for name in under_test}
        for repetition in range(args.repetitions):
            for name, (lines, command, path) in under_test.items():
                print(f"{repetition + 1}/{args.repetitions} {name}", flush=True)
                samples[name].append(sample(folder, lines, command, path))
    report(args, under_test, samples)


def report(args, under_test, samples):
    """The table."""
    floor = median(samples["cat → file"], "cpu")
    rows = []
    for name, taken in samples.items():
        get = lambda key: median(taken, key)
        store = get("store") if name.startswith("tolv") else None
        rows.append([
            name, cell(get("cpu"), 2, floor), cell(store, 2, floor), cell(get("shown"), 1),
            cell(get("told"), 1), f"{under_test[name][0]:,}"])
    head = ["", "CPU s per million", "store", "shown %", "told as dropped %", "lines written"]
    common.table(f"100-byte lines in blocks of 64 KiB, medians of {args.repetitions}; "
                 "in brackets: times cat → file", head, rows)


if __name__ == "__main__":
    main()
