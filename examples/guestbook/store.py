"""The backing service: Redis, attached by REDIS_URL and by nothing else; None without it."""
import os

import redis

JOBS, ENTRIES, TOTALS, GROUP = "guestbook:jobs", "guestbook:entries", "guestbook:totals", "counters"
URL = os.environ.get("REDIS_URL")
store = redis.from_url(URL, decode_responses=True, socket_timeout=5) if URL else None
