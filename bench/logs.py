"""What it costs to capture an app's output: CPU seconds per million 100-byte lines.

The app writes lines in blocks of 64 KiB to its standard output (or, where the name says so, each
with a write of its own), first one, then, a while later, all of them, and then sleeps. What the manager's processes used between the two is the cost; the
app's own time is not in it. `cat` into a file is the floor of anything that copies the bytes once.

store    tolv's shim alone: from the app's pipe into the durable store
shown    lines of the app that reached the manager's output, where that is a file; tolv never makes
         the app wait: what its bounded store has no room for is dropped, and it tells how much
grep     seconds of `tolv logs --grep` for a rare word in a log of 1 GiB, beside `grep` in a file of
         as many bytes
streams  ten processes that write 100,000 lines a second each, for a minute: how much memory the
         platform and its shims have in the middle and at the end
"""
import os
import re
import statistics
import subprocess
import time
from pathlib import Path

import common
from common import Program, cell, median

LINE = b"time=12:00:00.000000 level=info request=0123456789abcdef path=/entries/42".ljust(99, b".")
LINE += b"\n"
# As many lines as fill whole blocks: 25 of them.
LINES = LINE * 16384
# Bytes of a write.
BLOCK = 65536
# In Perl, which every Debian system and so every sandbox has.
FLOOD = """# After one line and a pause, writes as many as the first argument says; then it sleeps.
open my $file, '<', 'lines' or die "lines: $!";
read $file, my $cycle, -s $file;
my ($left, $at, $block) = ($ARGV[0] * 100, 0, $ARGV[1]);
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
# Ten blocks of a thousand lines each tenth of a second.
PACE = """use Time::HiRes qw(sleep time);
open my $file, '<', 'lines' or die "lines: $!";
read $file, my $block, 100_000;
my $next = time;
while (1) {
  for (1..10) {
    my $from = 0;
    $from += syswrite STDOUT, $block, length($block) - $from, $from while $from < length $block;
  }
  $next += 0.1;
  my $rest = $next - time;
  sleep $rest if $rest > 0;
}
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


def flood(lines, block):
    """The app's command; the marker finds its process."""
    return f"perl flood.pl {lines} {block} marker-{os.getpid()}"


def procfile(folder, lines, block):
    """Writes the Procfile for `lines` lines and returns the marker."""
    (folder / "Procfile").write_text(f"flood: {flood(lines, block)}\n")
    return f"marker-{os.getpid()}".encode()


def peers(args, folder, out):
    """Name → lines, bytes of a write, command, where its output goes."""
    up = [args.tolv, "up", "--listen", "127.0.0.1:0"]
    few, line = args.lines // 10, len(LINES) // 16384
    logged = folder.parent / "logged"

    def piped(into, block=BLOCK):
        return ["sh", "-c", f"{flood(args.lines, block)} | {into}"]

    s6, svlogd = f"s6-log -b n9 s16777216 T {logged}/s6", f"svlogd -tt {logged}/svlogd"
    for name in ("s6", "svlogd"):
        (logged / name).mkdir(parents=True, exist_ok=True)
    cat = piped("cat")
    blocks = {
        "cat → /dev/null": (args.lines, cat, os.devnull),
        "cat → file": (args.lines, cat, out),
        "tolv → /dev/null": (args.lines, up, os.devnull),
        "tolv → file": (args.lines, up, out),
        "s6-log": (args.lines, piped(s6), os.devnull),
        "svlogd": (args.lines, piped(svlogd), os.devnull),
        "foreman → /dev/null": (few, ["foreman", "start"], os.devnull),
        "foreman → file": (few, ["foreman", "start"], out),
        "honcho → /dev/null": (few, [args.peers / "honcho", "start"], os.devnull),
        "honcho → file": (few, [args.peers / "honcho", "start"], out),
    }
    lines = {
        "cat → file, a line a write": (args.lines, piped("cat", line), out),
        "tolv → /dev/null, a line a write": (args.lines, up, os.devnull),
        "s6-log, a line a write": (args.lines, piped(s6, line), os.devnull),
        "svlogd, a line a write": (args.lines, piped(svlogd, line), os.devnull),
    }
    all_ = {name: (count, BLOCK, *rest) for name, (count, *rest) in blocks.items()}
    return all_ | {name: (count, line, *rest) for name, (count, *rest) in lines.items()}


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


def sample(folder, lines, block, command, out):
    """CPU seconds per million lines of one manager."""
    marker = procfile(folder, lines, block)
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
    args = common.arguments(__doc__.splitlines()[0], lines=1_000_000, seconds=60)
    with common.workspace() as temporary:
        folder, out = app(Path(temporary, "app")), Path(temporary, "output")
        under_test = peers(args, folder, out)
        samples = {name: [] for name in under_test}
        for repetition in range(args.repetitions):
            for name, (lines, block, command, path) in under_test.items():
                print(f"{repetition + 1}/{args.repetitions} {name}", flush=True)
                samples[name].append(sample(folder, lines, block, command, path))
        figures = searched(args, Path(temporary)), streams(args, Path(temporary))
    report(args, under_test, samples, *figures)


def searched(args, folder):
    """Seconds to find a rare word in 1 GiB: tolv's log, and a file by grep."""
    count = (1 << 30) // len(LINE)
    source = folder / "search"
    source.mkdir()
    (source / "lines").write_bytes(LINES)
    (source / "flood.pl").write_text(FLOOD.replace("PAUSE", "0"))
    (source / "Procfile").write_text(f"flood: {flood(count, BLOCK)}\n")
    file = folder / "file"
    with open(file, "wb") as out:
        for _ in range(count // 16384):
            out.write(LINES)
        out.write(b"a needle\n")
    with common.Served(args, folder, {"TOLV_LOG_MIB": "2048"}) as served:
        served.deploy(source, "search")
        stored = lambda: served.json(["logs", "stats", "-d", "search"])["total"]["stored"]["lines"]
        common.until(lambda: stored() > count, 300, "all of it to be stored")
        looks = {"tolv": [], "grep": []}
        for _ in range(args.repetitions):
            began = time.monotonic()
            served.run(["logs", "-d", "search", "-n", "10", "--grep", "needle"])
            looks["tolv"].append(time.monotonic() - began)
            began = time.monotonic()
            subprocess.run(["grep", "-c", "needle", file], check=True, capture_output=True)
            looks["grep"].append(time.monotonic() - began)
    return {name: statistics.median(taken) for name, taken in looks.items()}


def streams(args, folder):
    """MiB (PSS) of the platform and its shims while ten processes write a million lines a second."""
    source = folder / "streams"
    source.mkdir()
    (source / "lines").write_bytes(LINES)
    (source / "pace.pl").write_text(PACE)
    (source / "Procfile").write_text("flood: exec perl pace.pl\n")
    (source / "app.json").write_text('{"formation": {"flood": {"quantity": 10}}}')
    with common.Served(args, folder, {}) as served:
        served.deploy(source, "streams")
        began, memory = time.monotonic(), []
        stored = lambda: served.json(["logs", "stats", "-d", "streams"])["total"]
        first = stored()["written"]["lines"]
        while time.monotonic() < began + args.seconds:
            time.sleep(args.seconds / 12)
            memory.append(common.pss(served.pid) / 2**20)
        total = stored()
        rate = (total["written"]["lines"] - first) / (time.monotonic() - began)
        dropped = total["dropped"]["lines"]
    return {"rate": rate, "middle": memory[len(memory) // 2], "end": memory[-1], "dropped": dropped}


def report(args, under_test, samples, found, flowing):
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
    print(f"\n--grep in 1 GiB: {found['tolv']:.2f} s, grep {found['grep']:.2f} s "
          f"({found['tolv'] / found['grep']:.1f}×)")
    print(f"ten streams: {flowing['rate']:,.0f} lines/s, {flowing['middle']:.0f} MiB in the middle, "
          f"{flowing['end']:.0f} MiB at the end, {flowing['dropped']} lines dropped by the store")


if __name__ == "__main__":
    main()
