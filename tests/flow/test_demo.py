"""The demonstration on a terminal: it ends with instructions, and Ctrl-C at any time leaves nothing running."""
import os
import pathlib
import pty
import re
import select
import shutil
import tempfile
import time
import uuid

import pytest

from lib import procs
from lib.daemon import MARK, REPORT, free_port

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts/demo.sh"


class Terminal:
    """The demonstration in a terminal and process group of its own, with a model and a runtime that are there already."""

    def __init__(self, tmp_path, arriero_bin, llama_server, model):
        (tmp_path / "bin").mkdir()
        os.symlink(llama_server, tmp_path / "bin/llama-server")
        self.tmp = pathlib.Path(tempfile.mkdtemp(prefix="arr-demo-", dir="/tmp"))  # short, for the socket's path
        self.mark, self.out, self.fd = uuid.uuid4().hex, "", None
        self.started = {}
        env = {**os.environ, MARK: self.mark, "TERM": "xterm", "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
               "HOME": str(tmp_path), "TMPDIR": str(self.tmp), "DEMO_ARRIERO": arriero_bin, "DEMO_PORT": str(free_port()),
               "MODEL": str(model), "ARRIERO_NO_INSTALL": "1"}
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve("/usr/bin/env", ["env", "bash", str(SCRIPT)], env)

    def read(self, pattern=None, seconds=60):
        """Reads until the pattern has come, or to the end."""
        deadline = time.monotonic() + seconds
        while pattern is None or not re.search(pattern, self.out):
            assert time.monotonic() < deadline, f"{pattern}: not within {seconds} s:\n{self.out}"
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    data = os.read(self.fd, 65536)
                except OSError:  # EIO: everybody has closed the terminal
                    data = b""
                if not data:
                    assert pattern is None, f"ended without {pattern}:\n{self.out}"
                    break
                self.out += re.sub(r"\x1b\[[0-9;]*[mK]", "", data.decode("utf-8", "replace"))
        return self.out

    def interrupt(self):
        self.started = procs.descendants(self.pid)
        os.write(self.fd, b"\x03")

    def end(self):
        """The exit status, once the terminal is closed."""
        self.read()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def left(self):
        return {p: procs.cmdline(p) for p in procs.wait_gone({**self.started, **procs.marked(MARK, self.mark)}, 5)}


@pytest.fixture
def terminal(tmp_path, arriero_bin, llama_server, tiny):
    model = tmp_path / "models"
    model.mkdir()
    t = Terminal(tmp_path, arriero_bin, llama_server, shutil.copy(tiny, model))
    yield t
    for p, started in {**t.started, **procs.marked(MARK, t.mark)}.items():
        if procs.alive(p, started):
            procs.kill(p)
    os.close(t.fd)
    shutil.rmtree(t.tmp, ignore_errors=True)


def gone(t):
    assert t.left() == {}
    assert list(t.tmp.iterdir()) == [], "its temporary folder is gone"
    assert not REPORT.search(t.out), t.out


@pytest.mark.parametrize("when", [r"\[1/7\]", r"\[5/7\]", r"arriero serve", r"\[6/7\]", r"\[7/7\]"])
def test_interrupted_on_its_way(terminal, when):
    terminal.read(when)
    terminal.interrupt()
    assert terminal.end() == 130, terminal.out
    gone(terminal)


def test_to_the_end_then_interrupted(terminal):
    terminal.read(r"Press Ctrl-C to stop it")
    url = re.search(r"http://127\.0\.0\.1:\d+/v1", terminal.out).group(0)
    assert f"curl {url}/chat/completions" in terminal.out
    assert "tiny-a" in terminal.out and "was placed" in terminal.out and "RAM holds" in terminal.out
    assert "error" not in terminal.out.lower() and "warn" not in terminal.out.lower(), terminal.out
    terminal.interrupt()
    assert len(terminal.started) >= 2, "the daemon and its llama-server"
    assert terminal.end() == 130, terminal.out
    gone(terminal)
