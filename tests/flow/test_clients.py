"""A table: every official client by what people do with it, against the daemon with the real llama-server."""
import json
import os
import pathlib
import shutil
import subprocess

import anthropic
import ollama
import openai
import pytest

from lib.daemon import Daemon
from lib.wire import wait_for

HELLO = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather in a city.", "parameters": SCHEMA}}
ASKING = {"X-Arriero-Progress": "1"}


class OpenAI:
    """Each action returns the same members for every client."""

    def __init__(self, url):
        self.c = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=120)

    def create(self, model, **more):
        return self.c.chat.completions.create(**{"model": model, "messages": HELLO, "max_tokens": 8, "temperature": 0,
                                                 "seed": 1, **more})

    def whole(self, model, **more):
        r = self.create(model, **more)
        return {"text": r.choices[0].message.content, "finish": r.choices[0].finish_reason, "tokens": r.usage.completion_tokens}

    def list(self, _):
        return {"ids": [m.id for m in self.c.models.list()]}

    def chat(self, model):
        return self.whole(model)

    def stream(self, model, **more):
        choices = [c.choices[0] for c in self.create(model, stream=True, **more) if c.choices]
        return {"text": "".join(c.delta.content or "" for c in choices), "pieces": len(choices), "finish": choices[-1].finish_reason}

    def progress(self, model):
        return self.stream(model, extra_headers=ASKING)

    def tools(self, model):
        call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
        return self.whole(model, tools=[TOOL], messages=HELLO + [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"}])

    def embeddings(self, model):
        return {"lengths": [len(d.embedding) for d in self.c.embeddings.create(model=model, input=["one", "two"]).data]}

    def cancel(self, model):
        s = self.create(model, max_tokens=100000, temperature=1, stream=True)
        next(iter(s))
        s.close()
        return {"cancelled": True}

    def unknown(self, _):
        with pytest.raises(openai.NotFoundError) as e:
            self.chat("nothing-like-it")
        return {"status": e.value.status_code, "message": str(e.value)}


class Anthropic:
    def __init__(self, url):
        self.c = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0, timeout=120)

    @staticmethod
    def ask(model, **more):
        return {"model": model, "messages": HELLO, "max_tokens": 8,
                "extra_body": {"temperature": 0, "seed": 1}, **more}

    @staticmethod
    def read(r):
        return {"text": "".join(b.text for b in r.content if b.type == "text"), "finish": r.stop_reason,
                "tokens": r.usage.output_tokens}

    def list(self, _):
        return {"ids": [m.id for m in self.c.models.list()]}

    def chat(self, model):
        return self.read(self.c.messages.create(**self.ask(model)))

    def stream(self, model, **more):
        with self.c.messages.stream(**self.ask(model, **more)) as s:
            pieces = sum(event.type == "content_block_delta" for event in s)
            return {**self.read(s.get_final_message()), "pieces": pieces}

    def progress(self, model):
        return self.stream(model, extra_headers=ASKING)

    def tools(self, model):
        return self.read(self.c.messages.create(**self.ask(
            model, tools=[{"name": "weather", "description": "The weather in a city.", "input_schema": SCHEMA}],
            messages=HELLO + [
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "rain"}]}])))

    def cancel(self, model):
        with self.c.messages.stream(**self.ask(model, max_tokens=100000, extra_body={"temperature": 1})) as s:
            next(iter(s))
        return {"cancelled": True}

    def unknown(self, _):
        with pytest.raises(anthropic.NotFoundError) as e:
            self.chat("nothing-like-it")
        return {"status": e.value.status_code, "message": str(e.value)}


class Ollama:
    options = {"num_predict": 8, "temperature": 0, "seed": 1}

    def __init__(self, url):
        self.url = url
        self.c = ollama.Client(host=url)

    @staticmethod
    def read(r):
        return {"text": r.message.content, "finish": r.done_reason, "tokens": r.eval_count}

    def list(self, _):
        return {"ids": [m.model for m in self.c.list().models]}

    def chat(self, model):
        return self.read(self.c.chat(model, HELLO, options=self.options))

    def stream(self, model, **more):
        parts = list(ollama.Client(host=self.url, **more).chat(model, HELLO, options=self.options, stream=True))
        return {"text": "".join(p.message.content for p in parts), "pieces": len(parts), "finish": parts[-1].done_reason}

    def progress(self, model):
        return self.stream(model, headers=ASKING)

    def tools(self, model):
        return self.read(self.c.chat(model, HELLO + [
            {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}]},
            {"role": "tool", "tool_name": "weather", "content": "rain"}], tools=[TOOL], options=self.options))

    def embeddings(self, model):
        return {"lengths": [len(v) for v in self.c.embed(model, ["one", "two"]).embeddings]}

    def cancel(self, model):
        s = self.c.chat(model, HELLO, options={"num_predict": 100000, "temperature": 1.0}, stream=True)
        next(s)
        s.close()
        return {"cancelled": True}

    def unknown(self, _):
        with pytest.raises(ollama.ResponseError) as e:
            self.chat("nothing-like-it")
        return {"status": e.value.status_code, "message": str(e.value)}


class Node:
    """The same in Node, see lib/clients.mjs: a process for each action."""

    def __init__(self, client, url, folder):
        self.client, self.url, self.folder = client, url, folder

    def __getattr__(self, action):
        script = pathlib.Path(__file__).parent / "lib/clients.mjs"

        def act(model):
            r = subprocess.run(["node", script, self.client, self.url, action, model], cwd=self.folder, capture_output=True,
                               text=True, timeout=120, check=False)
            assert r.returncode == 0, r.stderr
            return json.loads(r.stdout)

        return act


PYTHON = {"openai": OpenAI, "anthropic": Anthropic, "ollama": Ollama}
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "ollama": "/api/chat"}
ACTIONS = ("list", "chat", "stream", "tools", "embeddings", "progress", "cancel", "unknown")
TABLE = [(f"{language}-{client}", action) for client in PYTHON for language in ("python", "node") for action in ACTIONS
         if (client, action) != ("anthropic", "embeddings")]  # an API without them


@pytest.fixture(scope="module")
def door(arriero_bin, llama_server, shelf):
    folder = f"{shelf.root}/clients"
    os.makedirs(folder, exist_ok=True)
    slow = {"embd": 256, "layers": 4, "heads": 4, "ff": 1024, "ctx": 32768}
    for name, options in (("tiny-a", {"name": "Tiny A", "seed": 1}), ("embedder", {"name": "Embedder", "seed": 3, "pooling": 3}),
                          ("slow", {"name": "Slow", "seed": 3, **slow})):
        shutil.copy(shelf.make(f"{name}.gguf", **options), folder)
    # In a stream whose first token is half a character llama-server itself leaves out the first of Anthropic's events.
    config = {"defaults": {"extra_args": ["--threads", "1"]}, "runtime": {"dialects": ["openai", "llamacpp"]}}
    with Daemon(arriero_bin, [folder], llama_server, config=config) as d:
        yield d


@pytest.fixture
def client(request, door):
    language, name = request.param.split("-")
    if language == "python":
        return PYTHON[name](door.url), PATHS[name]
    return Node(name, door.url, request.getfixturevalue("node_clients")), PATHS[name]


def cut_off(d, path):
    """How many answers of the slow model at this path, which only `cancel` asks, nobody waited for."""
    rows = [r for r in d.control("GET", "/requests")[1]["requests"] if r["path"] == path and r["model"] == "slow"]
    assert all(r["outcome"] == "client_closed" for r in rows)
    return len(rows)


@pytest.mark.parametrize(("client", "action"), TABLE, indirect=["client"])
def test_clients(door, client, action):
    c, path = client
    model = {"embeddings": "embedder", "cancel": "slow"}.get(action, "tiny-a")
    if action == "progress":
        door.control("POST", "/unload", {"model": model})
    before = cut_off(door, path)
    seen = getattr(c, action)(model)
    if action == "list":
        assert {"tiny-a", "slow", "embedder"} <= {i.removesuffix(":latest") for i in seen["ids"]}
    elif action in ("chat", "tools"):
        assert seen["finish"] in ("stop", "length", "max_tokens", "end_turn", "tool_calls", "tool_use") and 0 < seen["tokens"] <= 8
    elif action in ("stream", "progress"):
        whole = c.chat(model)
        assert seen["text"] == whole["text"] and seen["finish"] == whole["finish"] and seen["pieces"] > 1
    elif action == "embeddings":
        assert seen["lengths"] == [64, 64]
    elif action == "cancel":
        wait_for(lambda: cut_off(door, path) == before + 1, 20, 0.05, "the record")
        wait_for(lambda: door.instance(model).get("busy", 0) == 0, 20, 0.05, "the slot")
    else:
        assert seen["status"] == 404 and "nothing-like-it" in seen["message"]


def test_progress_is_told(door):
    """What the clients skip: a load from its beginning to its end, then the answer itself."""
    door.control("POST", "/unload", {"model": "tiny-a"})
    with door.wire() as w:
        w.request("POST", "/v1/chat/completions", {"model": "tiny-a", "messages": HELLO, "max_tokens": 4, "stream": True},
                  headers=[f"{k}: {v}" for k, v in ASKING.items()])
        assert w.head() == 200
        text = w.body().decode()
    told = [json.loads(line.removeprefix(": arriero ")) for line in text.split("\n") if line.startswith(": arriero ")]
    assert told[0]["state"] in ("planning", "blocked", "making_room", "loading") and told[0]["model"] == "tiny-a"
    assert "ready" in [t["state"] for t in told] and [t for t in told if t["state"] == "ready"][0]["instance"]
    assert text.rstrip().endswith("data: [DONE]")
