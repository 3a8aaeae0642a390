"""Roles: names for what a model does, loaded together, with a health of their own; with the real llama-server."""
import base64
import json
import os
import signal
import struct
import threading

import pytest

from lib.toy_upstream import Upstream
from lib.wire import wait_for


def roles_health(d):
    return d.get_json("/orchestrator/health")[1]


@pytest.fixture
def two_roles(make_daemon, folder, shelf, tiny):
    embedder = shelf.make("made-embed.gguf", name="Made Embed", seed=9, pooling=3)
    config = {"roles": {"reasoning": {"model": "tiny-a"}, "embedding": {"model": "made-embed", "dimensions": 64}}}
    return make_daemon([folder(tiny, embedder)], config=config).start()


def test_both_roles_are_loaded_and_answer_at_the_same_time(two_roles):
    d = two_roles
    wait_for(lambda: roles_health(d)["status"] == "healthy", 60, 0.05, "both roles")
    seen = roles_health(d)
    assert seen["reasoning_llm_healthy"] is True and seen["embedding_llm_healthy"] is True
    assert seen["details"]["reasoning_llm"]["model"] == "tiny-a" and seen["details"]["embedding_llm"]["dimensions"] == 64
    assert d.get_json("/health")[1]["status"] == "healthy"
    answers = {}

    def chat():
        r = d.openai().chat.completions.create(
            model="reasoning", max_tokens=16, temperature=0.1, messages=[{"role": "user", "content": "What is 2+2?"}])
        answers["chat"] = (r.choices[0].message.content, r.usage.total_tokens)

    def embed():
        r = d.openai().embeddings.create(model="embedding", input=["one", "two"])
        answers["embed"] = [len(v.embedding) for v in r.data]

    threads = [threading.Thread(target=f) for f in (chat, embed)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert answers["embed"] == [64, 64] and answers["chat"][0] and answers["chat"][1] > 0, answers
    assert d.instance("tiny-a")["slots"] == 1  # reasoning: single requests, for latency
    d.stop()


def test_a_role_that_broke_is_told(two_roles):
    d = two_roles
    wait_for(lambda: roles_health(d)["status"] == "healthy", 60, 0.05, "both roles")
    pid = d.instance("made-embed")["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: roles_health(d)["status"] == "degraded", 30, 0.02, "the health of the roles to change")
    seen = roles_health(d)
    assert seen["reasoning_llm_healthy"] is True and seen["embedding_llm_healthy"] is False
    assert d.get_json("/health")[1]["status"] == "degraded"
    wait_for(lambda: "llm_degraded" in d.log(), 10, 0.02, "the event")
    assert d.openai().embeddings.create(model="embedding", input="one").data  # loaded anew for who asks
    wait_for(lambda: roles_health(d)["status"] == "healthy", 60, 0.05, "both roles again")
    wait_for(lambda: "llm_healthy" in d.log(), 10, 0.02, "the event of the recovery")
    kinds = [e["kind"] for e in d.control("GET", "/decisions")[1]["decisions"]]
    assert "llm_degraded" in kinds and "llm_healthy" in kinds
    d.stop()


def test_roles_of_the_environment(make_daemon, folder, tiny):
    env = {"NEURALCURSOR_REASONING_LLM_MODEL": "tiny-a", "ARRIERO_REASONING_LLM_MODEL": ""}
    d = make_daemon([folder(tiny)], env=env).start()
    assert d.chat("reasoning")[0] == 200
    seen = roles_health(d)
    assert seen["embedding_llm_healthy"] is None and seen["details"]["reasoning_llm"]["model"] == "tiny-a"
    d.stop()


def test_a_role_that_nobody_can_play_is_down(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)], config={"roles": {"reasoning": {"model": "tiny-z"}}}).start()
    seen = roles_health(d)
    assert seen["status"] == "down" and "no model of that name" in seen["details"]["reasoning_llm"]["error"]
    assert "nobody plays the role reasoning: no model is called tiny-z" in d.log()
    d.stop()


@pytest.fixture
def host():
    up = Upstream("openai")
    yield up
    up.close()


def test_a_role_that_another_server_plays(make_daemon, folder, tiny, host):
    roles = {"reasoning": {"host": f"localhost:{host.port}", "model": "org/coder-33b", "fallback": ["tiny-a"]}}
    env = {"ARRIERO_EMBEDDING_LLM_HOST": host.url, "ARRIERO_EMBEDDING_LLM_MODEL": "bge-m3"}
    d = make_daemon([folder(tiny)], config={"roles": roles}, env=env).start()
    wait_for(lambda: roles_health(d)["status"] == "healthy", 30, 0.02, "both servers to be asked")
    seen = roles_health(d)["details"]["reasoning_llm"]
    assert seen["model"] == "reasoning/org/coder-33b" and seen["host"] == f"http://localhost:{host.port}", seen
    r = d.openai().chat.completions.create(model="reasoning", messages=[{"role": "user", "content": "hello"}])
    assert r.choices[0].message.content == "from afar"
    assert [len(v.embedding) for v in d.openai().embeddings.create(model="embedding", input=["one", "two"]).data] == [2, 2]
    asked = {(path, body["model"]) for path, _, body in host.asked}
    assert asked == {("/v1/chat/completions", "org/coder-33b"), ("/v1/embeddings", "bge-m3")}
    assert d.get_json("/status")[1]["instances"] == []  # nothing of ours was loaded for them
    listed = {m["id"]: m["aliases"] for m in d.get_json("/v1/models")[1]["data"]}
    assert "reasoning" in listed["reasoning/org/coder-33b"]
    host.health = 503
    wait_for(lambda: roles_health(d)["status"] == "down", 30, 0.05, "the health of the roles to change")
    seen = roles_health(d)
    assert seen["reasoning_llm_healthy"] is False
    assert "GET /health with status 503" in seen["details"]["reasoning_llm"]["error"]
    wait_for(lambda: "llm_degraded" in d.log(), 10, 0.02, "the event")
    host.health = 404  # it has no such page, but then it has no models either: 404 is an answer
    wait_for(lambda: roles_health(d)["status"] == "healthy", 30, 0.05, "the health of the roles to recover")
    wait_for(lambda: "llm_healthy" in d.log(), 10, 0.02, "the event of the recovery")
    host.server.shutdown()
    host.server.server_close()
    wait_for(lambda: roles_health(d)["status"] == "down", 30, 0.05, "the server to be missed")
    assert d.chat("reasoning")[0] == 200  # the stand-in
    d.stop()


# ---- embeddings ----

TEXTS = [f"text number {i} " + "word " * (i % 7) for i in range(100)]


@pytest.fixture
def embedder(make_daemon, folder, shelf):
    """make(**config): a daemon with one model for embeddings under the role."""
    path = shelf.make("made-embed.gguf", name="Made Embed", seed=9, pooling=3)

    def make(role=None, **config):
        d = make_daemon([folder(path)], config={"roles": {"embedding": {"model": "made-embed", **(role or {})}}, **config}).start()
        d.instance("made-embed")
        return d

    return make


def embed(d, texts, **more):
    return d.post_json("/v1/embeddings", {"model": "embedding", "input": texts, **more})


def close(a, b):
    """The same text, in a batch of another size: the sums are rounded otherwise."""
    return all(x == pytest.approx(y, abs=2e-3) for x, y in zip(a, b, strict=True))


def test_many_texts_go_in_batches_and_come_back_in_order(embedder):
    d = embedder()
    alone = {i: embed(d, TEXTS[i])[1]["data"][0]["embedding"] for i in (0, 31, 32, 63, 64, 99)}
    status, got = embed(d, TEXTS)
    assert status == 200 and [v["index"] for v in got["data"]] == list(range(100)), got
    for i, vector in alone.items():
        assert close(got["data"][i]["embedding"], vector), i
    assert got["dimensions"] == 64 and got["usage"]["prompt_tokens"] > 500, got["usage"]
    with d.wire() as w:
        w.request("POST", "/v1/embeddings", {"model": "embedding", "input": TEXTS})
        assert w.head() == 200 and w.headers["x-arriero-batches"] == "4", w.headers
        assert w.headers["x-arriero-instance"].startswith("made-embed")
        w.body()
    for form in ("base64", "float"):
        r = d.openai().embeddings.create(model="embedding", input=TEXTS, encoding_format=form)
        assert len(r.data) == 100
    d.stop()


def test_base64_is_passed_on(embedder):
    d = embedder()
    floats, coded = embed(d, TEXTS[:40])[1], embed(d, TEXTS[:40], encoding_format="base64")[1]
    assert coded["dimensions"] == 64
    for a, b in zip(floats["data"], coded["data"], strict=True):
        assert close(a["embedding"], struct.unpack("<64f", base64.b64decode(b["embedding"])))
    assert coded["usage"] == floats["usage"]
    d.stop()


def test_requests_at_the_same_time_are_joined_and_each_gets_its_own(embedder):
    d = embedder()
    want = {i: embed(d, TEXTS[i])[1]["data"][0]["embedding"] for i in range(24)}
    got = {}

    def ask(i):
        for _ in range(3):
            status, answer = embed(d, [TEXTS[i]])
            got[i] = (status, len(answer["data"]), answer["data"][0]["embedding"])

    threads = [threading.Thread(target=ask, args=(i,)) for i in want]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    for i, vector in want.items():
        assert got[i][:2] == (200, 1) and close(got[i][2], vector), i
    rows = d.cli_json("requests", "list", "--limit", "200")["requests"]
    assert all(r["outcome"] == "ok" and r["prompt_tokens"] > 0 for r in rows), rows[:3]
    assert len(rows) == 24 + 24 * 3  # one a client's request, however they were sent
    d.stop()


def test_who_leaves_or_errs_harms_nobody_else(embedder):
    d = embedder(role={"ctx": 512, "extra_args": ["--threads", "1"]})
    long = "word " * 3000  # more than the context holds
    results = {}

    def ask(name, texts):
        results[name] = embed(d, texts)

    def leave():
        w = d.wire()
        w.request("POST", "/v1/embeddings", {"model": "embedding", "input": TEXTS})
        w.close()

    threads = [threading.Thread(target=ask, args=(f"fine {i}", [TEXTS[i]])) for i in range(8)]
    threads += [threading.Thread(target=ask, args=("long", [long]))] + [threading.Thread(target=leave) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert results["long"][0] in (400, 413, 500), results["long"]
    for i in range(8):
        assert results[f"fine {i}"][0] == 200, results[f"fine {i}"]
    assert d.metric("arriero_http_body_bytes_in_flight") == 0
    wait_for(lambda: d.instance("made-embed")["busy"] == 0, 30, 0.05, "every lease to come back")
    d.stop()


def test_dimensions_are_held_to(embedder):
    d = embedder(role={"dimensions": 1024})
    status, answer = embed(d, "one")
    assert status == 502 and "gives embeddings of 64 dimensions; the configuration says 1024" in answer["error"]["message"]
    status, answer = embed(d, "one", dimensions=32)
    assert status == 400 and "64 dimensions, not of 32" in answer["error"]["message"], answer
    d.stop()


def test_the_command_embeds(embedder):
    d = embedder()
    got = d.cli_json("embed", "one", "two")
    assert len(got["embeddings"]) == 2 and got["dimensions"] == 64 == len(got["embeddings"][0])
    assert got["latency_ms"] > 0 and got["tokens_used"] > 0 and got["model"] == "made-embed"
    lines = d.cli("embed", "-m", "made-embed", "one", check=0).stdout.splitlines()
    assert len(lines) == 1 and close(json.loads(lines[0]), got["embeddings"][0])
    assert "there is no text to embed" in d.cli("embed", "-", check=1).stderr
    d.stop()
