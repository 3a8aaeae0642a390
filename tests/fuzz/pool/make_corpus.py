#!/usr/bin/env python3
"""Writes tests/corpus/kvindex: indexes of kept conversations, whole and spoiled."""
import json
import pathlib

OUT = pathlib.Path(__file__).resolve().parents[2] / "corpus/kvindex"


def row(file, **change):
    r = {"key": "%016x" % 5, "maker": "%016x" % 9, "file": "%016x" % file, "sum": "%016x" % 77, "model": "a/b:c",
         "bytes": 34000000, "tokens": 1491, "used": 1763740000, "blocks": "".join("%016x" % (i * 77) for i in range(1, 24))}
    r.update(change)
    return {k: v for k, v in r.items() if v is not None}


def index(rows=(), **change):
    o = {"version": 1, "seed": "%016x" % 42, "next_file": "%016x" % 100, "write_bps": 300000000, "read_bps": 500000000,
         "makers": [{"maker": "%016x" % 9, "strikes": 1}], "rows": list(rows)}
    o.update(change)
    return {k: v for k, v in o.items() if v is not None}


FILES = {
    "empty": index(makers=[]),
    "full": index([row(1), row(2, key="f" * 16, blocks="0" * 16), row(3, blocks="ab" * 8 * 128)]),
    "off": index([row(1)], makers=[{"maker": "%016x" % m, "strikes": 2} for m in range(64)]),
    "too-many-makers": index(makers=[{"maker": "%016x" % m, "strikes": 2} for m in range(65)]),
    "too-many-rows": index([row(1, blocks="0" * 16)] * 513),
    "twice": index([row(1), row(1)]),
    "newer": index(version=2),
    "no-seed": index(seed=None),
    "no-blocks": index([row(1, blocks="")]),
    "odd-blocks": index([row(1, blocks="0" * 17)]),
    "long-blocks": index([row(1, blocks="0" * 16 * 129)]),
    "no-digits": index([row(1, key="x" * 16)]),
    "large": index([row(1, bytes=2**64 - 1)]),
    "negative": index([row(1, tokens=-1)]),
    "real": index([row(1, tokens=1e300)]),
    "future-file": index([row(101)]),
    "last-file": index(next_file="f" * 16),
    "long-model": index([row(1, model="m" * 5000)]),
    "nul-model": index([row(1, model="a\0b")]),
    "list": [index()],
    "speeds": index(write_bps=2**63, read_bps=0),
}

OUT.mkdir(parents=True, exist_ok=True)
for name, content in FILES.items():
    (OUT / name).write_text(json.dumps(content, separators=(",", ":")))
(OUT / "cut").write_text(json.dumps(FILES["full"])[:700])
(OUT / "nothing").write_text("")
