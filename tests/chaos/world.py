"""All that a run has: models, toy GPUs, one daemon after another, its clients, and what was done and promised.

Threads: the driver acts, operators wait for slow answers, clients ask, the watcher looks. What they share is here, behind
one lock or written by one thread only.
"""
import collections
import contextlib
import os
import pathlib
import signal
import shutil
import tempfile
import threading
import time

import clients
import faults
import toys
from lib import procs, tinygguf
from lib.daemon import MARK, Daemon
from lib.wire import fetch_json

TOY_SHIM = pathlib.Path(toys.__file__).with_name("toy_rpc.c")
MIB = 1 << 20
HOST_BUDGET = 96 * MIB
TOY_SIZES = (40 * MIB, 24 * MIB)
ONE = {"parallel": 2, "extra_args": ["--threads", "1"]}  # threads that spin for each other starve the rest
MODELS = {
    "tiny-a": ({"name": "Tiny A", "seed": 1}, {"ctx": 1024}),
    "tiny-b": ({"name": "Tiny B", "seed": 2, "layers": 3}, {"ctx": 1024, "ttl": "3s"}),
    "slow": ({"name": "Slow", "embd": 256, "layers": 4, "heads": 4, "ff": 1024, "ctx": 32768, "seed": 3}, {"ctx": 4096}),
    "slow-b": ({"name": "Slow B", "embd": 256, "layers": 4, "heads": 4, "ff": 1024, "ctx": 32768, "seed": 5},
               {"ctx": 2048, "priority": 1, "fallback": ["tiny-a"]}),
}
BUSY_STATES = ("starting", "ready", "draining")


class Violation(Exception):
    """An invariant does not hold."""


class Worker(toys.Toy):
    """A toy GPU that can die and come back."""

    def __init__(self, *args, size):
        super().__init__(*args)
        self.size = size
        self.set(size)

    def kill(self):
        self.process.kill()
        self.process.wait(10)

    def revive(self):
        self.set(self.size)


class World:
    def __init__(self, arriero, llama, seed, log=print, n_clients=50):
        self.seed, self.say = seed, log
        self.dir = tempfile.mkdtemp(prefix="chaos-", dir="/tmp")
        self.started = time.monotonic()
        self.lock = threading.Lock()
        self.over, self.go = threading.Event(), threading.Event()
        self.models = list(MODELS)
        self.log, self.counts = [], collections.Counter()
        self.outcomes, self.endings = [], collections.Counter()
        self.disturbed = []      # (when, model or None): what may break streams off
        self.downs = []          # [from, to]: no daemon answers
        self.life = 0            # of the daemon; odd while it is up
        self.cures, self.step = [], 0
        self.violations = []
        self.keys, self.revoked, self.pins = {}, {}, {}  # promised: id → {name, key}; model → pinned
        self.credential = None   # the field with the clients' key, which nobody revokes
        self.seen_lines = 0      # of the daemon's log
        self.operators = []
        self.base_fds, self.rss = None, []  # of the first rest; of each
        self.settings = {name: dict(settings, **ONE) for name, (_, settings) in MODELS.items()}
        self.shelf = self.dir + "/models"
        os.mkdir(self.shelf)
        for name, (options, _) in MODELS.items():
            tinygguf.write(f"{self.shelf}/{name}.gguf", **options)
        self.toys = self._toys(llama)
        self.daemon = Daemon(arriero, [self.shelf], llama)
        d = self.daemon
        self.faults = faults.Faults(self.dir, [d.dir + "/state", d.dir + "/cache"])
        d.extra_env.update(self.faults.env())
        self.configure()
        self.clients = [clients.Client(i, seed, self) for i in range(n_clients)]

    def _toys(self, llama):
        server = os.path.dirname(llama) + "/ggml-rpc-server"
        shim = faults.build(TOY_SHIM, self.dir)
        return [Worker(server, shim, self.dir, i, size=size) for i, size in enumerate(TOY_SIZES)]

    def configure(self, broken=False):
        """Writes what the run wants the daemon to be."""
        limits = {"drain_timeout": "4s", "stop_timeout": "3s", "load_timeout": "60s", "queue_wait": "25s", "total": "40s",
                  "patience": "3s", "max_waiting": 64, "write_timeout": "20s"}
        config = {"usual_caches": False, "rpc": [t.endpoint for t in self.toys], "limits": limits, "reserve_host": 0,
                  "budget": {"Host": HOST_BUDGET}, "retry": {"max": 1, "base": "100ms"}, "sampling": {"interval": "250ms"},
                  "defaults": {"margin": 0}, "models": self.settings}
        self.daemon.write_config("models: [" if broken else config)

    # ---- what was done ----
    def now(self):
        return time.monotonic() - self.started

    def did(self, text):
        line = f"{self.now():7.1f} s  {text}"
        self.log.append((time.monotonic(), line))
        self.say(line)

    def recent(self, seconds=30):
        since = time.monotonic() - seconds
        return "\n".join(line for at, line in self.log if at >= since)

    def disturb(self, model=None):
        with self.lock:
            self.disturbed.append((time.monotonic(), model))

    def was_disturbed(self, model, began, ended):
        with self.lock:
            return any(began - 6 <= at <= ended and who in (None, model) for at, who in self.disturbed)

    def was_down(self, began, ended):
        with self.lock:
            return any(down <= ended and began <= up for down, up in self.downs)

    def violate(self, text):
        with self.lock:
            self.violations.append(text)
        self.over.set()
        self.go.set()

    def check(self, holds, text):
        if not holds:
            raise Violation(text)

    # ---- the daemon's lives ----
    @property
    def where(self):
        return self.daemon.where

    def start(self):
        self.daemon.start(60)
        with self.lock:
            self.life += 1
            if self.downs:
                self.downs[-1][1] = time.monotonic()

    def stop(self, kill):
        with self.lock:
            self.downs.append([time.monotonic(), float("inf")])
        self.life += 1
        d = self.daemon
        if kill:
            d.kill()
            d.assert_no_child(20)
            d.check_log()
            d.process = None
        else:
            d.stop(60)
        self.disturb()

    def is_up(self):
        return self.life % 2 == 1

    def control(self, method, path, body=None, timeout=120):
        return fetch_json(self.daemon.socket, method, "/api/arriero/v1" + path, body, timeout=timeout)

    def instances(self):
        return self.control("GET", "/instances")[1]["instances"]

    def backends(self):
        """[(model, pid)] that run now, in an order of its own."""
        return sorted((i["model"], i["pid"]) for i in self.instances() if i["pid"] and i["state"] in BUSY_STATES)

    def reload(self, by_signal):
        """Returns when it is taken on; settings_are_kept waits for its effect."""
        if by_signal:
            self.daemon.process.send_signal(signal.SIGHUP)
            return
        status, answer = self.control("POST", "/reload")
        self.check(status == 202, f"reload: {status} {answer}")

    def settings_wanted(self):
        return {name: {k: s[k] for k in ("ctx", "priority") if k in s} for name, s in self.settings.items()}

    def settings_shown(self, config):
        return {name: {k: m[k] for k in ("ctx", "priority") if k in m} for name, m in config["config"]["models"].items()}

    def ask_once(self, model):
        """A chat without pressure: (status, answer)."""
        body = {"model": model, "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]}
        return fetch_json(self.where, "POST", "/v1/chat/completions", body, [self.credential], timeout=150)

    def operate(self, text, work):
        """Something slow, by somebody who waits for it. An answer must come; it may be an error."""
        def run():
            began, life = time.monotonic(), self.life
            try:
                status, answer = work()
                error = answer.get("error") if isinstance(answer, dict) else None
                self.check(status < 300 or (error and error.get("message") and error.get("code")),
                           f"{text}: {status} without a clear error: {answer}")
                self.did(f"  {text}: {status}{' ' + error['code'] if error else ''}")
            except (OSError, AssertionError, Violation, ValueError) as e:
                if life == self.life and not self.was_down(began, time.monotonic()):
                    self.violate(f"{text}: {type(e).__name__}: {e}")
        thread = threading.Thread(target=run, daemon=True, name=text)
        thread.start()
        self.operators.append(thread)

    # ---- cures of what was broken ----
    def later(self, steps, text, cure):
        self.cures.append((self.step + steps, text, cure))

    def cure(self, everything=False):
        due = [c for c in self.cures if everything or c[0] <= self.step]
        self.cures = [c for c in self.cures if c not in due]
        for _, text, cure in due:
            cure()
            self.did(f"  cured: {text}")

    # ---- clients ----
    def ended(self, outcome):
        with self.lock:
            self.outcomes.append(outcome)
            self.endings[outcome.ending] += 1

    def take_outcomes(self):
        with self.lock:
            taken, self.outcomes = self.outcomes, []
        return taken

    # ---- its end ----
    def destroy(self):
        self.over.set()
        self.go.set()
        for p in procs.marked(MARK, self.daemon.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(p, signal.SIGCONT)
        self.daemon.destroy()
        for toy in self.toys:
            toy.stop()
        self.faults.close()
        shutil.rmtree(self.dir, ignore_errors=True)
