"""The release phase: makes the store ready for this release; running it again changes nothing."""
from redis import ResponseError
from store import GROUP, JOBS, store

try:
    if store:
        store.xgroup_create(JOBS, GROUP, id="0", mkstream=True)
    print("the queue is made" if store else "REDIS_URL is not set: no store to make ready")
except ResponseError as error:
    if "BUSYGROUP" not in str(error):  # it is there already
        raise
