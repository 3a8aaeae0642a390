"""Waiting for a slot, several instances of a model, groups and stand-ins, with the real llama-server."""
import json
import threading

from lib.wire import fetch, wait_for

ONE_SLOT = {"defaults": {"ctx": 4096, "parallel": 1, "extra_args": ["--threads", "1"]}}
LONG = {"prompt": "go on", "max_tokens": 30000, "stream": True, "ignore_eos": True}


def hold(d, model="slow", headers=()):
    """A stream that keeps a slot of the model until it is closed."""
    w = d.wire()
    w.request("POST", "/v1/completions", {"model": model, **LONG}, headers=headers)
    assert w.head() == 200
    next(w.events())
    return w


def waiting(d, n):
    wait_for(lambda: d.metric("arriero_queue_length") == n, 30, 0.02, f"{n} requests in line")


class Asked:
    """Requests on threads of their own; `done` lists their names in the order of their answers."""

    def __init__(self, d):
        self.d, self.done, self.answers, self.threads = d, [], {}, []

    def ask(self, name, headers=(), model="slow"):
        def run():
            body = {"model": model, "prompt": name, "max_tokens": 4}
            self.answers[name] = fetch(self.d.where, "POST", "/v1/completions", body, headers=headers, timeout=120)
            self.done.append(name)

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def join(self):
        for t in self.threads:
            t.join(120)
        assert all(a[0] == 200 for a in self.answers.values()), self.answers


def key(d, name, *args):
    return [f"Authorization: Bearer {d.cli('key', 'add', name, *args, check=0).stdout.strip()}"]


def queue_of(d, head):
    """The same of a daemon with keys."""
    text = fetch(d.where, "GET", "/metrics", headers=head)[2].decode()
    return sum(float(x.split()[-1]) for x in text.splitlines() if x.startswith("arriero_queue_length{"))


def test_a_flood_of_one_key_delays_another_by_one_answer(make_daemon, folder, slow):
    d = make_daemon([folder(slow)], config=ONE_SLOT).start()
    flooder, meek = key(d, "flooder"), key(d, "meek")
    held = hold(d, headers=flooder)
    a = Asked(d)
    for i in range(8):
        a.ask(f"flood {i}", flooder)
        wait_for(lambda n=i + 1: queue_of(d, flooder) == n, 30, 0.02, "the flood in line")
    a.ask("meek", meek)
    wait_for(lambda: queue_of(d, flooder) == 9, 30, 0.02, "all in line")
    held.close()
    a.join()
    assert a.done.index("meek") <= 1, a.done
    position, expected = a.answers["meek"][1]["x-arriero-queue"].split("; expected=")
    assert position == "2" and float(expected) > 0
    assert [x for x in a.done if x != "meek"] == [f"flood {i}" for i in range(8)]
    d.stop()


def test_bands_full_lines_and_clients_that_leave(make_daemon, folder, slow):
    d = make_daemon([folder(slow)], config={**ONE_SLOT, "limits": {"max_waiting": 3}}).start()
    held = hold(d)
    gone = d.wire()
    gone.request("POST", "/v1/completions", {"model": "slow", "prompt": "x", "max_tokens": 4})
    waiting(d, 1)
    gone.close()
    waiting(d, 0)
    a = Asked(d)
    for n, (name, band) in enumerate((("low", "low"), ("normal", "normal"), ("high", "HIGH"))):
        a.ask(name, [f"X-Arriero-Priority: {band}"])
        waiting(d, n + 1)
    status, headers, body = fetch(d.where, "POST", "/v1/completions", {"model": "slow", "prompt": "one too many"})
    assert status == 429 and int(headers["retry-after"]) >= 1
    error = json.loads(body)["error"]
    assert "3 requests wait for model slow already" in error["message"] and "max_waiting" in error["hint"]
    assert d.post_json("/tokenize", {"model": "slow", "content": "hello"})[0] == 200  # that takes no slot
    row = d.instance("slow")
    assert (row["slots"], row["slots_in_use"], row["waiting"]) == (1, 1, 3)
    assert "1/1 (+3)" in d.cli("ps", check=0).stdout
    held.close()
    a.join()
    assert a.done == ["high", "normal", "low"]
    assert d.metric("arriero_queue_grants_total") == 4  # the one that holds the slot waited for the load
    assert "3 requests wait already" in d.cli("why", "slow", check=0).stdout
    d.stop()


def test_conversations_return_to_the_instance_that_read_them(make_daemon, folder, tiny):
    config = {"models": {"tiny-a": {"instances": 2, "instances_min": 2}}, **ONE_SLOT}
    d = make_daemon([folder(tiny)], config=config).start()
    assert d.chat("tiny-a")[0] == 200
    wait_for(lambda: len([i for i in d.instances("tiny-a") if i["state"] == "ready"]) == 2, 60, 0.05, "two instances")
    texts = {"x": "x y z " * 60, "q": "q r s " * 60}
    home = {}
    for turn in range(3):
        for name, text in texts.items():
            body = {"model": "tiny-a", "prompt": text + "and " * 20 * turn, "max_tokens": 2}
            status, headers, answer = fetch(d.where, "POST", "/v1/completions", body)
            assert status == 200, answer
            home.setdefault(name, headers["x-arriero-instance"])
            assert headers["x-arriero-instance"] == home[name]
            cached = json.loads(answer)["usage"]["prompt_tokens_details"]["cached_tokens"]
            assert turn == 0 or cached > 100, answer
    assert home["x"] != home["q"]
    assert d.metric("arriero_prefix_hits_total") == 4
    d.stop()


def test_groups_stand_ins_and_names(make_daemon, folder, tiny, tiny_b):
    config = {
        "default_model": "Any", **ONE_SLOT,
        "models": {
            "Any": {"members": ["tiny-a", "tiny-b"]},
            "tiny-a": {"aliases": ["someone/Tiny-A-GGUF:Q8_0"]},
            "broken": {"path": "/nowhere/model.gguf", "fallback": ["tiny-b"]},
            "hopeless": {"path": "/nowhere/model.gguf", "fallback": ["broken"]},
        },
    }
    d = make_daemon([folder(tiny, tiny_b)], config=config).start()

    def served_by(**more):
        status, headers, body = fetch(d.where, "POST", "/v1/completions", {"prompt": "x", "max_tokens": 2, **more})
        assert status == 200, body
        return headers["x-arriero-instance"].split("#")[0]

    assert served_by() in ("tiny-a", "tiny-b")  # no model named
    assert served_by(model="SOMEONE/tiny-a:q8_0") == "tiny-a"
    assert served_by(model="broken") == "tiny-b"
    d.cli("load", "tiny-a", check=0)
    d.cli("load", "tiny-b", check=0)
    held = hold(d, "tiny-a") if served_by(model="Any") == "tiny-a" else hold(d, "tiny-b")
    busy = held.headers["x-arriero-instance"].split("#")[0]
    assert served_by(model="Any") != busy
    held.close()
    status, _, body = fetch(d.where, "POST", "/v1/completions", {"model": "hopeless", "prompt": "x"})
    assert status == 502 and b"nor could broken" in body, body
    listed = {m["id"]: m for m in d.get_json("/v1/models")[1]["data"]}
    assert listed["Any"]["members"] == ["tiny-a", "tiny-b"]
    assert d.metric("arriero_fallbacks_total") >= 2
    d.stop()
