"""An evening of two models on a budget of one, told in sentences."""
import signal
import os

from lib.wire import wait_for

# Each takes 45 MiB, or 34 with the smallest cache type: one fits, and not two.
BUDGET_OF_ONE = {"budget": {"Host": "64MiB"}, "defaults": {"ctx": 4096, "extra_args": ["--threads", "1"]}}


def summary(d, model):
    return d.cli_json("why", model)["summary"]


def test_an_evening(make_daemon, folder, slow, slow_b):
    d = make_daemon([folder(slow, slow_b)], config=BUDGET_OF_ONE).start()
    assert summary(d, "slow").startswith("slow is not loaded: nobody has asked for it yet")
    assert d.cli_json("why")["summary"] == "Nothing is loaded."

    assert d.chat("slow")[0] == 200
    s = summary(d, "slow")
    assert s.startswith("slow runs on Host (") and "There is no GPU" in s and "To make room" not in s, s

    assert d.chat("slow-b")[0] == 200
    s = summary(d, "slow")
    assert s.startswith("slow is not loaded: it left ") and "to make room for slow-b" in s and "to load again" in s, s
    s = summary(d, "slow-b")
    assert s.startswith("slow-b runs on Host (") and "To make room, slow, idle for" in s, s
    assert d.cli_json("why")["summary"].startswith("slow-b runs on Host (")

    os.kill(d.instance("slow-b")["pid"], signal.SIGKILL)
    wait_for(lambda: [x for x in d.cli_json("why", "slow-b")["decisions"] if x["kind"] == "crash"], message="the crash")
    s = summary(d, "slow-b")
    assert s.startswith("slow-b is not loaded: it crashed ") and "SIGKILL" in s, s

    assert d.chat("slow")[0] == 200
    s = summary(d, "slow")
    assert s.startswith("slow runs on Host (") and "Before that, it left " in s and "to make room for slow-b." in s, s
    d.cli("unload", "slow")
    s = summary(d, "slow")
    assert s.startswith("slow is not loaded: it was unloaded ") and "as was asked for" in s, s

    # the text: the paragraph, then decisions from old to new
    text = d.cli("why", "slow").stdout
    assert text.startswith("slow is not loaded: it was unloaded "), text
    at = [text.index(w) for w in ("slow was placed", "slow became ready", "slow was unloaded to make room", "slow was unloaded\n")]
    assert at == sorted(at), text
    answer = d.cli_json("why", "slow", "-n", "2")
    assert len(answer["decisions"]) == 2 and all(x["text"].startswith("slow ") for x in answer["decisions"])
    assert (answer["model"], answer["state"]) == ("slow", "unloaded")
    d.stop()


def test_a_refusal_says_what_is_short(make_daemon, folder, slow):
    d = make_daemon([folder(slow)], config={**BUDGET_OF_ONE, "budget": {"Host": "16MiB"}}).start()
    status, answer = d.chat("slow")
    assert status >= 400, answer
    s = summary(d, "slow")
    assert s.startswith("slow is not loaded: it was refused "), s
    assert "MiB" in s
    d.stop()


def test_a_name_that_nobody_has(daemon):
    r = daemon.cli("why", "tiny-x")
    assert r.returncode == 1 and "tiny-a" in r.stderr
    code, body = daemon.control("GET", "/why?model=tiny-x")
    assert code == 404 and body["error"]["hint"]
    code, body = daemon.control("GET", "/why?limit=many")
    assert code == 400
