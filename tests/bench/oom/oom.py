#!/usr/bin/env python3
"""Out-of-memory prevention on real parts: loads that succeed and then fill their context, three ways.

    oom.py --arriero BIN --llama DIR --shim LIBTOY_RPC.SO --out OOM.json --work DIR
           [--scenarios N] [--first I] [--only I,J] [--jobs N] [--fresh]

Each scenario (scenarios.py) is tried by a naive llama-server, by llama-server's own --fit, and by arriero through its
daemon, on toy GPUs (toys.py). A scenario is feasible if any of them, or any of a bounded set of settings that knows
nothing of memory (ways.settings), loads and answers. Every scenario's story is a line of OUT's .jsonl; a run that was
interrupted goes on from there (--fresh: from the start). Exit status 1: a goal is missed.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "flow")]

import scenarios  # noqa: E402
import ways  # noqa: E402
from toys import Toy  # noqa: E402
from lib import tinygguf  # noqa: E402
from lib.daemon import Daemon  # noqa: E402

MAX_TOYS = 3


def model_file(folder, name):
    options = scenarios.MODELS[name]
    key = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:8]
    path = f"{folder}/{name}-{key}.gguf"
    if not os.path.exists(path):
        tinygguf.write(path + ".part", name=name, seed=1, **options)
        os.replace(path + ".part", path)
    return path


class Bench:
    """Three toys, and for each scenario a daemon of its own, so that none learns from another's."""

    def __init__(self, o, models):
        self.o, self.models = o, models
        self.dir = tempfile.mkdtemp(prefix="oom-", dir=o.work)
        self.toys = [Toy(o.llama + "/ggml-rpc-server", o.shim, self.dir, i) for i in range(MAX_TOYS)]
        try:
            for t in self.toys:
                t.start()
        except BaseException:
            self.close()
            raise

    def close(self):
        for t in self.toys:
            t.stop()

    def ours(self, s):
        """Through a daemon that knows the toys and this one model; the toys are prepared."""
        config = {"rpc": [t.endpoint for t in self.toys], "usual_caches": False, "sampling": {"interval": "100ms"},
                  "models": {"m": ways.config_of(s, self.models[s["model"]])}}
        with Daemon(self.o.arriero, [], self.o.llama + "/llama-server", config=config) as daemon:
            return ways.ours(daemon, "m", s, scenarios.MODELS[s["model"]], lambda: self.tenant(s))

    def prepare(self, s, tenant_at_work):
        """The toys as the scenario wants them; those it has not are of no size."""
        for t in self.toys:
            t.wait_idle()
        for i, t in enumerate(self.toys):
            size = s["sizes"][i] if i < len(s["sizes"]) else 0
            t.set(size)
        if tenant_at_work:
            self.tenant(s)

    def tenant(self, s):
        x = s["tenant"]
        if x:
            size = s["sizes"][x["device"]]
            left = size - x["bytes"]
            self.toys[x["device"]].set(size if x["hidden"] else left, left)

    def run(self, s):
        model, path = scenarios.MODELS[s["model"]], self.models[s["model"]]
        endpoints = [t.endpoint for t in self.toys[:len(s["sizes"])]]
        r, began = {"scenario": s}, time.monotonic()
        for name, way in (("naive", ways.naive), ("fit", ways.fit)):
            self.prepare(s, True)
            r[name] = way(self.o.llama, s, model, path, endpoints)
        self.prepare(s, False)
        r["ours"] = self.ours(s)
        r["witness"] = next((w for w in ("naive", "fit", "ours") if r[w]["ok"]), None)
        if not r["witness"]:
            r["witness"] = ways.exhaustive(self.o.llama, s, model, path, endpoints, lambda: self.prepare(s, True))
        r["used_bytes"], r["room_bytes"] = self.used(s, r["ours"])
        r["seconds"] = round(time.monotonic() - began, 2)
        r["restarts"] = sum(t.restarts for t in self.toys)
        return r

    @staticmethod
    def used(s, ours):
        """Bytes that the runtime says its buffers take on devices, of those that are there."""
        x = s["tenant"]
        room = sum(s["sizes"]) - (x["bytes"] if x else 0)
        if not ours["ok"]:
            return 0, room
        parts = [d.get("measured") or {"total_bytes": d["predicted_bytes"]} for d in ours["devices"] if d["name"] != "Host"]
        return sum(p["total_bytes"] for p in parts), room


def table(results):
    rows = sorted(results.values(), key=lambda r: r["scenario"]["number"])
    feasible = [r for r in rows if r["witness"]]
    larger = [r for r in rows if r["scenario"]["larger"] and r["scenario"]["allow_cpu"] and not r["scenario"]["tenant"]
              and r["ours"]["ok"]]
    count = lambda way: sum(r[way]["ok"] for r in rows)
    used = [100 * r["used_bytes"] / r["room_bytes"] for r in larger]
    worst = [r for r in feasible if r["fit"]["ok"] and not r["ours"]["ok"]]
    pct = lambda a, b: round(100 * a / b, 2) if b else 0.0
    return {"scenarios": len(rows), "feasible": len(feasible), "ours_ok": count("ours"), "fit_ok": count("fit"),
            "naive_ok": count("naive"), "fit_ok_ours_failed": len(worst),
            "ours_pct": pct(sum(r["ours"]["ok"] for r in feasible), len(feasible)),
            "fit_pct": pct(count("fit"), len(feasible)), "naive_pct": pct(count("naive"), len(feasible)),
            "memory_used_pct": round(sum(used) / len(used), 2) if used else None,
            "memory_used_worst_pct": round(min(used), 2) if used else None, "larger_than_memory": len(larger),
            "steps_taken": sum(any(x.startswith("ladder") for x in r["ours"]["steps"]) for r in rows),
            "seconds": round(sum(r["seconds"] for r in rows), 1)}


def show(t, rows, out=sys.stdout):
    def classes(r):
        s = r["scenario"]
        yield "all"
        yield "%d device%s" % (len(s["sizes"]), "s" * (len(s["sizes"]) > 1))
        yield "experts" if "experts" in scenarios.MODELS[s["model"]] else "dense"
        yield "context asked" if s["ctx"] else "context free"
        yield "cache type asked" if s["kv"] != "auto" else "cache type free"
        yield "devices only" if not s["allow_cpu"] else "RAM allowed"
        if s["tenant"]:
            yield "hidden tenant" if s["tenant"]["hidden"] else "tenant"
    names = {}
    for r in rows:
        for c in classes(r):
            names.setdefault(c, []).append(r)
    print(f"\n{'':18}{'scenarios':>10}{'feasible':>10}{'naive':>8}{'--fit':>8}{'arriero':>9}", file=out)
    for c, rs in sorted(names.items(), key=lambda x: (x[0] != "all", x[0])):
        n = [len(rs), sum(bool(r["witness"]) for r in rs), *(sum(r[w]["ok"] for r in rs) for w in ("naive", "fit", "ours"))]
        print(f"{c:18}{n[0]:10}{n[1]:10}{n[2]:8}{n[3]:8}{n[4]:9}", file=out)
    print(f"\nof the feasible: naive {t['naive_pct']} %, --fit {t['fit_pct']} %, arriero {t['ours_pct']} %"
          f"\ndevice memory used where the model is larger ({t['larger_than_memory']} scenarios): "
          f"{t['memory_used_pct']} %, the least {t['memory_used_worst_pct']} %"
          f"\n--fit succeeds and arriero fails: {t['fit_ok_ours_failed']}; loads that took steps down: {t['steps_taken']}", file=out)


def line(r):
    mark = lambda x: f"ok {x['ctx']}" if x["ok"] else "-"
    used = 100 * r["used_bytes"] / r["room_bytes"] if r["room_bytes"] else 0
    return "%-70s naive %-8s fit %-8s ours %-8s %s%5.1f s" % (
        scenarios.title(r["scenario"]), mark(r["naive"]), mark(r["fit"]), mark(r["ours"]),
        "%4.0f %% " % used if r["ours"]["ok"] else "       ", r["seconds"])


def stamp(o):
    """What the results depend on: the binary, the scenarios and how they are tried."""
    h = hashlib.sha256()
    for path in (o.arriero, o.llama + "/VERSION", *(HERE / f for f in ("scenarios.py", "ways.py", "toys.py"))):
        with open(path, "rb") as f:
            h.update(f.read())
    return h.hexdigest()[:16]


def main():
    a = argparse.ArgumentParser()
    for name in ("arriero", "llama", "shim", "out", "work"):
        a.add_argument("--" + name, required=True)
    a.add_argument("--scenarios", type=int, default=200)
    a.add_argument("--first", type=int, default=0)
    a.add_argument("--only")
    a.add_argument("--jobs", type=int, default=2)
    a.add_argument("--fresh", action="store_true")
    o = a.parse_args()
    for name in ("arriero", "llama", "shim", "out", "work"):
        setattr(o, name, os.path.abspath(getattr(o, name)))
    os.makedirs(o.work, exist_ok=True)
    numbers = [int(x) for x in o.only.split(",")] if o.only else range(o.first, o.first + o.scenarios)
    wanted = [scenarios.scenario(i) for i in numbers]
    journal, mark, results = pathlib.Path(o.out).with_suffix(".jsonl"), stamp(o), {}
    if journal.exists() and not o.fresh:
        for text in journal.read_text().splitlines():
            r = json.loads(text)
            if r["stamp"] == mark and r["scenario"] in wanted:
                results[r["scenario"]["number"]] = r
    journal.write_text("".join(json.dumps(r) + "\n" for r in results.values()))
    todo = [s for s in wanted if s["number"] not in results]
    print(f"{len(wanted)} scenarios, {len(results)} known from before", flush=True)
    models = {name: model_file(o.work, name) for name in {s["model"] for s in todo}}
    lock, queue = threading.Lock(), iter(todo)

    def work():
        bench = Bench(o, models)
        try:
            while True:
                with lock:
                    s = next(queue, None)
                if s is None:
                    return
                r = bench.run(s)
                r["stamp"] = mark
                with lock:
                    results[s["number"]] = r
                    with open(journal, "a") as f:
                        f.write(json.dumps(r) + "\n")
                    print(line(r), flush=True)
        finally:
            bench.close()

    jobs = max(1, min(o.jobs, len(todo)))
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for f in [pool.submit(work) for _ in range(jobs if todo else 0)]:
            f.result()
    t = table(results)
    show(t, list(results.values()))
    with open(o.out, "w") as f:
        json.dump(t, f, indent=1)
    for r in results.values():
        if r["witness"] and not r["ours"]["ok"]:
            print(f"failed: {scenarios.title(r['scenario'])}: {r['ours']['why']}\n  possible with: {r['witness']}")
    good = t["ours_pct"] >= 99 and t["fit_ok_ours_failed"] == 0 and (t["memory_used_pct"] or 100) >= 95
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
