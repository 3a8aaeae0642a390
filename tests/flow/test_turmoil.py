"""Everything at once: streams whose clients stay, leave and reset, loads, unloads, pins and reloads; then the end under
load. What counts is what is left: no lease, no waiting request, no child, no report of a sanitizer, exit status 0."""
import json
import random
import signal
import threading

from lib.wire import wait_for

ACTORS, STEPS = 6, 12


def stream(daemon, rng, model):
    """A stream that is read to its end, left, or reset in its middle; a refusal is an answer, too."""
    w = daemon.wire()
    try:
        w.request("POST", "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "hello"}],
                                                   "max_tokens": rng.choice([4, 400]), "stream": True}, close=True)
        how = rng.randrange(4)
        if how == 0:
            w.reset()
        elif w.head() == 200:
            if how == 1:
                w.read_until(b"data:")
                w.reset()
            elif how == 2:
                w.read_until(b"data:")
    finally:
        w.close()


def act(daemon, rng, models):
    model = rng.choice(models)
    deed = rng.randrange(12)
    if deed == 0:
        daemon.control("POST", "/unload", {"model": rng.choice([model, ""]), "force": rng.random() < 0.3})
    elif deed == 1:
        daemon.control("POST", "/pin", {"model": model, "on": rng.random() < 0.5})
    elif deed == 2:
        daemon.control("POST", "/reload", {})
    elif deed == 3:
        daemon.get("/status")
    elif deed == 4:
        daemon.post_json("/api/chat", {"model": model, "keep_alive": rng.choice([0, 1, -1]), "messages": []})
    else:
        stream(daemon, rng, model)


def settings(rng):
    """What a reload changes: of one model, now and then, so that its instance leaves in the middle of things."""
    return {"limits": {"drain_timeout": "2s", "max_waiting": 8}, "models": {"tiny-b": {"ctx": rng.choice([512, 1024])}}}


def test_turmoil_leaves_nothing_behind(make_daemon, folder, tiny, tiny_b):
    seed = random.Random(7)
    daemon = make_daemon([folder(tiny, tiny_b)], config=settings(seed)).start()
    models = ["tiny-a", "tiny-b"]

    def actor(number):
        rng = random.Random(number)
        for step in range(STEPS):
            if number == 0 and step % 3 == 0:
                daemon.write_config(settings(seed))
                daemon.process.send_signal(signal.SIGHUP)
            try:
                act(daemon, rng, models)
            except (OSError, AssertionError, json.JSONDecodeError) as e:
                assert daemon.process.poll() is None, f"the daemon is gone: {e}\n{daemon.log()[-4000:]}"

    actors = [threading.Thread(target=actor, args=(n,)) for n in range(ACTORS)]
    for a in actors:
        a.start()
    for a in actors:
        a.join()
    wait_for(lambda: all(i["busy"] == 0 for i in daemon.instances()), 60, 0.1, "the end of all leases")
    wait_for(lambda: daemon.metric("arriero_queue_waiting") == 0, 10, 0.1, "an empty line")
    assert daemon.chat("tiny-a", timeout=60)[0] == 200
    deeds = {d["kind"] for d in daemon.cli_json("why")["decisions"]}
    assert {"load", "ready", "unload"} <= deeds, deeds
    assert "reloaded: " in daemon.log()
    assert daemon.metric("arriero_requests_total") > ACTORS
    daemon.stop()


def test_the_end_comes_under_load(make_daemon, folder, tiny, tiny_b):
    daemon = make_daemon([folder(tiny, tiny_b)], config={"limits": {"drain_timeout": "1s"}}).start()
    ended = threading.Event()

    def client(number):
        rng = random.Random(number)
        while not ended.is_set():
            try:
                stream(daemon, rng, rng.choice(["tiny-a", "tiny-b"]))
            except (OSError, AssertionError):
                if daemon.process is None or daemon.process.poll() is not None:
                    return

    clients = [threading.Thread(target=client, args=(n,)) for n in range(ACTORS)]
    for c in clients:
        c.start()
    daemon.instance("tiny-a")
    daemon.process.send_signal(signal.SIGHUP)  # a reload is under way when the end comes
    daemon.stop()
    ended.set()
    for c in clients:
        c.join()
