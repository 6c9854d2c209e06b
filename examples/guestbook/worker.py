"""Counts entries and words. A job is acknowledged together with its result, or not at all."""
import signal

from store import GROUP, JOBS, TOTALS, store

if not store:
    print("REDIS_URL is not set: no jobs to wait for", flush=True)
    signal.pause()
stopping, waiting = False, True


def stop(*_):
    global stopping
    stopping = True
    if waiting:  # else the job in hand is finished first
        raise SystemExit(0)


signal.signal(signal.SIGTERM, stop)
while not stopping:
    # Jobs that a worker took and died with come first.
    jobs = store.xautoclaim(JOBS, GROUP, "worker", min_idle_time=30_000)[1]
    jobs = jobs or dict(store.xreadgroup(GROUP, "worker", {JOBS: ">"}, count=1, block=4000)).get(JOBS, [])
    waiting = False
    for job, fields in jobs:
        words = len(fields["text"].split())
        with store.pipeline(transaction=True) as done:
            done.hincrby(TOTALS, "entries", 1).hincrby(TOTALS, "words", words)
            done.xack(JOBS, GROUP, job).xdel(JOBS, job).execute()
        print(f"counted job={job} words={words}", flush=True)
    waiting = True
