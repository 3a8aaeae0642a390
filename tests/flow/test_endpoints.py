"""Endpoints that clients of Ollama, of llama.cpp's router and of llama-swap expect, answered by the daemon."""
import os
import re
import shutil

import ollama
import pytest

from lib.daemon import Daemon
from lib.wire import fetch, wait_for

WITH_PROXY = {"defaults": {"extra_args": ["--threads", "1"], "ttl": "1h"}, "models": {"tiny-b": {"aliases": ["org/b:x"], "ttl": "0"}}}


@pytest.fixture(scope="module")
def door(arriero_bin, llama_server, shelf):
    folder = f"{shelf.root}/endpoints"
    os.makedirs(folder, exist_ok=True)
    for name, seed, layers in (("tiny-a", 1, 2), ("tiny-b", 2, 3)):
        shutil.copy(shelf.make(f"{name}.gguf", name=f"Tiny {name[-1].upper()}", seed=seed, layers=layers), folder)
    with Daemon(arriero_bin, [folder], llama_server, config=WITH_PROXY) as d:
        yield d


@pytest.fixture(autouse=True)
def nothing_loaded(door):
    yield
    assert door.control("POST", "/unload", {"model": "", "force": True})[0] == 200


def client(d):
    return ollama.Client(host=d.url)


def statuses(d):
    return {m["id"]: m["status"]["value"] for m in d.get_json("/models")[1]["data"]}


# ---- Ollama ----

def test_it_is_known_by_its_words(door):
    assert door.get("/")[2] == b"Ollama is running"
    w = door.wire()
    w.request("HEAD", "/", headers=["Accept: */*"])
    assert w.head() == 200
    w = door.wire()
    w.request("GET", "/", headers=["Accept: text/html,application/xhtml+xml"])
    assert w.head() == 200
    assert b"arriero" in w.body()


def test_the_version_is_one_that_clients_accept(door):
    version = door.get_json("/api/version")[1]["version"]
    assert tuple(map(int, version.split("."))) >= (0, 6, 4)


def test_list(door):
    models = {m.model: m for m in client(door).list().models}
    assert set(models) == {"tiny-a", "tiny-b"}
    m = models["tiny-a"]
    assert m.size > 500_000 and re.fullmatch("[0-9a-f]{64}", m.digest) and m.modified_at.year >= 2020
    assert m.details.format == "gguf" and m.details.family == "llama" and m.details.families == ["llama"]
    assert m.details.parameter_size and m.details.quantization_level
    assert models["tiny-b"].digest != m.digest


def test_show(door):
    shown = client(door).show("tiny-a")
    assert shown.modelinfo["general.architecture"] == "llama" and shown.modelinfo["llama.block_count"] == 2
    assert shown.modelinfo["tokenizer.ggml.tokens"] is None
    assert shown.capabilities == ["completion"]
    assert shown.details.family == "llama" and "FROM /" in shown.modelfile
    assert client(door).show("tiny-a:latest").modelinfo == shown.modelinfo
    with pytest.raises(ollama.ResponseError) as e:
        client(door).show("tiny-x")
    assert e.value.status_code == 404 and "tiny-" in str(e.value)


def test_ps(door):
    assert client(door).ps().models == []
    assert door.chat("tiny-a")[0] == 200
    assert door.chat("tiny-b")[0] == 200
    models = {m.model: m for m in client(door).ps().models}
    a, b = models["tiny-a"], models["tiny-b"]
    assert a.size > 0 and a.size_vram == 0 and a.context_length == door.instance("tiny-a")["params"]["ctx"]
    assert b.expires_at.year > 2200 and a.expires_at.year < 2200


def test_a_model_that_is_there_is_pulled_at_once(door):
    assert client(door).pull("tiny-a").status == "success"
    assert [p.status for p in client(door).pull("tiny-a", stream=True)] == ["success"]


@pytest.mark.parametrize("act, words", [
    (lambda c: c.pull("nothing"), "does not download"),
    (lambda c: c.copy("tiny-a", "other"), "aliases"),
    (lambda c: c.delete("tiny-a"), "delete the file"),
    (lambda c: c.create("other", from_="tiny-a"), "Modelfile"),
    (lambda c: c.push("tiny-a"), "upload"),
])
def test_what_is_not_done_says_what_is(door, act, words):
    with pytest.raises(ollama.ResponseError) as e:
        act(client(door))
    assert e.value.status_code == 501 and words in str(e.value)


# ---- llama.cpp's router ----

def test_models_have_states(door):
    assert statuses(door) == {"tiny-a": "unloaded", "tiny-b": "unloaded"}
    w = door.wire()
    w.request("GET", "/models/sse")
    assert w.head() == 200
    assert door.post_json("/models/load", {"model": "tiny-a"})[1]["success"] is True
    assert statuses(door) == {"tiny-a": "loaded", "tiny-b": "unloaded"}
    row = next(m for m in door.get_json("/models")[1]["data"] if m["id"] == "tiny-a")
    assert row["path"].endswith("/tiny-a.gguf") and "--port" in row["status"]["args"]
    assert row["architecture"]["input_modalities"] == ["text"]
    assert door.post_json("/models/unload", {"model": "tiny-a"})[1]["success"] is True
    assert statuses(door)["tiny-a"] == "unloaded"
    told = w.read_until(b'"unloaded"')
    assert re.findall(rb'"status":"(\w+)"', told) == [b"loading", b"loaded", b"unloaded"]
    assert b'"model":"tiny-a","event":"model_status"' in told
    w.close()


def test_a_load_that_cannot_be(door):
    status, body = door.post_json("/models/load", {"model": "tiny-x"})
    assert status == 404 and "tiny-" in body["error"]["hint"]
    assert door.post_json("/models/load", {})[0] == 400


def test_looks_at_an_instance(door):
    own = door.get_json("/props")[1]
    assert own["role"] == "router"
    status, body = door.get_json("/slots?model=tiny-a")
    assert status == 400 and "not loaded" in body["error"]["message"]
    assert statuses(door)["tiny-a"] == "unloaded", "a look loads nothing"
    assert door.get_json("/props?model=tiny-a&autoload=false")[0] == 400
    assert door.get_json("/props?model=tiny-a")[1]["total_slots"] >= 1
    assert statuses(door)["tiny-a"] == "loaded"
    before = door.instance("tiny-a")["idle_ms"]
    assert len(door.get_json("/slots?model=tiny-a")[1]) >= 1
    status, _, text = door.get("/metrics?model=tiny-a")
    assert status == 200 and b"llamacpp:" in text
    assert door.instance("tiny-a")["idle_ms"] >= before, "a look is no use"
    assert b"arriero_" in door.get("/metrics")[2]
    assert door.get_json("/slots")[0] == 400


# ---- llama-swap ----

def test_what_runs_and_unloading(door):
    assert door.get_json("/running")[1] == {"running": []}
    assert door.chat("tiny-a")[0] == 200
    row, = door.get_json("/running")[1]["running"]
    assert row["model"] == "tiny-a" and row["state"] == "ready" and row["ttl"] == 3600
    assert row["name"] == "Tiny A" and "--threads 1" in row["cmd"]
    assert row["proxy"] == f"http://127.0.0.1:{door.instance('tiny-a')['port']}"
    assert door.get("/unload")[2] == b"OK"
    assert door.get_json("/running")[1] == {"running": []}
    assert door.chat("tiny-a")[0] == 200 and door.chat("tiny-b")[0] == 200
    assert fetch(door.where, "POST", "/api/models/unload/org/b:x")[2] == b"OK"
    assert [m["model"] for m in door.get_json("/running")[1]["running"]] == ["tiny-a"]
    assert door.post_json("/api/models/unload", {})[1] == {"msg": "ok"}
    assert door.get_json("/running")[1] == {"running": []}
    assert door.post_json("/api/models/unload/nothing", {})[0] == 404


def test_upstream(door):
    assert door.get_json("/upstream/tiny-a/health")[1] == {"status": "ok"}
    assert statuses(door)["tiny-a"] == "loaded"
    assert door.get_json("/upstream/org/b:x/props?x=1")[1]["total_slots"] >= 1
    assert door.get_json("/upstream/org%2Fb%3Ax/props")[0] == 200
    ask = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    status, answer = door.post_json("/upstream/tiny-a/v1/chat/completions", ask)
    assert status == 200 and answer["choices"][0]["message"]["role"] == "assistant"
    wait_for(lambda: any(r["path"] == "/upstream/*" and r["completion_tokens"] == 4
                         for r in door.control("GET", "/requests")[1]["requests"]), 10, 0.05, "the record")
    assert door.get_json("/upstream/nothing/props")[0] == 404
    status, headers, _ = door.get("/upstream/tiny-a?x=%20y")
    assert status == 301 and headers["location"] == "/upstream/tiny-a/?x=%20y"
    status, body = door.post_json("/upstream/tiny-a/tokenize", {"content": "ab"})
    assert status == 200 and body["tokens"]


def test_a_client_that_leaves_upstream_frees_its_slot(door):
    ask = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 100000, "stream": True, "ignore_eos": True}
    w = door.wire()
    w.request("POST", "/upstream/tiny-a/v1/chat/completions", ask)
    assert w.head() == 200
    w.read_until(b"data:")
    w.reset()
    wait_for(lambda: door.instance("tiny-a")["busy"] == 0, 10, 0.05, "the end of the lease")
    wait_for(lambda: not any(s["is_processing"] for s in door.get_json("/slots?model=tiny-a")[1]), 10, 0.05, "a free slot")


def test_logs(door):
    assert door.chat("tiny-a")[0] == 200
    text = door.get("/logs")[2]
    assert b"==> tiny-a <==" in text and b"llama" in text
    streams = {}
    for path in ("/logs/stream", "/logs/stream/tiny-b?no-history", "/logs/stream/proxy"):
        streams[path] = w = door.wire()
        w.request("GET", path)
        assert w.head() == 200
        assert w.headers["content-type"].startswith("text/plain")
    assert door.chat("tiny-b")[0] == 200
    assert b"==> tiny-a <==" in streams["/logs/stream"].read_until(b"[tiny-b#")
    assert b"tiny-a" not in streams["/logs/stream/tiny-b?no-history"].read_until(b"listening")
    assert b" ready tiny-b: " in streams["/logs/stream/proxy"].read_until(b" ready tiny-b: ")
    assert door.get_json("/logs/stream/nothing")[0] == 404
    for w in streams.values():
        w.close()


@pytest.mark.parametrize("path", ["/api/show", "/api/pull", "/models/load"])
def test_a_command_is_short(door, path):
    w = door.wire()
    w.request("POST", path, body=b'{"model": "%s"}' % (b"x" * 1200000))
    assert w.head() == 413
    w.close()


def test_pages_of_other_origins_make_nothing_happen(door):
    assert door.chat("tiny-a")[0] == 200
    agent = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"
    pages = (["Sec-Fetch-Site: cross-site"], ["Sec-Fetch-Site: same-site", agent], [agent])  # the last: beyond loopback
    for path in ("/unload", "/upstream/tiny-b/props", "/props?model=tiny-b", "/models?reload=1"):
        for method in ("GET", "HEAD"):  # a page may send both without asking first
            for page in pages:
                w = door.wire()
                w.request(method, path, headers=page)
                assert w.head() == 403, (method, path, page)
                w.close()
    assert statuses(door) == {"tiny-a": "loaded", "tiny-b": "unloaded"}
    w = door.wire()
    w.request("GET", "/unload", headers=["Sec-Fetch-Site: none", agent])  # typed by the user
    assert w.head() == 200
    w.close()
