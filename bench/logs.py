"""What it costs to capture an app's output: CPU seconds per million 100-byte lines.

The app writes lines in blocks of 64 KiB to its standard output, first one, then, a while later,
all of them, and then sleeps. What the manager's processes used between the two is the cost; the
app's own time is not in it. `cat` reads the same output through a pipe: the floor of anything
that copies it once.

store    tolv's shim alone: the lines are in the durable store, on disk
shown    lines of the app that reached the manager's output, where that is a file
"""
import os
import time
from pathlib import Path

import common
from common import Program, cell, median

LINE = b"time=12:00:00.000000 level=info request=0123456789abcdef path=/entries/42 status=200 bytes=17"
LINE = LINE.ljust(99, b".") + b"\n"
# As many lines as fill whole blocks: 25 of them.
LINES = LINE * 16384
# In Perl, which every Debian system and so every sandbox has.
FLOOD = """# Writes as many lines as the first argument says, after one line and a pause; then it sleeps.
open my $file, '<', 'lines' or die "lines: $!";
read $file, my $cycle, -s $file;
my ($left, $at, $block) = ($ARGV[0] * 100, 0, 65536);
sub put { my $from = 0; $from += syswrite STDOUT, $_[0], length($_[0]) - $from, $from while $from < length $_[0] }
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
    few = args.lines // 10
    return {
        "cat": (args.lines, ["sh", "-c", f"{flood(args.lines)} | cat"], os.devnull),
        "tolv → /dev/null": (args.lines, up, os.devnull),
        "tolv → file": (args.lines, up, out),
        "foreman → /dev/null": (few, ["foreman", "start"], os.devnull),
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
        shown = None
        if out != os.devnull:
            shown = program.output().count(LINE)
    scale = 1e6 / lines
    # The app's parent is tolv's shim.
    return {"cpu": sum(used.values()) * scale, "shown": shown and shown / lines * 100,
            "store": parent(app, used) * scale}


def parent(app, used):
    """What the app's nearest manager used."""
    nearest = [pid for pid in used if app in common.descendants(pid)[1:]]
    return used[nearest[-1]] if nearest else 0.0


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
        floor = median(samples["cat"], "cpu")
        rows = [
            [name, cell(median(taken, "cpu"), 2, floor),
             cell(median(taken, "store"), 2) if name.startswith("tolv") else "–",
             cell(median(taken, "shown"), 2), f"{under_test[name][0]:,}"]
            for name, taken in samples.items()]
        head = ["", "CPU s per million", "store", "shown %", "lines written"]
        common.table(f"100-byte lines in blocks of 64 KiB, medians of {args.repetitions}; "
                     "in brackets: times cat", head, rows)


if __name__ == "__main__":
    main()
