#!/usr/bin/env python3
"""Tools of others against the whole daemon, while another client is served.

    outside.py --arriero BINARY --llama LLAMA_SERVER --seconds N --out FILE [--h1spec DIR] [--smuggler DIR]

slowhttptest sends heads, then bodies, slowly, then reads answers slowly; meanwhile one client asks a model on a connection of
its own. It fails where one of that client's answers fails, where a tool calls the door unavailable, or where a tool that was
given finds something. Latencies are printed, none of them is a limit.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "flow"))
from lib import tinygguf  # noqa: E402
from lib.daemon import Daemon  # noqa: E402

ATTACKS = {
    "slow heads": ["-H"],
    "slow bodies": ["-B", "-t", "POST", "-f", "application/json"],
    "slow readers": ["-X", "-w", "1", "-y", "2", "-n", "5", "-z", "1", "-k", "5"],
}
PATHS = {"slow bodies": "/v1/completions"}


class Client(threading.Thread):
    """Asks again and again on one connection until it is told to stop."""

    def __init__(self, daemon):
        super().__init__(daemon=True)
        self.door, self.over, self.ms, self.failures = daemon, threading.Event(), [], []

    def run(self):
        body = {"model": "tiny", "prompt": "hello", "max_tokens": 2}
        with self.door.wire() as w:
            while not self.over.is_set():
                start = time.monotonic()
                try:
                    w.request("POST", "/v1/completions", body)
                    status = w.head()
                    w.body()
                except Exception as e:  # whatever it is, the other client was harmed
                    self.failures.append(repr(e))
                    return
                if status != 200:
                    self.failures.append(status)
                self.ms.append((time.monotonic() - start) * 1000)

    def end(self):
        self.over.set()
        self.join(120)
        spread = statistics.quantiles(self.ms, n=100) if len(self.ms) > 1 else [0] * 99
        return {"answers": len(self.ms), "p50_ms": round(spread[49], 2), "p99_ms": round(spread[98], 2),
                "failures": self.failures}


def served_during(daemon, work):
    client = Client(daemon)
    client.start()
    extra = work()
    return {**client.end(), **extra}


def plain(text):
    """Without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def attack(daemon, name, seconds):
    command = ["slowhttptest", *ATTACKS[name], "-c", "500", "-r", "200", "-i", "1", "-l", str(seconds), "-p", "3",
               "-u", daemon.url + PATHS.get(name, "/v1/models")]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds + 120, check=False)
    words = re.findall(r"service available:\s+(\w+)", plain(done.stdout + done.stderr))
    return {"available": words[-1] if words else "unknown"}


def h1spec(daemon, folder):
    done = subprocess.run([sys.executable, "-c", "import h1spec; h1spec.main()", "--strict", f"127.0.0.1:{daemon.port}"],
                          cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    return {"status": done.returncode, "last": plain(done.stdout or done.stderr).strip().rpartition("\n")[2]}


def smuggler(daemon, folder, names):
    """Its findings with a backend behind the path, in each of its lists."""
    found = {}
    for name in names:
        done = subprocess.run([sys.executable, "smuggler.py", "--no-color", "-u", daemon.url + "/v1/completions", "-t", "5",
                               "-c", f"{name}.py"], cwd=folder, capture_output=True, text=True, errors="replace",
                              timeout=3600, check=False)
        findings = len(re.findall(r"CRITICAL|Issue Found|TIMEOUT ON BOTH", done.stdout))
        found[name] = {"tried": findings + len(re.findall(r": OK\b", done.stdout)), "findings": findings,
                       "status": done.returncode}
    return found


def run(a, door, result):
    assert door.chat("tiny")[0] == 200
    result["alone"] = served_during(door, lambda: time.sleep(a.seconds / 3) or {})
    for name in ATTACKS:
        result[name] = served_during(door, lambda name=name: attack(door, name, a.seconds))
    if a.h1spec:
        result["h1spec"] = h1spec(door, a.h1spec)
    if a.smuggler:
        result["smuggler"] = smuggler(door, a.smuggler, a.smuggler_lists.split(","))


def failures(result):
    for name, r in result.items():
        if name in ATTACKS and r["available"] != "YES":
            yield f"{name}: slowhttptest calls the door unavailable ({r['available']})"
        if name in ATTACKS or name == "alone":
            yield from (f"{name}: the other client got {f}" for f in r["failures"])
            if not r["answers"]:
                yield f"{name}: the other client got no answer"
    if result.get("h1spec", {"status": 0})["status"]:
        yield f"h1spec: {result['h1spec']['last']}"
    for name, r in result.get("smuggler", {}).items():
        if r["findings"] or r["status"] or not r["tried"]:
            yield f"smuggler, {name}: {r}"


def main():
    p = argparse.ArgumentParser()
    for option in ("--arriero", "--llama", "--out"):
        p.add_argument(option, required=True)
    p.add_argument("--seconds", type=int, default=15)
    p.add_argument("--h1spec")
    p.add_argument("--smuggler")
    p.add_argument("--smuggler-lists", default="default,doubles,exhaustive")
    a = p.parse_args()
    result = {}
    with tempfile.TemporaryDirectory(prefix="arr-torture-") as folder:
        tinygguf.write(os.path.join(folder, "tiny.gguf"), name="Tiny", seed=1)
        config = {"limits": {"header_timeout": f"{max(1, a.seconds // 2)}s"},
                  "defaults": {"extra_args": ["--threads", "1"]}}  # threads that spin for each other starve the rest
        with Daemon(str(pathlib.Path(a.arriero).resolve()), [folder], a.llama, config=config) as door:
            run(a, door, result)
    with open(a.out, "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)
    for name, r in result.items():
        print(f"{name:13} " + ", ".join(f"{k} {v}" for k, v in r.items()))
    bad = list(failures(result))
    print(*(bad or ["torture: nothing found"]), sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
