"""Every curl line of docs/api.md, run against a daemon with the real llama-server: it is answered, and with success."""
import contextlib
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from lib.daemon import Daemon

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Lines that go with others of their block: a key made before, a daemon with TLS, a server elsewhere. Their tests are in
# test_keys, test_tls and test_upstreams.
ELSEWHERE = ("$KEY", "--cacert", "claude/")
# Streams without an end.
ENDLESS = ("/models/sse", "/logs/stream")


def lines():
    """The commands of the fenced blocks; those that a backslash continues are joined."""
    text = (ROOT / "docs/api.md").read_text()
    blocks = re.split(r"^```.*$", text, flags=re.M)[1::2]
    commands = [c for block in blocks for c in block.replace("\\\n", " ").splitlines() if c.startswith("curl ")]
    return [c for c in commands if not any(word in c for word in ELSEWHERE)]


def model_of(line, request):
    if "audio" in line:
        pytest.skip("no model here hears")
    if '"format"' in line:  # a grammar needs a vocabulary with words
        return os.path.basename(request.getfixturevalue("smollm")).removesuffix(".gguf").lower()
    return "embedder" if "embed" in line else "tiny-a"


@pytest.fixture(scope="module")
def door(request, arriero_bin, llama_server, shelf):
    if not shutil.which("curl"):
        pytest.skip("curl is not there")
    folder = f"{shelf.root}/api-doc"
    os.makedirs(folder, exist_ok=True)
    for name, options in (("tiny-a", {"name": "Tiny A", "seed": 1}), ("embedder", {"name": "Embedder", "seed": 3, "pooling": 3})):
        shutil.copy(shelf.make(f"{name}.gguf", **options), folder)
    with contextlib.suppress(pytest.skip.Exception):  # only some lines need it
        shutil.copy(request.getfixturevalue("smollm"), folder)
    config = {"defaults": {"extra_args": ["--threads", "1"], "ctx": 2048},
              "roles": {"reasoning": {"model": "tiny-a"}, "embedding": {"model": "embedder"}}}
    with Daemon(arriero_bin, [folder], llama_server, config=config) as d:
        yield d


def test_there_are_lines():
    assert len(lines()) > 25


@pytest.mark.parametrize("line", lines())
def test_a_line_works(door, line, request):
    model = model_of(line, request)
    endless = any(path in line for path in ENDLESS)
    if endless:
        door.control("POST", "/load", {"model": model})
    command = line.replace("localhost:11435", f"127.0.0.1:{door.port}").replace("MODEL", model)
    # -m ends what has no end; its status is told all the same
    more = ["-s", "-o", "-", "-w", "\n%{http_code}"] + (["-m", "1"] if endless else ["-m", "120"])
    r = subprocess.run(["bash", "-c", f'{command} "$@"', "curl", *more], capture_output=True, text=True, check=False)
    body, _, status = r.stdout.rpartition("\n")
    assert r.returncode == (28 if endless else 0), r.stderr
    assert status == "200", body
    assert not re.search(r'"error": *[{"]', body), "a stream that tells of an error has a status of success, too"
