#!/usr/bin/env python3
"""The real graph of one case beside the planner's: what differs, node by node.

    graph_diff.py BUILD_DIR ID [--strides] [--backends] [--refresh] [--hunks N] [--lines N]

BUILD_DIR is configured with -Dtests=true and has tests/oracle/oracle and tests/oracle/liboracle_hook.so built. ID is a
case ("qwen3-8b.cpu", see `oracle cases`). The real graph is asked once and kept in BUILD_DIR/tests/oracle/graphs;
--refresh asks again. Lines are compared by operation, type, shape and distance to their sources; --strides adds the
layout of views, --backends where each node is computed. Begin with a case without devices: there nothing is copied.
Exit status 1: they differ.
"""
import argparse
import difflib
import glob
import os
import re
import subprocess
import sys

import record


def real_graph(o, ident):
    path = os.path.join(o.graph, ident)
    if os.path.exists(path) and not o.refresh:
        return path
    os.makedirs(o.graph, exist_ok=True)
    run = lambda *w: subprocess.run([o.oracle, *w], stdout=subprocess.PIPE, check=True).stdout.decode()
    case = next((c for c in (x.split("\t") for x in run("cases").splitlines()) if c[0] == ident), None)
    if not case:
        sys.exit("graph_diff.py: no case named " + ident)
    run("files", o.models, case[2])
    oracle = record.Oracle(o)
    try:
        print("\t".join(oracle.ask(case)))
    finally:
        oracle.close()
    return path


def backend(tail, seen):
    """The host, or the place of the device among those seen: workers have made-up numbers."""
    word = tail.split()[-1] if tail.split() else "-"
    if word in ("CPU", "host", "-"):
        return "host" if word == "CPU" else word
    return "dev%d" % seen.setdefault(word, len(seen))


def normal(line, o, seen):
    body, _, tail = line.partition(" # ")
    body = re.sub(r"\{[^}]*\}", "", body).replace("FLASH_ATTN_EXT", "FLASH_ATTN")
    if not o.strides:
        body = re.sub(r" nb .*", "", body)
    number, op, shape, *sources = body.split(" ")
    sources = ["-%d" % (int(number) - int(s)) if s.isdigit() else s for s in sources]
    return " ".join([op, shape] + sources + ([backend(tail, seen)] if o.backends else []))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("build")
    a.add_argument("case")
    for name in ("strides", "backends", "refresh"):
        a.add_argument("--" + name, action="store_true")
    a.add_argument("--hunks", type=int, default=4)
    a.add_argument("--lines", type=int, default=40, help="of each side of a hunk")
    o = a.parse_args()
    base = os.path.join(os.path.abspath(o.build), "tests/oracle")
    o.oracle, o.hook, o.models, o.graph = (os.path.join(base, x) for x in
                                           ("oracle", "liboracle_hook.so", "models", "graphs"))
    o.llama = max(glob.glob(os.path.expanduser("~/.local/share/arriero/llama.cpp/*/")), key=os.path.getmtime)
    with open(real_graph(o, o.case)) as f:
        theirs = f.read().splitlines()
    p = subprocess.run([o.oracle, "graph", o.models, o.case], stdout=subprocess.PIPE)
    ours = p.stdout.decode().splitlines()
    print("%d nodes, ours %d" % (len(theirs), len(ours)))
    (x, y) = ([normal(t, o, seen) for t in lines] for lines, seen in ((theirs, {}), (ours, {})))
    hunks = [h for h in difflib.SequenceMatcher(None, x, y, autojunk=False).get_opcodes() if h[0] != "equal"]
    for _, i, i_end, j, j_end in hunks[:o.hunks]:
        print("@@ theirs %d to %d, ours %d to %d" % (i, i_end, j, j_end))
        for line in theirs[i:i_end][:o.lines]:
            print("-", line)
        for line in ours[j:j_end][:o.lines]:
            print("+", line)
    return 1 if hunks else 0


if __name__ == "__main__":
    sys.exit(main())
