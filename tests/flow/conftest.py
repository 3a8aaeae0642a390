"""Fixtures of the flow tests: the daemon under test, the real llama-server, small models.

ARRIERO_BIN            the binary under test (build-asan/arriero, else build/arriero)
ARRIERO_LLAMA_SERVER   the llama-server (else scripts/llama-bundle.sh finds or makes one)
ARRIERO_SMOLLM         a real small model for the tests that want text (else those found are used, or skipped)
"""
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from lib import tinygguf  # noqa: E402
from lib.daemon import Daemon  # noqa: E402

# Started in the background of a shell, interrupts are ignored, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def arriero_bin():
    for path in (os.environ.get("ARRIERO_BIN"), ROOT / "build-asan/arriero", ROOT / "build/arriero"):
        if path and os.access(path, os.X_OK):
            return str(pathlib.Path(path).resolve())
    pytest.exit("no arriero to test: make build, or set ARRIERO_BIN", returncode=3)


@pytest.fixture(scope="session")
def llama_server():
    path = os.environ.get("ARRIERO_LLAMA_SERVER")
    if not path:
        path = subprocess.run([ROOT / "scripts/llama-bundle.sh"], check=True, capture_output=True, text=True).stdout.strip()
    assert os.access(path, os.X_OK), f"{path} is not executable"
    return path


@pytest.fixture(scope="session")
def bundle():
    """The folder of llama-server and ggml-rpc-server."""
    path = subprocess.run([ROOT / "scripts/llama-bundle.sh", "--bundle"], check=True, capture_output=True, text=True).stdout.strip()
    assert os.access(os.path.dirname(path) + "/ggml-rpc-server", os.X_OK), "the bundle has no ggml-rpc-server"
    return os.path.dirname(path)


class Shelf:
    """A session's models, each in a folder of its own kind; made once, linked into the folders of tests."""

    def __init__(self, root):
        self.root = pathlib.Path(root)

    def make(self, filename, **options):
        path = self.root / filename
        if not path.exists():
            part = path.with_suffix(".part")
            tinygguf.write(str(part), **options)
            part.rename(path)
        return path


@pytest.fixture(scope="session")
def shelf():
    root = tempfile.mkdtemp(prefix="arr-models-", dir="/tmp")
    yield Shelf(root)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def tiny(shelf):
    """The quickest model: 0.6 MB, 2048 tokens."""
    return shelf.make("tiny-a.gguf", name="Tiny A", seed=1)


@pytest.fixture(scope="session")
def tiny_b(shelf):
    return shelf.make("tiny-b.gguf", name="Tiny B", seed=2, layers=3)


@pytest.fixture(scope="session")
def slow(shelf):
    """Big enough for long answers to be interrupted (about a millisecond a token) and for budgets to matter."""
    return shelf.make("slow.gguf", name="Slow", embd=256, layers=4, heads=4, ff=1024, ctx=32768, seed=3)


@pytest.fixture(scope="session")
def slow_b(shelf):
    return shelf.make("slow-b.gguf", name="Slow B", embd=256, layers=4, heads=4, ff=1024, ctx=32768, seed=5)


@pytest.fixture
def one_thread():
    """Threads of llama-server that spin for each other take tens of milliseconds a token where cores are shared."""
    return {"defaults": {"extra_args": ["--threads", "1"]}}


@pytest.fixture(scope="session")
def long_prompt(shelf):
    """A trained context of 128k over one small layer: a prompt that takes seconds, in short batches."""
    return shelf.make("longprompt.gguf", name="Long", embd=64, layers=1, heads=1, ff=64, ctx=131072, seed=4)


@pytest.fixture
def folder(tmp_path):
    """folder(path, …): a new directory with links to these models."""
    count = 0

    def make(*paths):
        nonlocal count
        count += 1
        d = tmp_path / f"models{count}"
        d.mkdir()
        for p in paths:
            os.link(p, d / os.path.basename(p)) if os.stat(p).st_dev == os.stat(d).st_dev else shutil.copy(p, d)
        return d

    return make


@pytest.fixture
def make_daemon(arriero_bin, llama_server):
    """make_daemon(models=[…], config={…}) → a Daemon, not started; gone at the end of the test."""
    made = []

    def make(models=(), runtime=llama_server, **options):
        d = Daemon(arriero_bin, models, runtime, **options)
        made.append(d)
        return d

    yield make
    for d in made:
        try:
            if d.process and d.process.poll() is not None:
                d.check_log()
        finally:
            d.destroy()


@pytest.fixture(scope="module")
def daemon(request, arriero_bin, llama_server, shelf, tiny, tiny_b):
    """One daemon for the tests of a module that do it no harm: tiny-a and tiny-b."""
    d = tempfile.mkdtemp(prefix="arr-shared-", dir="/tmp")
    for p in (tiny, tiny_b):
        os.link(p, os.path.join(d, p.name))
    try:
        with Daemon(arriero_bin, [d], llama_server) as running:
            yield running
    finally:
        shutil.rmtree(d, ignore_errors=True)


@pytest.fixture(scope="session")
def smollm():
    """The real small model, when it has been fetched."""
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    path = os.environ.get("ARRIERO_SMOLLM") or f"{home}/arriero/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    if not os.path.exists(path):
        pytest.skip("the real small model is not fetched (scripts/fetch-model.sh)")
    return path


@pytest.fixture(scope="session")
def node_clients(arriero_bin):
    """A folder where the clients of tests/package.json are installed; beside the binary, so that they are kept."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not there")
    wanted = ROOT / "tests/package.json"
    folder = pathlib.Path(arriero_bin).parent / "node-clients"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # other workers of the same run
        have = folder / "package.json"
        if not have.exists() or have.read_text() != wanted.read_text():
            shutil.copy(wanted, folder / "package.json.new")
            subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock", "--prefix", folder,
                            *(f"{k}@{v}" for k, v in json.loads(wanted.read_text())["dependencies"].items())],
                           check=True, timeout=300, capture_output=True)
            (folder / "package.json.new").rename(have)
    return folder


@pytest.fixture
def script(tmp_path):
    """script(name, text): an executable, for runtimes that misbehave."""

    def make(name, text):
        path = tmp_path / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def wrapper(script, llama_server):
    """wrapper(shell): a runtime that answers the probes as the real one does, and then does what shell says."""
    probes = 'case "$*" in *--version*|*--help*|*--list-devices*) exec "$REAL" "$@";; esac'

    def make(body, name="llama-wrapper"):
        return script(name, f"#!/bin/sh\nREAL={llama_server}\n{probes}\n{body}\n")

    return make


@pytest.fixture
def fake_llama():
    """The command that starts lib/fake_llama.py; append the way to fail and llama-server's arguments."""
    return f"{sys.executable} {HERE / 'lib/fake_llama.py'}"
