"""Roles: names for what a model does, loaded together, with a health of their own; with the real llama-server."""
import os
import signal
import threading

import pytest

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
