"""The ways to load a model whose success is counted, each ending with a request that fills the context."""
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import time

MIB = 1 << 20
LOAD_SECONDS, ANSWER_SECONDS = 90, 240


def prompt(ctx, vocab, seed):
    """Token numbers that leave room for a short answer."""
    rng = random.Random(seed)
    return [rng.randrange(259, vocab) for _ in range(ctx - 8)]


def ask(address, model, ctx, vocab, seed):
    """Fills the context: None, or why it failed."""
    tokens = prompt(ctx, vocab, seed)
    body = json.dumps({"model": model, "prompt": tokens, "max_tokens": 4, "temperature": 0, "cache_prompt": False})
    c = http.client.HTTPConnection(*address, timeout=ANSWER_SECONDS)
    try:
        c.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        r = c.getresponse()
        text = r.read()
        if r.status != 200:
            return f"answer {r.status}: {text[:200].decode('utf-8', 'replace')}"
        usage = json.loads(text)["usage"]
        if usage["prompt_tokens"] < len(tokens) or usage["completion_tokens"] < 1:
            return f"{usage['prompt_tokens']} of {len(tokens)} tokens read, {usage['completion_tokens']} written"
        return None
    except (OSError, http.client.HTTPException, ValueError, KeyError) as e:
        return f"no answer: {e!r}"
    finally:
        c.close()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def get(port, path):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        c.request("GET", path)
        r = c.getresponse()
        return r.status, r.read()
    finally:
        c.close()


class Server:
    """One llama-server with its own arguments."""

    def __init__(self, llama, arguments):
        self.port = free_port()
        self.log = tempfile.TemporaryFile(prefix="oom-")
        env = {k: v for k, v in os.environ.items() if not k.startswith(("LLAMA_", "GGML_"))}
        self.process = subprocess.Popen(
            [llama + "/llama-server", "--host", "127.0.0.1", "--port", str(self.port), "--no-webui", "--offline",
             "-t", "1", *arguments], env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)

    def wait_ready(self):
        """None, or why it is not."""
        until = time.monotonic() + LOAD_SECONDS
        while time.monotonic() < until:
            if self.process.poll() is not None:
                return f"ended with {self.process.returncode}: {self.last_error()}"
            try:
                if get(self.port, "/health")[0] == 200:
                    return None
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.01)
        return "not ready in time"

    def text(self):
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")

    def last_error(self):
        lines = [x.strip() for x in self.text().splitlines()
                 if any(w in x for w in ("failed", "error", "unable", "abort", "Assert"))]
        return lines[0][:160] if lines else "no word"

    def ctx(self):
        return json.loads(get(self.port, "/props")[1])["default_generation_settings"]["n_ctx"]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


def serve(llama, s, model, path, endpoints, arguments, least):
    """Loads and asks with these arguments: {ok, why, ctx}."""
    server = Server(llama, ["-m", path, "--rpc", ",".join(endpoints), *arguments])
    try:
        why, ctx = server.wait_ready(), 0
        if why is None:
            ctx = server.ctx()
            if ctx < least:
                why = f"a context of {ctx}, and {least} were asked for"
        if why is None:
            why = ask(("127.0.0.1", server.port), "m", ctx, model["vocab"], s["number"])
        return {"ok": why is None, "why": why, "ctx": ctx}
    finally:
        server.stop()


def asked_types(s):
    return ["-ctk", s["kv"], "-ctv", s["kv"], "-fa", "on"] if s["kv"] != "auto" else ["-fa", "on"]


def naive(llama, s, model, path, endpoints):
    """What a user writes who wants it all: every layer on devices, the whole context."""
    ctx = s["ctx"] or model["ctx"]
    return serve(llama, s, model, path, endpoints, ["-ngl", "all", "-c", str(ctx), "--fit", "off", *asked_types(s)], ctx)


def fit(llama, s, model, path, endpoints):
    """llama-server's own planner, told the same: margin, least context, context, cache type."""
    arguments = ["--fit", "on", "--fit-target", "1", "--fit-ctx", str(s["ctx_min"]), *asked_types(s)]
    if s["ctx"]:
        arguments += ["-c", str(s["ctx"])]
    if not s["allow_cpu"]:
        arguments += ["-ngl", "all"]
    return serve(llama, s, model, path, endpoints, arguments, s["ctx_min"])


def settings(s, model):
    """The bounded set that tells whether a scenario can be done at all: every combination of layers, cache types,
    micro-batches and even or proportional shares, with the least context that will do. Knows nothing of memory."""
    n = model["layers"] + 1
    layers = [0, n // 4, n // 2, 3 * n // 4, n] if s["allow_cpu"] else [n]
    types = ["f16", "q8_0", "q4_0"] if s["kv"] == "auto" else [s["kv"]]
    shares = [",".join(str(x // 4096) for x in s["sizes"])]
    if len(s["sizes"]) > 1:
        shares += [",".join("1" for _ in s["sizes"])]
    for ngl in layers:
        for kv in reversed(types):
            for ubatch in (64, 256, 512):
                for share in shares if ngl else shares[:1]:
                    yield ["-ngl", str(ngl), "-ctk", kv, "-ctv", kv, "-fa", "on", "-ub", str(ubatch), "-b", str(ubatch),
                           "-c", str(s["ctx_min"]), "-ts", share, "--fit", "off"]


def exhaustive(llama, s, model, path, endpoints, prepare):
    """The first of settings() that loads and answers, or None."""
    for arguments in settings(s, model):
        prepare()
        r = serve(llama, s, model, path, endpoints, arguments, s["ctx_min"])
        if r["ok"]:
            return " ".join(arguments)
    return None


def config_of(s, path):
    """This scenario as a model of arriero's configuration."""
    c = {"path": path, "margin": 0, "ctx_min": s["ctx_min"], "allow_cpu": s["allow_cpu"],
         "extra_args": ["--threads", "1"]}
    if s["ctx"]:
        c["ctx"] = s["ctx"]
    if s["kv"] != "auto":
        c["kv_type"] = s["kv"]
    if s.get("max_gpus"):
        c["max_gpus"] = s["max_gpus"]
    return c


def ours(daemon, name, s, model, before_load):
    """Through the daemon: load, then the request. Also what was used of the devices' memory."""
    sizes = [x // 4096 * 4096 for x in s["sizes"]]

    def seen():
        gpus = daemon.control("GET", "/gpus")[1]["gpus"]
        told = [g["memory_total_bytes"] for g in gpus if g["vendor"] == "rpc" and not g["in_use"]]
        return told[:len(sizes)] == sizes and not any(told[len(sizes):])

    until = time.monotonic() + 30
    while not seen():
        if time.monotonic() > until:
            return {"ok": False, "why": "the daemon does not see the devices", "ctx": 0}
        time.sleep(0.02)
    before_load()
    status, answer = daemon.control("POST", "/load", {"model": name}, timeout=LOAD_SECONDS * 4)
    out = {"ok": False, "ctx": 0, "steps": []}
    try:
        mine = [i for i in daemon.control("GET", "/instances")[1]["instances"] if i["model"] == name]
        if status != 200:
            return {**out, "why": f"load {status}: {json.dumps(answer)[:400]}"}
        i = next(x for x in mine if x["state"] == "ready")
        ctx = i["params"]["ctx"]
        out.update(ctx=ctx, params=i["params"], devices=i["devices"], argv=i["argv"])
        if ctx < s["ctx_min"]:
            return {**out, "why": f"a context of {ctx}, and {s['ctx_min']} were asked for"}
        why = ask(("127.0.0.1", daemon.port), name, ctx, model["vocab"], s["number"])
        return {**out, "ok": why is None, "why": why}
    finally:
        daemon.control("POST", "/unload", {"model": name}, timeout=60)
        rows = daemon.control("GET", f"/decisions?model={name}")[1]["decisions"]
        out["steps"] += [f"{d['kind']}: {r['text']}" for d in reversed(rows) if d["model"] == name
                         and d["kind"] in ("load", "ladder", "fail", "refuse", "crash") for r in d["reasons"]]
