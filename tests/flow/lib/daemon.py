"""One arriero daemon of a test: its folders, its port, its log, its children, its end."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid

from . import procs
from .wire import Wire, fetch, fetch_json, wait_for

MARK = "ARRIERO_FLOW_TEST"
REPORT = re.compile(r"(AddressSanitizer|LeakSanitizer|ThreadSanitizer|UndefinedBehavior|runtime error:|Assertion .* failed)")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Daemon:
    """arriero serve, alone in a temporary folder. Use as a context manager, or start() and stop()."""

    def __init__(self, binary, models=(), runtime=None, config=None, args=(), env=None, port=None):
        self.binary, self.models, self.runtime = binary, [str(m) for m in models], runtime
        self.args, self.extra_env = list(args), dict(env or {})
        # short, because a Unix socket's path holds 107 characters
        self.dir = tempfile.mkdtemp(prefix="arr-", dir="/tmp")
        self.port = port or free_port()
        self.socket = self.dir + "/a.sock"
        self.state_dir = self.dir + "/state/arriero"
        self.config_path = None
        self.mark = uuid.uuid4().hex
        self.process, self.lines, self._readers = None, [], []
        self.children = {}
        for name in ("home", "run", "state", "cache", "config", "data"):
            os.makedirs(f"{self.dir}/{name}", mode=0o700)
        if config is not None:
            self.write_config(config)

    # ---- its world ----
    def write_config(self, config):
        """A dictionary (JSON is YAML) or text."""
        self.config_path = self.dir + "/arriero.yaml"
        with open(self.config_path + ".part", "w", encoding="utf-8") as f:
            f.write(config if isinstance(config, str) else json.dumps(config, indent=2))
        os.replace(f.name, self.config_path)  # a reload on its way finds all of it, old or new

    @property
    def env(self):
        e = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ARRIERO_", "LLAMA_", "OLLAMA_", "HF_"))}
        e.update(HOME=self.dir + "/home", XDG_RUNTIME_DIR=self.dir + "/run", XDG_STATE_HOME=self.dir + "/state",
                 XDG_CACHE_HOME=self.dir + "/cache", XDG_CONFIG_HOME=self.dir + "/config",
                 XDG_DATA_HOME=self.dir + "/data", ARRIERO_SOCKET=self.socket, NO_COLOR="1")
        e[MARK] = self.mark
        e.update(self.extra_env)
        return e

    def argv(self):
        a = [self.binary, "serve", "--listen", f"127.0.0.1:{self.port}", "--socket", self.socket,
             "--state-dir", self.state_dir]
        if self.config_path:
            a += ["--config", self.config_path]
        for m in self.models:
            a += ["--models", m]
        if self.runtime:
            a += ["--runtime", self.runtime]
        return a + self.args

    # ---- life ----
    def spawn(self):
        self.process = subprocess.Popen(self.argv(), env=self.env, cwd=self.dir, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        reader.start()
        self._readers.append(reader)
        return self

    def _read(self, pipe):
        for line in pipe:
            self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
        pipe.close()

    def start(self, seconds=30):
        self.spawn()

        def ready():
            if self.process.poll() is not None:
                self._join()
                raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log()}")
            with contextlib.suppress(OSError, AssertionError, Exception):
                return self.get("/health")[0] == 200
            return False

        wait_for(ready, seconds, 0.01, "the daemon's readiness")
        return self

    def _join(self):
        for r in self._readers:
            r.join(timeout=5)

    def log(self):
        return "\n".join(self.lines)

    def remember_children(self):
        """Everything that must be gone after the end: descendants, marked processes, pids that ps tells."""
        if self.process:
            self.children.update(procs.descendants(self.process.pid))
        self.children.update({p: s for p, s in procs.marked(MARK, self.mark).items()
                              if not self.process or p != self.process.pid})
        return self.children

    def check_log(self):
        found = [line for line in list(self.lines) if REPORT.search(line)]
        assert not found, "the daemon's log has a report:\n" + self.log()[-8000:]

    def wait(self, seconds):
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon did not end within {seconds} s:\n{self.log()[-4000:]}") from None
        self._join()
        return code

    def stop(self, seconds=40, sig=signal.SIGTERM):
        """SIGTERM; it must end with 0, leave no child, and have reported nothing."""
        if not self.process:
            return
        if self.process.poll() is None:
            self.remember_children()
            self.process.send_signal(sig)
            code = self.wait(seconds)
            assert code == 0, f"status {code} after {sig!r}:\n{self.log()[-6000:]}"
        self.assert_no_child()
        self.check_log()
        self.process = None

    def assert_no_child(self, seconds=5):
        self.children.update({p: s for p, s in procs.marked(MARK, self.mark).items()
                              if not self.process or p != self.process.pid})
        left = procs.wait_gone(self.children, seconds)
        assert not left, "left behind: " + "; ".join(f"{p} {procs.cmdline(p)}" for p in left)

    def kill(self):
        """kill -9, as a crash."""
        self.remember_children()
        self.process.kill()
        self.process.wait(10)
        self._join()

    def destroy(self):
        """Whatever happened, nothing stays: for teardown."""
        if self.process and self.process.poll() is None:
            self.remember_children()
            self.process.kill()
            self.process.wait(10)
        for p in procs.marked(MARK, self.mark):
            procs.kill(p)
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.stop()
        finally:
            self.destroy()

    # ---- talking to it ----
    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def where(self):
        return ("127.0.0.1", self.port)

    def wire(self, timeout=60):
        return Wire(self.where, timeout)

    def get(self, path, timeout=60):
        return fetch(self.where, "GET", path, timeout=timeout)

    def get_json(self, path, timeout=60):
        return fetch_json(self.where, "GET", path, timeout=timeout)

    def post_json(self, path, body, timeout=120):
        return fetch_json(self.where, "POST", path, body, timeout=timeout)

    def control(self, method, path, body=None, timeout=60):
        return fetch_json(self.socket, method, "/api/arriero/v1" + path, body, timeout=timeout)

    def cli(self, *args, timeout=60, check=None, env=None):
        r = subprocess.run([self.binary, *args], env={**self.env, **(env or {})}, cwd=self.dir, timeout=timeout,
                           capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False)
        assert not REPORT.search(r.stderr), r.stderr
        if check is not None:
            assert r.returncode == check, f"arriero {' '.join(args)}: {r.returncode}\n{r.stdout}\n{r.stderr}"
        return r

    def cli_json(self, *args, timeout=60):
        return json.loads(self.cli(*args, "--json", timeout=timeout, check=0).stdout)

    def openai(self, **options):
        import openai
        options = {"max_retries": 0, "timeout": 120, **options}
        return openai.OpenAI(base_url=self.url + "/v1", api_key="none", **options)

    def metric(self, name):
        """Sum over the labels of a metric; 0 when it is not there."""
        status, _, text = self.get("/metrics")
        assert status == 200
        total = 0.0
        for line in text.decode().splitlines():
            m = re.match(rf"{re.escape(name)}(?:\{{.*\}})? ([0-9.eE+-]+)(?: |$)", line)
            if m:
                total += float(m.group(1))
        return total

    def instances(self, model=None):
        found = self.cli_json("ps")["instances"]
        return [i for i in found if model is None or i["model"] == model]

    def instance(self, model, state="ready", seconds=30):
        """The model's instance in that state, waiting for it."""
        return wait_for(lambda: next((i for i in self.instances(model) if i["state"] == state), None),
                        seconds, 0.05, f"an instance of {model} in state {state}")

    def chat(self, model, text="hello", timeout=120, **more):
        return self.post_json("/v1/chat/completions",
                              {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 8, **more},
                              timeout=timeout)
