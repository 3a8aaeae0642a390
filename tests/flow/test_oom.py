"""Loads that run out of memory on toy GPUs: a handful of `make oom`'s scenarios, and workers as devices."""
import pathlib
import subprocess
import sys

import pytest

from lib import tinygguf
from lib.daemon import Daemon

BENCH = pathlib.Path(__file__).resolve().parent.parent / "bench/oom"
sys.path.insert(0, str(BENCH))

import oom  # noqa: E402
import scenarios  # noqa: E402
from toys import Toy  # noqa: E402

MIB = 1 << 20
# a tenant seen too late; one never seen, on two devices; experts on three; all layers on devices; a cache type asked
SMOKE = [1, 4, 3, 17, 22]


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    path = tmp_path_factory.mktemp("shim") / "libtoy_rpc.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", path, BENCH / "toy_rpc.c", "-ldl"], check=True)
    return str(path)


@pytest.fixture
def toys(bundle, shim, tmp_path):
    made = [Toy(bundle + "/ggml-rpc-server", shim, str(tmp_path), i) for i in range(2)]
    try:
        for t in made:
            t.start()
        yield made
    finally:
        for t in made:
            t.stop()


@pytest.fixture(scope="module")
def bench(arriero_bin, bundle, shim, tmp_path_factory):
    class Options:
        arriero, llama, work = arriero_bin, bundle, str(tmp_path_factory.mktemp("oom"))
    Options.shim = shim
    todo = [scenarios.scenario(i) for i in SMOKE]
    models = {name: oom.model_file(Options.work, name) for name in {s["model"] for s in todo}}
    b = oom.Bench(Options, models)
    try:
        yield b
    finally:
        b.close()


@pytest.mark.parametrize("number", SMOKE)
def test_scenario(bench, number):
    s = scenarios.scenario(number)
    bench.prepare(s, False)
    r = bench.ours(s)
    assert r["ok"], f"{scenarios.title(s)}: {r['why']}\n" + "\n".join(r["steps"])
    assert r["ctx"] >= s["ctx_min"]
    for d in r["devices"]:  # each worker's buffer lines are found under its own name
        if d["name"] != "Host":
            m = d["measured"]
            assert abs(m["model_bytes"] - d["model_bytes"]) <= 0.02 * MIB, d
            assert abs(m["context_bytes"] - d["context_bytes"]) <= 0.02 * MIB, d
            assert abs(m["compute_bytes"] - d["compute_bytes"]) <= 0.15 * d["compute_bytes"], d


def test_workers_are_devices(arriero_bin, bundle, toys, tmp_path):
    """Shown with their sizes, used for a model, not lent twice, free again after it."""
    for t in toys:
        t.set(24 * MIB)
    path = tinygguf.write(str(tmp_path / "m.gguf"), name="M", ctx=512)
    model = {"path": path, "margin": 0, "extra_args": ["--threads", "1"]}
    config = {"rpc": [t.endpoint for t in toys], "usual_caches": False, "sampling": {"interval": "100ms"},
              "models": {"a": {**model, "pin": True, "device": toys[0].endpoint}, "b": {**model, "device": toys[0].endpoint,
                                                                                       "allow_cpu": False},
                         "c": {**model, "max_gpus": 1, "allow_cpu": False}}}
    with Daemon(arriero_bin, [], bundle + "/llama-server", config=config) as d:
        gpus = d.control("GET", "/gpus")[1]["gpus"]
        assert [(g["device"], g["uuid"], g["memory_total_bytes"], g["in_use"]) for g in gpus] == \
            [("RPC0", toys[0].endpoint, 24 * MIB, False), ("RPC1", toys[1].endpoint, 24 * MIB, False)]
        assert d.control("POST", "/load", {"model": "a"})[0] == 200
        a = d.instance("a")
        assert "--rpc" in a["argv"] and a["argv"][a["argv"].index("--rpc") + 1] == toys[0].endpoint
        assert [x["name"] for x in a["devices"]] == ["RPC0", "Host"] and a["devices"][0]["measured"]
        assert d.chat("a")[0] == 200
        # the pinned model keeps its worker; another takes the other one
        assert d.control("POST", "/load", {"model": "b"})[0] >= 400
        assert d.control("POST", "/load", {"model": "c"})[0] == 200
        c = d.instance("c")
        assert c["argv"][c["argv"].index("--rpc") + 1] == toys[1].endpoint
        assert [x["name"] for x in c["devices"]] == ["RPC1", "Host"]
        assert d.chat("c")[0] == 200
        for model in ("a", "c"):
            assert d.control("POST", "/unload", {"model": model})[0] == 200
        assert d.control("POST", "/load", {"model": "b"})[0] == 200
        assert d.chat("b")[0] == 200
    assert all(t.alive() for t in toys), "a worker did not outlive its clients"


def test_a_wrong_endpoint_is_told(arriero_bin, llama_server):
    d = Daemon(arriero_bin, [], llama_server, config={"rpc": ["nowhere"]})
    try:
        d.spawn()
        assert d.wait(20) != 0
        assert 'rpc: "nowhere" is no HOST:PORT' in d.log()
    finally:
        d.destroy()
