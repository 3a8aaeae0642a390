"""What arriero predicts beside what the real llama-server says it takes, buffer by buffer."""
import json
import os
import re
import subprocess
import threading

import pytest

from lib import tinygguf
from test_oom import Toy, shim  # noqa: F401

MIB = 1 << 20
LINE = re.compile(r"(RPC\d+\[\S+\]|\S+) +(model|KV|compute) buffer size = +([\d.]+) MiB")
PARTS = {"model": "model_bytes", "KV": "context_bytes", "compute": "compute_bytes"}

DENSE = dict(layers=12, embd=128, heads=4, kv_heads=2, ff=384, ctx=2048, vocab=512)
EXPERTS = dict(layers=8, embd=128, heads=4, kv_heads=2, ff=64, ctx=2048, vocab=512, experts=8)
DEVICES = 3
# model, devices, llama-server's own arguments, which `estimate` spells in long
QUESTIONS = {
    "one device": (DENSE, 1, {"gpu-layers": "all"}),
    "two devices": (DENSE, 2, {"gpu-layers": "all", "tensor-split": "1,1"}),
    "three unequal devices": (DENSE, 3, {"gpu-layers": "all", "tensor-split": "3,1,2"}),
    "a share of the layers": (DENSE, 2, {"gpu-layers": "7", "tensor-split": "2,1"}),
    "a share of the layers, 16 tokens at once": (DENSE, 2, {"gpu-layers": "7", "tensor-split": "2,1", "ubatch": "16"}),
    "without flash attention": (DENSE, 2, {"gpu-layers": "all", "tensor-split": "1,2", "flash-attn": "off"}),
    "the cache in RAM": (DENSE, 2, {"gpu-layers": "all", "tensor-split": "1,1", "no-kv-offload": None}),
    "the cache in RAM without flash attention":
        (DENSE, 1, {"gpu-layers": "all", "no-kv-offload": None, "flash-attn": "off"}),
    "a quantised cache": (DENSE, 2, {"gpu-layers": "all", "tensor-split": "1,1", "cache-type-k": "q8_0",
                                     "cache-type-v": "q8_0"}),
    "experts on two devices": (EXPERTS, 2, {"gpu-layers": "all", "tensor-split": "1,1"}),
    "some experts in RAM": (EXPERTS, 2, {"gpu-layers": "all", "tensor-split": "1,1", "n-cpu-moe": "5"}),
    "all experts in RAM": (EXPERTS, 2, {"gpu-layers": "all", "tensor-split": "1,1", "n-cpu-moe": "8"}),
}


@pytest.fixture(scope="module")
def workers(bundle, shim, tmp_path_factory):  # noqa: F811
    made = [Toy(bundle + "/ggml-rpc-server", shim, str(tmp_path_factory.mktemp("workers")), i) for i in range(DEVICES)]
    try:
        for t in made:
            t.start()
            t.set(512 * MIB)
        yield made
    finally:
        for t in made:
            t.stop()


def model_of(shelf, m):
    return shelf.make("exact-%s.gguf" % ("moe" if m is EXPERTS else "dense"), **m)


def predicted(arriero_bin, path, n, arguments):
    words = [x for k, v in arguments.items() for x in (["--" + k] if v is None else ["--" + k, v])]
    for i in range(n):
        words += ["--device", f"RPC{i}:512"]
    p = subprocess.run([arriero_bin, "estimate", path, "--ctx", "2048", *words, "--json"], check=True, capture_output=True)
    return {d["name"]: {k: d[k] for k in PARTS.values()} for d in json.loads(p.stdout)["devices"]}


def reserved(bundle, path, workers, n, arguments):  # noqa: F811
    """The sums of llama-server's lines; its process is ended once it serves."""
    short = {"ubatch": "-ub", "gpu-layers": "-ngl", "tensor-split": "-ts"}
    words = [x for k, v in arguments.items() for x in [short.get(k, "--" + k)] + ([] if v is None else [v])]
    argv = [bundle + "/llama-server", "-m", str(path), "-c", "2048", "--rpc", ",".join(t.endpoint for t in workers[:n]),
            *words, "--fit", "off", "--no-warmup", "-t", "1", "-lv", "4", "--host", "127.0.0.1", "--port", "0",
            "--flash-attn", arguments.get("flash-attn", "on")]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LLAMA_", "GGML_"))}
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         env={**env, "GGML_VK_VISIBLE_DEVICES": ""})
    watch = threading.Timer(120, p.kill)
    watch.start()
    out, log, served = {}, [], False
    try:
        for line in p.stdout:
            log.append(line)
            m = LINE.search(line)
            if m:
                name = next((f"RPC{i}" for i, t in enumerate(workers) if t.endpoint in m[1]), "Host")
                part = out.setdefault(name, dict.fromkeys(PARTS.values(), 0.0))
                part[PARTS[m[2]]] += float(m[3])
            if "listening on" in line:
                served = True
                break
    finally:
        watch.cancel()
        p.kill()
        p.communicate()
    assert served, "llama-server did not start:\n" + "".join(log[-30:])
    return out


@pytest.mark.parametrize("question", QUESTIONS)
def test_predicted_is_reserved(arriero_bin, bundle, shelf, workers, question):  # noqa: F811
    m, n, arguments = QUESTIONS[question]
    path = model_of(shelf, m)
    ours, theirs = predicted(arriero_bin, path, n, arguments), reserved(bundle, path, workers, n, arguments)
    assert set(theirs) == set(ours)
    for name, parts in ours.items():
        for part, size in parts.items():
            lines = 3  # each line of its log is rounded to 0.01 MiB; a part has at most three
            assert abs(size / MIB - theirs[name][part]) <= 0.005 * lines + 1e-6, \
                f"{name} {part}: {size / MIB:.3f} MiB predicted, {theirs[name][part]:.2f} reserved"
