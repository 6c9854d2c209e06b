"""Shows the entries and takes new ones; keeps nothing between two requests."""
import json

from flask import Flask, redirect, render_template, request
from redis import RedisError

from store import ENTRIES, JOBS, TOTALS, store

app = Flask(__name__)


@app.get("/")
def show():
    entries = [json.loads(entry) for entry in store.lrange(ENTRIES, 0, 49)] if store else []
    totals = store.hgetall(TOTALS) if store else {}
    return render_template("page.html", attached=store, entries=entries, totals=totals)


@app.post("/")
def sign():
    if not store:
        return "REDIS_URL is not set: there is nowhere to keep an entry.\n", 503
    name, text = (request.form.get(key, "").strip()[:500] for key in ("name", "text"))
    if not name or not text:
        return "A name and a text, please.\n", 400
    with store.pipeline(transaction=True) as both:
        both.lpush(ENTRIES, json.dumps({"name": name, "text": text})).xadd(JOBS, {"text": text}).execute()
    return redirect("/", 303)


@app.errorhandler(RedisError)
def unreachable(error):
    print(f"redis: {error}", flush=True)
    return "The guestbook's store cannot be reached.\n", 503
