"""What the pool does when things outside go wrong, and what it tells of itself, with the real llama-server."""
import json
import os
import signal
import subprocess
import threading

from lib import procs
from lib.wire import BrokenStream, wait_for

# As in test_lifecycle: one model fits, and not two.
BUDGET_OF_ONE = {"budget": {"Host": "64MiB"}, "defaults": {"ctx": 4096, "extra_args": ["--threads", "1"]}}


def test_a_hung_victim_does_not_block_the_load_that_waits_for_it(make_daemon, folder, slow, slow_b):
    config = {**BUDGET_OF_ONE, "limits": {"patience": "1s"}}
    d = make_daemon([folder(slow, slow_b)], config=config).start()
    w = d.wire()
    w.request("POST", "/v1/completions",
              {"model": "slow", "prompt": "go on", "max_tokens": 30000, "stream": True, "ignore_eos": True})
    assert w.head() == 200
    events = w.events()
    next(events)
    pid = d.instance("slow")["pid"]
    other = []
    t = threading.Thread(target=lambda: other.append(d.chat("slow-b")))
    t.start()
    wait_for(lambda: d.instances("slow") and d.instances("slow")[0]["state"] == "draining", 30, 0.02,
             "the first model leaving for the second")
    os.kill(pid, signal.SIGSTOP)  # it neither answers nor computes from now on
    t.join(120)
    assert other and other[0][0] == 200, other
    assert not procs.alive(pid)
    broken = False
    try:
        for e in events:
            assert e != "[DONE]"
    except (BrokenStream, ConnectionError):
        broken = True
    assert broken, "the victim's stream ended as if it were whole"
    w.close()
    why = d.cli("why", "slow", check=0).stdout
    assert "answers no health check any more" in why and "broken off" in why, why
    d.stop()


def test_a_runtime_that_hangs_when_probed_is_probed_once_for_all(make_daemon, folder, tiny, tiny_b, slow, script, tmp_path):
    asked = tmp_path / "asked"
    runtime = script("llama-hangs", f"#!/bin/sh\necho x >> {asked}\nexec sleep 600\n")
    d = make_daemon([folder(tiny, tiny_b, slow)], runtime=runtime).start()
    answers = []
    threads = [threading.Thread(target=lambda m=m: answers.append(d.chat(m))) for m in ("tiny-a", "tiny-b", "slow")]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert [a[0] for a in answers] == [502] * 3, answers
    assert all("did not end within" in a[1]["error"]["message"] for a in answers), answers
    # the daemon's own look at its start, and at most one more that followed on its failure
    assert asked.read_text().count("x") <= 2
    d.stop()


def test_requests_that_wait_for_a_load_are_counted(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)]).start()
    assert d.metric("arriero_waits_total") == 0
    for _ in range(2):
        assert d.chat("tiny-a")[0] == 200
    assert d.metric("arriero_waits_total") == 1  # the second found it ready
    assert d.get_json("/status")[1]["counters"]["waits"] == 1
    d.stop()


def test_secrets_are_shown_nowhere(make_daemon, folder, tiny):
    secret = "s3cret-of-nobody"
    config = {"models": {"tiny-a": {"extra_args": ["--api-key", secret]}}}
    d = make_daemon([folder(tiny)], config=config, env={"HF_TOKEN": secret}).start()
    d.cli("load", "tiny-a", check=0)
    pid = d.instance("tiny-a")["pid"]
    assert secret in procs.cmdline(pid), "the server does not get its key"
    with open(f"/proc/{pid}/environ", "rb") as f:
        assert secret.encode() not in f.read()
    views = {
        "/status": d.get("/status")[2].decode(),
        "ps": d.cli("ps", "--json", check=0).stdout,
        "why": d.cli("why", "tiny-a", "--json", check=0).stdout,
        "logs": d.cli("logs", "tiny-a", "-n", "0", check=0).stdout,
        "the daemon's log": d.log(),
    }
    assert '"***"' in views["ps"]
    for name, text in views.items():
        assert secret not in text, f"{name} shows it"
    d.stop()


def test_plan_over_the_control_api_tells_of_the_host(make_daemon, folder, tiny):
    """Before and after a load, and for a model that waits or is refused: the host's size is never 0."""
    d = make_daemon([folder(tiny)]).start()

    def host(**settings):
        status, plan = d.control("POST", "/plan", {"model": "tiny-a", **settings})
        assert status == 200, plan
        found = [x for x in plan["devices"] if x["name"] == "Host"]
        assert len(found) == 1, json.dumps(plan)[:500]
        return plan, found[0]

    plan, before = host()
    assert plan["fits"] and plan["victims"] == []
    assert 0 < before["free_bytes"] <= before["total_bytes"]
    assert before["model_bytes"] > 0 and before["context_bytes"] > 0
    d.cli("load", "tiny-a", check=0)
    _, after = host()
    assert 0 < after["free_bytes"] <= after["total_bytes"] == before["total_bytes"]
    _, longer = host(ctx=1024)
    assert longer["context_bytes"] < before["context_bytes"]
    d.stop()


def listening(d, *args):
    """A command that listens: its process and its lines, as they come."""
    p = subprocess.Popen([d.binary, *args], env=d.env, cwd=d.dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, errors="replace")
    lines = []
    t = threading.Thread(target=lambda: [lines.append(x.rstrip("\n")) for x in p.stdout])
    t.start()
    return p, lines, t


def test_events_and_logs_are_followed(make_daemon, folder, tiny, tiny_b):
    d = make_daemon([folder(tiny, tiny_b)]).start()
    events, decided, t1 = listening(d, "events", "tiny-a", "--json")
    log, written, t2 = listening(d, "logs", "tiny-a", "-f")  # it is not loaded yet
    ended, _, t3 = listening(d, "events")
    wait_for(lambda: listeners(d) == 3, 20, 0.05, "three listeners")
    assert d.chat("tiny-b")[0] == 200
    assert d.chat("tiny-a")[0] == 200
    wait_for(lambda: any('"kind":"ready"' in x for x in decided), 20, 0.05, "the decision that it is ready")
    assert [json.loads(x)["model"] for x in decided] == ["tiny-a"] * len(decided)
    wait_for(lambda: any("listening" in x for x in written), 20, 0.05, "the line of the log that tells of it")
    d.cli("unload", "tiny-a", check=0)
    before = len(written)
    assert d.chat("tiny-a")[0] == 200  # the log goes on with the next instance
    wait_for(lambda: any("listening" in x for x in written[before:]), 20, 0.05, "the second instance's log")
    for p, t in ((events, t1), (log, t2)):
        p.send_signal(signal.SIGINT)
        assert p.wait(20) == 130
        t.join(20)
    wait_for(lambda: listeners(d) == 1, 20, 0.05, "the listeners being gone")
    r = d.cli("logs", "nobody", "-f")
    assert r.returncode == 1 and "nobody" in r.stderr
    d.stop()
    assert ended.wait(20) == 0
    t3.join(20)
    for p in (events, log, ended):
        p.stdout.close()
        p.stderr.close()


def listeners(d):
    return d.get_json("/status")[1]["counters"]["listeners"]


def test_rebalance_tells_of_what_is_loaded(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)]).start()
    none = d.cli_json("plan", "--rebalance")
    assert none["loaded"] == 0 and none["moves"] == [] and none["fixed"] == [], none
    d.cli("load", "tiny-a")
    d.cli("pin", "tiny-a")
    got = d.cli_json("plan", "--rebalance")
    assert got["loaded"] == 1 and got["moves"] == [] and got["cost"] == {"bytes": 0, "seconds": 0.0}, got
    assert [(f["model"], f["why"]) for f in got["fixed"]] == [("tiny-a", "pinned")], got
    text = d.cli("plan", "--rebalance").stdout
    assert "No model would run faster elsewhere: 1 loaded." in text and "Not moved: tiny-a (pinned)." in text, text
    d.stop()


def test_a_smaller_quantisation_takes_the_place_of_one_that_never_fits(make_daemon, shelf, folder, llama_server):
    big = shelf.make("wide-F32.gguf", name="Wide", embd=512, layers=8, heads=8, ff=2048, ctx=4096, seed=7)
    small = big.with_name("wide-Q8_0.gguf")
    if not small.exists():
        subprocess.run([os.path.join(os.path.dirname(llama_server), "llama-quantize"), big, small, "Q8_0"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    room = {"budget": {"Host": "110MiB"}, "defaults": {"ctx": 1024, "extra_args": ["--threads", "1"]}}
    d = make_daemon([folder(big, small)], config=room).start()
    status, answer = d.chat("wide-F32")[:2]
    assert status == 200, answer
    i = d.instance("wide-F32")
    assert i["smaller"] is True and i["path"].endswith("wide-Q8_0.gguf"), i
    assert any(a.endswith("wide-Q8_0.gguf") for a in i["argv"]), i["argv"]
    why = d.cli("why", "wide-F32", check=0).stdout
    assert "takes its place" in why, why
    d.stop()
    room["defaults"]["allow_smaller"] = False
    d = make_daemon([folder(big, small)], config=room).start()
    status, answer = d.chat("wide-F32")[:2]
    assert status != 200, answer
    d.stop()
