"""Other programs take memory: idle models yield it, requests do not fail, and it is taken back."""
import pytest

from lib import procs, tinygguf
from lib.toyhost import MIB, ToyHost
from lib.wire import wait_for

TOTAL, KEPT = 1600, 200  # MiB
# 512 bytes a token: 256 MiB
TOKENS = 512 * 1024
WHOLE = {"ctx": TOKENS, "ctx_min": TOKENS, "kv_type": "f16"}  # less is no choice


@pytest.fixture
def host(arriero_bin, tmp_path):
    if not ToyHost.works(str(tmp_path)):
        pytest.skip("no mount namespace can be made here")
    h = ToyHost(str(tmp_path), arriero_bin, TOTAL)
    yield h
    h.close()


@pytest.fixture
def start(host, make_daemon, tmp_path):
    def make(models, **more):
        config = {"usual_caches": False, "reserve_host": f"{KEPT}MiB", "sampling": {"interval": "100ms"},
                  "memory": {"yield_after": "300ms"},
                  "limits": {"drain_timeout": "900s"},
                  "defaults": {"margin": 0, "parallel": 1, "batch": 64, "ubatch": 32, "extra_args": ["--threads", "1"]},
                  "models": {name: {"path": tinygguf.write(str(tmp_path / f"{name}.gguf"), name=name, ctx=TOKENS,
                                                           seed=len(name) + ord(name[0])), **settings}
                             for name, settings in models.items()}, **more}
        d = make_daemon(config=config)
        d.binary = host.wrapper
        d.start()
        host.watch(d)
        return d
    return make


def decisions(d, model=None):
    path = "/decisions?limit=500" + (f"&model={model}" if model else "")
    return d.control("GET", path)[1]["decisions"]


def kinds(d, model):
    return [x["kind"] for x in decisions(d, model)]


def pressures(d):
    """The levels that were told, the latest first."""
    return [x["reasons"][0]["code"] for x in decisions(d) if x["kind"] == "pressure"]


def memory(d):
    return d.control("GET", "/status")[1]["memory"]


def on_host(d):
    return memory(d)["devices"][-1]


def test_an_idle_model_yields_and_comes_back(start, host):
    d = start({"a": WHOLE})
    assert d.chat("a")[0] == 200
    pid = d.instance("a")["pid"]
    row = on_host(d)
    assert row["name"] == "Host" and row["total_bytes"] == TOTAL * MIB and row["kept_free_bytes"] == KEPT * MIB
    wait_for(lambda: on_host(d)["own_bytes"] > 200 * MIB, 20, 0.05, "the model's memory in the figures")
    t = host.tenant()
    t.take(600)  # there is room for that
    wait_for(lambda: on_host(d)["foreign_bytes"] > 500 * MIB, 20, 0.05, "the tenant in the figures")
    assert d.chat("a")[0] == 200 and d.instance("a")["pid"] == pid
    t.take(1280)
    wait_for(lambda: "evict" in kinds(d, "a"), 30, 0.05, "the model yielding")
    wait_for(lambda: not d.instances("a"), 30, 0.05, "its end")
    assert not procs.alive(pid)
    reasons = next(x for x in decisions(d, "a") if x["kind"] == "evict")["reasons"]
    assert [r["code"] for r in reasons] == ["memory_taken", "yields"]
    assert "Host: " in reasons[0]["text"] and "others have 1." in reasons[0]["text"], reasons
    assert d.metric('arriero_yields_total{step="evict"}') == 1
    # nothing is short any more, and nobody is to leave
    wait_for(lambda: on_host(d)["short_bytes"] == 0, 20, 0.05, "the shortage's end")
    others = on_host(d)["others"]
    assert others and all(o["pid"] > 0 and o["name"] and o["bytes"] > 0 for o in others)
    t.take(0)
    wait_for(lambda: on_host(d)["foreign_bytes"] < 100 * MIB, 20, 0.05, "the tenant's leaving")
    assert d.chat("a")[0] == 200
    why = d.cli("why", "a", check=0).stdout
    assert "short of the 200 MiB kept free" in why.replace("\n    ", " "), why
    d.stop()


def test_one_that_may_have_less_context_keeps_running(start, host):
    d = start({"a": {"strategy": "max-context"}})
    assert d.chat("a")[0] == 200
    before = d.instance("a")
    t = host.tenant()
    t.take(1280)
    wait_for(lambda: "shrink" in kinds(d, "a"), 30, 0.05, "the model giving some of its memory")
    wait_for(lambda: d.instances("a") and d.instances("a")[0]["state"] == "ready" and
             d.instances("a")[0]["pid"] != before["pid"], 30, 0.05, "its next start, which nobody asked for")
    small = d.instance("a")
    assert small["params"]["ctx"] < before["params"]["ctx"]
    assert d.chat("a")[0] == 200 and d.instance("a")["pid"] == small["pid"]
    t.take(0)  # it was used, and there is room again
    wait_for(lambda: "grow" in kinds(d, "a"), 60, 0.05, "it taking the memory back")
    wait_for(lambda: d.instances("a") and d.instances("a")[0]["state"] == "ready" and
             d.instances("a")[0]["params"]["ctx"] == before["params"]["ctx"], 30, 0.05, "its context as it was")
    assert d.chat("a")[0] == 200
    assert "evict" not in kinds(d, "a")
    d.stop()


def test_a_stream_is_not_cut(start, host, tmp_path):
    d = start({"a": WHOLE, "b": WHOLE})
    assert d.chat("b")[0] == 200
    w = d.wire()
    w.request("POST", "/v1/completions",
              {"model": "a", "prompt": "go on", "max_tokens": 1500, "stream": True, "ignore_eos": True})
    assert w.head() == 200
    events = w.events()
    next(events)
    t = host.tenant()
    t.take(960)
    wait_for(lambda: "evict" in kinds(d, "b"), 30, 0.05, "the idle one yielding")
    t.take(1350)  # as good as all: the kernel would have to choose soon
    wait_for(lambda: "critical" in pressures(d), 30, 0.05, "the pressure told")
    wait_for(lambda: "evict" in kinds(d, "a"), 30, 0.05, "the busy one asked to leave")
    last = None
    for e in events:
        last = e
    assert last == "[DONE]"
    w.close()
    wait_for(lambda: not d.instances("a"), 30, 0.05, "its end behind its request")
    t.take(0)
    wait_for(lambda: memory(d)["pressure"] == "calm", 30, 0.05, "calm again")
    assert pressures(d)[0] == "calm"
    wait_for(lambda: on_host(d)["foreign_bytes"] < 960 << 20, 30, 0.05, "a reading of after it")
    for model in ("a", "b"):
        assert d.chat(model)[0] == 200
    d.stop()


def test_who_is_told_not_to_yield_does_not(start, host):
    d = start({"a": WHOLE}, memory={"yield": False, "oom_score": 700})
    assert d.chat("a")[0] == 200
    pid = d.instance("a")["pid"]
    with open(f"/proc/{pid}/oom_score_adj") as f:
        assert int(f.read()) == 700
    t = host.tenant()
    t.take(1280)
    wait_for(lambda: on_host(d)["short_bytes"] > 0, 20, 0.05, "the shortage in the figures")
    assert d.chat("a")[0] == 200 and d.instance("a")["pid"] == pid
    assert "evict" not in kinds(d, "a")
    d.stop()
