#!/usr/bin/env python3
"""Asks the real llama-fit-params every question and writes its answers, in bytes, as goldens.tsv has them.

    record.py --oracle BUILD/tests/oracle/oracle --hook BUILD/tests/oracle/liboracle_hook.so --llama DIR
              --models DIR --out FILE [--arch A] [--shape S] [--only TEXT] [--keep OLD.tsv] [--jobs N] [--graph DIR]

DIR of --llama holds llama-fit-params and ggml-rpc-server. Three RPC workers on loopback serve as toy devices; their
sizes are told to the tool by the hook, so one set serves all cases. With --keep, cases that are not asked keep their
answers from OLD.tsv. With --graph, DIR/CASE gets the graph of each case, node by node (hook_graph.c). Exit status 1
when a case that should load was refused (named on stderr).
"""
import argparse
import concurrent.futures
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time


def workers(llama, n):
    """[(process, endpoint)]; each is ready when its port accepts."""
    out = []
    for _ in range(n):
        s = socket.socket()
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
        s.close()
        p = subprocess.Popen([os.path.join(llama, "ggml-rpc-server"), "-H", "127.0.0.1", "-p", str(port)],
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if p.poll() is not None or time.monotonic() > deadline:
                    p.kill()
                    sys.exit("record.py: an RPC worker did not start")
                time.sleep(0.02)
        out.append((p, "127.0.0.1:%d" % port))
    return out


def reason(text):
    """The line that says why, without time and place."""
    lines = [re.sub(r"^[\d.]+ [A-Z] ", "", x.strip()) for x in text.splitlines()]
    bad = [x for x in lines if re.search(r"error|not support|require|fail|missing|unknown|exception|assert", x, re.I)]
    return re.sub(r"[\t\n]|/\S+/", " ", (bad or lines or ["no word"])[0])[:150]


def devices(text, endpoints):
    """Sums the buffer types by device; everything that is no device's own is the host's."""
    index = {e: i for i, e in enumerate(endpoints)}
    rows, repack = {}, 0
    for line in text.splitlines():
        name, *numbers = line.rsplit(" ", 3)
        numbers = [int(x) for x in numbers]
        remote = re.fullmatch(r"RPC\d+\[(.*)\]", name)  # the number counts devices of one worker
        key = "RPC%d" % index[remote[1]] if remote else name if re.fullmatch(r"Vulkan\d+", name) else "Host"
        if name == "CPU_REPACK":
            repack += numbers[0]
        have = rows.setdefault(key, [0, 0, 0])
        rows[key] = [a + b for a, b in zip(have, numbers)]
    host = rows.pop("Host", [0, 0, 0])
    out = ["%s %d %d %d" % (k, *v) for k, v in sorted(rows.items())]
    return "\t".join(out + ["Host %d %d %d %d" % (*host, repack)])


def has_vulkan(llama):
    p = subprocess.run([os.path.join(llama, "llama-fit-params"), "--list-devices"], stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ, GGML_VK_VISIBLE_DEVICES="0"))
    return b"Vulkan0" in p.stdout


class Oracle:
    def __init__(self, o):
        self.o = o
        self.rpc = workers(o.llama, 3)
        self.endpoints = [e for _, e in self.rpc]

    def close(self):
        for p, _ in self.rpc:
            p.send_signal(signal.SIGTERM)
        for p, _ in self.rpc:
            p.wait()

    def ask(self, case):
        ident, _, shape, _, env, args = case
        fd, out = tempfile.mkstemp(prefix="oracle-")
        os.close(fd)
        told = dict(x.split("=", 1) for x in env.split())
        env = {k: v for k, v in os.environ.items() if not k.startswith(("LLAMA_", "GGML_", "ORACLE_"))}
        env.update(told, ORACLE_OUT=out, LD_PRELOAD=self.o.hook)
        if self.o.graph:
            env["ORACLE_GRAPH"] = os.path.join(self.o.graph, ident)
        for i, e in enumerate(self.endpoints):
            args = args.replace("{rpc%d}" % i, e)
        cmd = [os.path.join(self.o.llama, "llama-fit-params"), "-m", os.path.join(self.o.models, shape + ".gguf")]
        try:
            p = subprocess.run(cmd + shlex.split(args), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, timeout=300)
            with open(out) as f:
                text = f.read()
            if text and p.returncode == 0:
                return ident, devices(text, self.endpoints)
            return ident, "refused: " + reason(p.stdout.decode("utf-8", "replace"))
        finally:
            os.unlink(out)


def kept(path):
    rows, shapes = {}, {}
    if path and os.path.exists(path):
        with open(path) as f:
            for line in f:
                if line.startswith("#shape "):
                    shapes[line.split()[1]] = line.split()[2]
                elif not line.startswith("#") and line.strip():
                    rows[line.split("\t", 1)[0]] = line.rstrip("\n").split("\t", 1)[1]
    return rows, shapes


def write(o, version, isa, cases, shapes, rows):
    with open(o.out + ".new", "w") as f:
        f.write("#llama.cpp %s\n#isa %s\n" % (version, isa))
        known = {c[2] for c in cases}
        f.writelines("#shape %s %s\n" % x for x in shapes.items() if x[0] in known)
        f.writelines("%s\t%s\n" % (c[0], rows[c[0]]) for c in cases if c[0] in rows)
    os.replace(o.out + ".new", o.out)


def main():
    a = argparse.ArgumentParser()
    for name in ("oracle", "hook", "llama", "models", "out"):
        a.add_argument("--" + name, required=True)
    for name in ("arch", "shape", "only", "keep", "graph"):
        a.add_argument("--" + name)
    a.add_argument("--missing", action="store_true", help="ask only what OLD.tsv does not answer")
    a.add_argument("--jobs", type=int, default=2)
    o = a.parse_args()
    run = lambda *w: subprocess.run([o.oracle, *w], stdout=subprocess.PIPE, check=True).stdout.decode()
    cases = [x.split("\t") for x in run("cases").splitlines()]
    rows, shapes = kept(o.keep)
    asked = [c for c in cases if (not o.arch or c[3] in o.arch.split(",")) and
             (not o.shape or c[2] in o.shape.split(",")) and (not o.only or o.only in c[0])]
    hashes = dict(x.split() for x in run("files", o.models, *sorted({c[2] for c in asked})).splitlines())
    stale = {c[2] for c in asked if shapes.get(c[2]) != hashes[c[2]]}
    key = {c[0]: c[1] for c in cases}
    rows = {k: v for k, v in rows.items() if k.rsplit(".", 1)[0] not in stale and v.split("\t")[0] == key.get(k)}
    shapes.update(hashes)
    if o.missing:
        asked = [c for c in asked if c[0] not in rows]
    if any("Vulkan0" in c[4] for c in asked) and not has_vulkan(o.llama):
        print("no Vulkan device here (mesa-vulkan-drivers has one in software): its cases keep their answers",
              file=sys.stderr)
        asked = [c for c in asked if "Vulkan0" not in c[4]]
    oracle, began, wrong = Oracle(o), time.monotonic(), []
    try:
        with concurrent.futures.ThreadPoolExecutor(o.jobs) as pool:
            for n, (ident, answer) in enumerate(pool.map(oracle.ask, asked), 1):
                rows[ident] = key[ident] + "\t" + answer
                if answer.startswith("refused") != (".refuse-" in ident):
                    wrong.append("%s: %s" % (ident, answer[:200]))
                if sys.stderr.isatty() or n % 100 == 0:
                    print("\r%d of %d, %.0f s " % (n, len(asked), time.monotonic() - began), end="", file=sys.stderr)
    finally:  # an interrupted run keeps what it was told
        oracle.close()
        with open(os.path.join(o.llama, "VERSION")) as f:
            write(o, f.read().strip(), run("isa").strip(), cases, shapes, rows)
    print("\n%d cases asked in %.0f s, %d not as expected" % (len(asked), time.monotonic() - began, len(wrong)),
          file=sys.stderr)
    for w in wrong:
        print(w, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
