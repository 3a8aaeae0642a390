#!/usr/bin/env python3
"""How soon the next turn of a long conversation begins to be answered after its model was swapped away and back.

usage: kept.py [--rounds N] [--tokens N]

One daemon, the same file under two names of which one's conversations are kept (kv_keep), and a budget in which only one
of them fits. In every round each has a conversation of its own, loses its memory to the other, and is asked again: the time
is that from the request to the first text of the answer, load included. Prints a table and one line of JSON.
"""
import argparse
import http.client
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/flow"))
sys.dont_write_bytecode = True
from lib.daemon import Daemon  # noqa: E402

NAMES = {"kept": "auto", "anew": "off"}
TOKENS_A_FACT = 20


def facts(n, salt):
    return f"Train {salt}. " + " ".join(
        f"Fact {i}: the mule called Number {i} carried {(i * 7 + salt) % 90 + 10} kilograms of salt." for i in range(n))


def ask(port, model, messages, stream):
    """Seconds to the first text, the text, and usage."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    body = {"model": model, "messages": messages, "max_tokens": 8, "temperature": 0, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    begun = time.monotonic()
    c.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    r = c.getresponse()
    assert r.status == 200, r.read()
    if not stream:
        answer = json.loads(r.read())
        c.close()
        return 0, answer["choices"][0]["message"]["content"], answer["usage"]
    first, text, usage = None, "", None
    for line in r:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            piece = choice["delta"].get("content")
            if piece and first is None:
                first = time.monotonic() - begun
            text += piece or ""
    c.close()
    return first, text, usage


def measure(binary, llama_server, model, rounds=3, tokens=2000):
    """{tokens, ttft_kept_ms, ttft_anew_ms, ttft_kept_ratio, cached_tokens}: medians, of the same rounds."""
    folder = tempfile.mkdtemp(prefix="arr-kept-", dir="/tmp")
    for name in NAMES:
        shutil.copy(model, f"{folder}/{name}.gguf")
    config = {"budget": {"Host": "420MiB"},
              "defaults": {"ctx": 8192, "parallel": 1},
              "models": {name: {"kv_keep": keep} for name, keep in NAMES.items()}}
    times, cached, prompts = {name: [] for name in NAMES}, [], []
    try:
        with Daemon(binary, [folder], llama_server, config=config) as d:
            for i in range(rounds):
                talks = {}
                for name in NAMES:
                    talks[name] = [{"role": "user", "content": facts(tokens // TOKENS_A_FACT, i) + " What did Number 5 carry?"}]
                    _, text, usage = ask(d.port, name, talks[name], False)
                    prompts.append(usage["prompt_tokens"])
                    talks[name] += [{"role": "assistant", "content": text}, {"role": "user", "content": "And Number 6?"}]
                for name in NAMES:
                    first, _, usage = ask(d.port, name, talks[name], True)
                    times[name].append(first * 1000)
                    if name == "kept":
                        cached.append(usage["prompt_tokens_details"]["cached_tokens"])
                assert d.metric("arriero_evictions_total") >= 2 * i + 1, "both fit: nothing was swapped"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    kept, anew = (statistics.median(times[name]) for name in NAMES)
    return {"tokens": int(statistics.median(prompts)), "cached_tokens": int(statistics.median(cached)),
            "ttft_kept_ms": round(kept, 1), "ttft_anew_ms": round(anew, 1), "ttft_kept_ratio": round(kept / anew, 4)}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--tokens", type=int, default=2000)
    o = p.parse_args()
    binary = os.environ.get("ARRIERO_BIN") or str(ROOT / "build/arriero")
    server = os.environ.get("ARRIERO_LLAMA_SERVER") or subprocess.run(
        [ROOT / "scripts/llama-bundle.sh"], check=True, capture_output=True, text=True).stdout.strip()
    model = os.environ.get("ARRIERO_SMOLLM") or subprocess.run(
        [ROOT / "scripts/fetch-model.sh"], check=True, capture_output=True, text=True).stdout.strip()
    r = measure(binary, server, model, o.rounds, o.tokens)
    print(f"{r['tokens']} tokens, {o.rounds} rounds: first text after {r['ttft_kept_ms']:.0f} ms with the conversation kept, "
          f"{r['ttft_anew_ms']:.0f} ms read anew: {r['ttft_kept_ratio']:.3f}")
    print(json.dumps(r))


if __name__ == "__main__":
    main()
