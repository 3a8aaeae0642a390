"""The official ollama clients against the daemon, with the real llama-server behind it."""
import base64
import json
import os
import re
import shutil
import threading

import ollama
import pytest

from lib.daemon import Daemon
from lib.wire import wait_for

SHORT = {"num_predict": 8, "temperature": 0, "seed": 1}
LONG = {"num_predict": 100000, "temperature": 1.0}
TOOL = {"type": "function", "function": {
    "name": "weather", "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
COUNTERS = ("total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration")


@pytest.fixture(scope="module")
def door(arriero_bin, llama_server, shelf):
    folder = f"{shelf.root}/ollama"
    os.makedirs(folder, exist_ok=True)
    for name, options in (("tiny-a", {"name": "Tiny A", "seed": 1}), ("tiny-b", {"name": "Tiny B", "seed": 2, "layers": 3}),
                          ("embedder", {"name": "Embedder", "seed": 3})):
        shutil.copy(shelf.make(f"{name}.gguf", **options), folder)
    config = {"defaults": {"extra_args": ["--threads", "1"], "ctx": 2048},
              "models": {"embedder": {"embedding": True}}}
    with Daemon(arriero_bin, [folder], llama_server, config=config) as d:
        yield d


@pytest.fixture(scope="module")
def client(door):
    return ollama.Client(host=door.url)


@pytest.fixture(scope="module")
def real(arriero_bin, llama_server, shelf, smollm):
    """A model that writes words."""
    folder = f"{shelf.root}/ollama-real"
    os.makedirs(folder, exist_ok=True)
    shutil.copy(smollm, folder)
    with Daemon(arriero_bin, [folder], llama_server, config={"defaults": {"ctx": 2048, "extra_args": ["--threads", "1"]}}) as d:
        c = ollama.Client(host=d.url)
        yield c, c.list().models[0].model


def records(d, path):
    return [r for r in d.control("GET", "/requests")[1]["requests"] if r["path"] == path]


def hello(text="hello"):
    return [{"role": "user", "content": text}]


def check_counters(answer):
    for name in COUNTERS:
        assert answer[name] is not None, name
    assert 0 < answer.eval_count <= 8 and answer.prompt_eval_count > 0
    assert answer.total_duration > answer.eval_duration > 0


def test_chat_whole_and_streamed(door, client):
    whole = client.chat("tiny-a", hello(), options=SHORT)
    assert whole.model == "tiny-a" and whole.done and whole.done_reason in ("stop", "length")
    assert whole.message.role == "assistant"
    check_counters(whole)
    parts = list(client.chat("tiny-a:latest", hello(), options=SHORT, stream=True))
    assert [p.done for p in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) > 2 and all(p.message.content for p in parts[:-1])
    assert "".join(p.message.content for p in parts) == whole.message.content
    assert parts[-1].model == "tiny-a:latest" and parts[-1].eval_count == whole.eval_count
    check_counters(parts[-1])
    row = wait_for(lambda: next((r for r in records(door, "/api/chat") if r["streamed"]), None), 10, 0.05, "the record")
    assert row["outcome"] == "ok" and row["completion_tokens"] == parts[-1].eval_count


def test_generate(client):
    whole = client.generate("tiny-a", "Once", options=SHORT, system="Be brief.")
    assert whole.done and whole.done_reason in ("stop", "length")
    check_counters(whole)
    parts = list(client.generate("tiny-a", "Once", options=SHORT, system="Be brief.", stream=True))
    assert "".join(p.response for p in parts) == whole.response and parts[-1].done
    raw = client.generate("tiny-a", "Once", options=SHORT, raw=True)
    assert raw.prompt_eval_count < whole.prompt_eval_count, "no template around it"
    assert raw.response == client.generate("tiny-a", "Once", options={**SHORT, "num_ctx": 512, "num_gpu": 0}, raw=True).response


def test_what_it_is_asked_for_is_what_llama_server_gets(door, client):
    own = door.post_json("/v1/chat/completions", {
        "model": "tiny-a", "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "hello"}],
        "max_tokens": 8, "temperature": 0, "seed": 1, "top_k": 3, "repeat_penalty": 1.5, "stop": ["q"]})[1]
    theirs = client.generate("tiny-a", "hello", system="S",
                             options={**SHORT, "top_k": 3, "repeat_penalty": 1.5, "stop": ["q"]})
    assert theirs.response == own["choices"][0]["message"]["content"]
    assert theirs.prompt_eval_count == own["usage"]["prompt_tokens"]
    assert theirs.eval_count == own["usage"]["completion_tokens"]


def test_a_format_is_kept(real):
    c, model = real
    schema = {"type": "object", "properties": {"n": {"enum": [7]}}, "required": ["n"]}
    answer = c.chat(model, hello("Give n."), format=schema, options={"num_predict": 24, "temperature": 0})
    assert json.loads(answer.message.content) == {"n": 7}
    parts = list(c.generate(model, "An object, please.", format="json", options={"num_predict": 4}, stream=True))
    assert re.match(r"\s*(\{|\[|$)", "".join(p.response for p in parts)), "white space may come first"


def test_a_tool_is_called(real):
    """The form of a call is forced by a template's own words, so that even a small model makes one."""
    c, model = real
    say = '{"name": "weather", "arguments": {"city": "Paris"}}'
    prompt = hello(f"Repeat exactly this and nothing else: <tool_call>{say}</tool_call>")
    whole = c.chat(model, prompt, tools=[TOOL], options={"num_predict": 32, "temperature": 0})
    parts = list(c.chat(model, prompt, tools=[TOOL], options={"num_predict": 32, "temperature": 0}, stream=True))
    calls = [call for p in parts for call in p.message.tool_calls or []]
    assert [x.function for x in calls] == [x.function for x in whole.message.tool_calls or []]
    assert "".join(p.message.content or "" for p in parts) == (whole.message.content or "")


def test_a_conversation_with_a_tool(client):
    """Definition, call and result are taken; what a random model answers is its own affair."""
    messages = hello("Weather in Paris?") + [
        {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}]},
        {"role": "tool", "tool_name": "weather", "content": "sunny"}]
    answer = client.chat("tiny-a", messages, tools=[TOOL], options=SHORT)
    assert answer.done
    assert list(client.chat("tiny-a", messages, tools=[TOOL], options=SHORT, stream=True))[-1].done


def test_embeddings(door, client):
    two = client.embed("embedder", ["one", "two"])
    assert len(two.embeddings) == 2 and len(two.embeddings[0]) == 64 and two.prompt_eval_count > 0
    one = client.embed("embedder", "one")
    assert one.embeddings[0] == pytest.approx(two.embeddings[0], abs=1e-4)
    short = client.embed("embedder", "one", dimensions=16).embeddings[0]
    assert len(short) == 16 and sum(x * x for x in short) == pytest.approx(1, abs=1e-4)
    assert client.embeddings("embedder", "one").embedding == pytest.approx(one.embeddings[0], abs=1e-4)
    assert list(client.embed("embedder", []).embeddings) == []


def test_keep_alive(door, client):
    loaded = client.generate("tiny-b", keep_alive=-1)
    assert loaded.done and loaded.done_reason == "load" and loaded.response == ""
    assert next(m for m in client.ps().models if m.model == "tiny-b").expires_at.year > 2200
    client.chat("tiny-b", hello(), options=SHORT, keep_alive="10m")
    left = next(m for m in client.ps().models if m.model == "tiny-b")
    assert left.expires_at.year < 2200
    assert client.chat("tiny-b", [], keep_alive=0).done_reason == "unload"
    assert not door.instances("tiny-b")
    assert client.generate("tiny-b", keep_alive=0).done_reason == "unload", "nothing is loaded for it"
    assert not door.instances("tiny-b")
    client.chat("tiny-b", hello(), options=SHORT, keep_alive=0)
    wait_for(lambda: not door.instances("tiny-b"), 15, 0.05, "the model's end")
    why = door.control("GET", "/decisions?model=tiny-b&limit=1")[1]["decisions"][0]
    assert why["kind"] == "unload" and why["reasons"][0]["code"] == "keep_alive"


def test_a_client_that_leaves_frees_its_slot(door, client):
    stream = client.chat("tiny-a", hello(), options=LONG, stream=True)
    next(stream)
    stream.close()
    wait_for(lambda: door.instance("tiny-a")["busy"] == 0, 10, 0.02, "the end of the lease")
    wait_for(lambda: not any(s["is_processing"] for s in door.get_json("/slots?model=tiny-a")[1]), 10, 0.02, "a free slot")


@pytest.mark.parametrize("body, words", [
    ({"messages": "hello"}, "messages"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    ({"messages": [{"role": "king", "content": ""}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": "", "images": "x"}]}, "images"),
    ({"messages": [{"role": "user", "content": ""}], "options": {"temperature": "hot"}}, "temperature"),
    ({"messages": [{"role": "user", "content": ""}], "keep_alive": "soon"}, "keep_alive"),
    ({"messages": [{"role": "user", "content": ""}], "format": "xml"}, "format"),
    ({"messages": [{"role": "user", "content": ""}], "think": "hard"}, "think"),
    ({"messages": [{"role": "user", "content": ""}], "logprobs": True}, "/v1/chat/completions"),
])
def test_what_is_wrong_is_named(door, body, words):
    status, answer = door.post_json("/api/chat", {"model": "tiny-a", **body})
    assert status in (400, 501) and list(answer) == ["error"] and words in answer["error"]


def test_errors_are_in_its_form(door, client):
    with pytest.raises(ollama.ResponseError) as e:
        client.chat("tiny-x", hello())
    assert e.value.status_code == 404 and "did you mean" in str(e.value)
    for path in ("/api/generate", "/api/tags"):
        status, answer = door.get_json(path) if path == "/api/generate" else door.post_json(path, {})
        assert status == 405 and list(answer) == ["error"]
    status, answer = door.post_json("/api/generate", {"model": "tiny-a", "prompt": "x", "context": [1, 2]})
    assert status == 501 and "/api/chat" in answer["error"]
    with pytest.raises(ollama.ResponseError) as e:  # the backend's own refusal
        client.chat("tiny-a", hello("word " * 5000))
    assert e.value.status_code == 400 and "context" in str(e.value)


def test_images_reach_the_backend(door, client):
    """A model without eyes: the backend's own words come back, so the image was there."""
    png = base64.b64encode(bytes.fromhex("89504e470d0a1a0a") + bytes(16)).decode()
    with pytest.raises(ollama.ResponseError) as e:
        client.chat("tiny-a", [{"role": "user", "content": "What is it?", "images": [png]}])
    assert "image" in str(e.value)


def test_a_large_request_is_translated_beside_the_loop(door, client):
    messages = [{"role": "user", "content": "so it goes. " * 25_000}]
    with pytest.raises(ollama.ResponseError) as e:
        client.chat("tiny-a", messages)
    assert e.value.status_code == 400 and "context" in str(e.value)


def test_requests_at_the_same_time(door):
    answers = []

    def ask(n):
        c = ollama.Client(host=door.url)
        answers.append("".join(p.message.content for p in c.chat("tiny-a", hello("hi"), options=SHORT, stream=True)))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(answers) == 4


def test_context_is_widened_where_it_can_be(make_daemon, folder, slow, one_thread):
    d = make_daemon([folder(slow)], config={"defaults": {**one_thread["defaults"], "ctx_min": 512, "strategy": "power-efficient"}}).start()
    c = ollama.Client(host=d.url)
    c.chat("slow", hello(), options=SHORT)
    first = d.instance("slow")
    c.chat("slow", hello(), options={**SHORT, "num_ctx": 1024})
    assert d.instance("slow")["id"] == first["id"], "less than it has changes nothing"
    had = c.ps().models[0].context_length
    c.chat("slow", hello(), options={**SHORT, "num_ctx": had + 4096})
    second = d.instance("slow")
    assert second["id"] != first["id"] and c.ps().models[0].context_length >= had + 4096
    c.chat("slow", hello(), options={**SHORT, "num_ctx": 10_000_000})
    assert c.ps().models[0].context_length <= 32768, "never more than it was trained for"
    d.stop()
