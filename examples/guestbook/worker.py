"""Counts entries and words. A job is acknowledged together with its result, or not at all."""
import signal
import sys
from store import GROUP, JOBS, TOTALS, store

# Safe at any moment: a job not yet acknowledged stays in the queue, for whoever claims it.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if not store:
    print("REDIS_URL is not set: no jobs to wait for", flush=True)
    signal.pause()
while True:
    # Jobs that a worker took and died with come first.
    jobs = store.xautoclaim(JOBS, GROUP, "worker", min_idle_time=30_000)[1]
    jobs = jobs or dict(store.xreadgroup(GROUP, "worker", {JOBS: ">"}, count=1, block=4000)).get(JOBS, [])
    for job, fields in jobs:
        words = len(fields["text"].split())
        with store.pipeline(transaction=True) as done:
            done.hincrby(TOTALS, "entries", 1).hincrby(TOTALS, "words", words)
            done.xack(JOBS, GROUP, job).xdel(JOBS, job).execute()
        print(f"counted job={job} words={words}", flush=True)
