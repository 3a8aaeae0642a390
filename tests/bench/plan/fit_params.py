"""Times llama-fit-params for the question that bench_plan's last row asks, and puts the figure into its JSON.

    fit_params.py PART.json OUT.json TOOL MODEL HOOK

TOOL may be empty. Wall clock of whole processes: the tool has no other interface.
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "oracle"))
import record  # noqa: E402

GPUS, MIB, RUNS = 8, 24000, 5


def milliseconds(tool, model, hook, endpoints):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LLAMA_", "GGML_", "ORACLE_"))}
    env.update(LD_PRELOAD=hook, ORACLE_SIZES=",".join("RPC%d:%d" % (i, MIB) for i in range(GPUS)))
    began = time.monotonic()
    p = subprocess.run([tool, "-m", model, "--rpc", ",".join(endpoints)], env=env, stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
    took = (time.monotonic() - began) * 1e3
    answer = p.stdout.decode("utf-8", "replace").strip()
    if p.returncode or "-c " not in answer:
        sys.exit("llama-fit-params gave no answer: " + p.stderr.decode("utf-8", "replace").strip()[-400:])
    return took, answer


def measure(tool, model, hook):
    home = os.path.dirname(tool)
    if not os.path.exists(os.path.join(home, "ggml-rpc-server")):
        home = os.path.dirname(shutil.which("ggml-rpc-server") or "")
    if not home:
        print("no ggml-rpc-server here to stand for the GPUs: llama-fit-params is not timed")
        return None
    workers = record.workers(home, GPUS)
    try:
        endpoints = [e for _, e in workers]
        runs = [milliseconds(tool, model, hook, endpoints) for _ in range(RUNS + 1)][1:]  # the first warms up
    finally:
        for p, _ in workers:
            p.terminate()
        for p, _ in workers:
            p.wait()
    median = round(statistics.median(t for t, _ in runs), 1)
    print("%-26s %34.2f ms  (the last row's question; it answers %.60s…)" % ("llama-fit-params", median, runs[0][1]))
    return median


def main():
    part, out, tool, model, hook = sys.argv[1:6]
    with open(part) as f:
        result = json.load(f)
    result["fit_params_ms"] = measure(tool, model, hook) if tool else None
    if not tool:
        print("no llama-fit-params here to compare with")
    with open(out, "w") as f:
        json.dump(result, f, indent=1)
    os.unlink(part)


main()
