"""A plain answer that the door puts together is the one that llama-server gives itself.

The same request goes to llama-server and through the door. Everything must be equal but the answer's id, its time,
and the measured times.
"""
import http.client
import json
import os

import pytest

from lib.daemon import Daemon

BASE = {"temperature": 0, "seed": 1, "cache_prompt": False, "max_tokens": 10}
TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]


def chat(text="Say hello", **more):
    return "/v1/chat/completions", dict(BASE, messages=[{"role": "user", "content": text}], **more)


def text(prompt="Once upon a time", **more):
    return "/v1/completions", dict(BASE, prompt=prompt, **more)


CASES = {
    "chat": chat(),
    "chat-not-streamed": chat(stream=False),
    "short-path": ("/chat/completions", chat()[1]),
    "chat-two": chat(n=2),
    "chat-stop": chat(stop=["e", "\n"]),
    "chat-one-token": chat(max_tokens=1),
    "chat-nothing": chat(grammar='root ::= ""'),
    "chat-beyond-ascii": chat(grammar='root ::= "é😀\\"\\\\\\n\\u0001"', max_tokens=40),
    "chat-json": chat(response_format={"type": "json_schema", "json_schema": {"schema": {
        "type": "object", "properties": {"a": {"enum": [True, 17]}}, "required": ["a"], "additionalProperties": False}}},
        max_tokens=40),
    "chat-tools": chat(tools=TOOLS),
    "chat-logprobs": chat(logprobs=True, top_logprobs=2),
    "chat-timings-per-token": chat(timings_per_token=True),
    "text": text(),
    "text-two": text(n=2),
    "text-prompts": text(["Once", "Twice"]),
    "text-tokens": text([5, 6, 7]),
    "text-stop": text(stop=["a", "e"]),
    "text-logprobs": text(logprobs=2),
    "too-long": text("word " * 6000),
    "chat-too-long": chat("word " * 6000),
    "bad-field": chat(top_k="many"),
    "bad-messages": ("/v1/chat/completions", dict(BASE, messages=5)),
    "bad-grammar": text(grammar="root ::= ("),
    "bad-tool": chat(tools=[{"type": "nothing"}]),
}


def ask(port, path, body):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    r = c.getresponse()
    found = r.status, r.getheader("Content-Type"), json.loads(r.read())
    c.close()
    return found


def comparable(answer):
    status, kind, body = answer
    for key, value in (("id", "x"), ("created", 1)):
        if key in body:
            assert isinstance(body[key], type(value)) and body[key]
            body[key] = value
    if "timings" in body:
        assert all(isinstance(v, (int, float)) for v in body["timings"].values())
        body["timings"] = {k: v if k.endswith("_n") else 0 for k, v in body["timings"].items()}
    return status, kind, body, list(body)


class Pair:
    """The door, and the llama-server behind it."""

    def __init__(self, d, model):
        self.d, self.model = d, model
        assert d.chat(model)[0] == 200
        self.port = d.instance(model)["port"]

    def check(self, case):
        path, body = CASES[case]
        body = dict(body, model=self.model)
        assert comparable(ask(self.d.port, path, body)) == comparable(ask(self.port, path, body))


@pytest.fixture(scope="module")
def pair(arriero_bin, llama_server, tiny):
    config = {"defaults": {"ctx": 2048, "ctx_min": 2048, "parallel": 2, "extra_args": ["--threads", "1"]}}
    with Daemon(arriero_bin, [os.path.dirname(tiny)], llama_server, config=config) as d:
        yield Pair(d, "tiny-a")


# The tiny model's tokens are bytes: one alone is half a character, which a stream leaves out and a plain answer shows
# as U+FFFD.
@pytest.mark.parametrize("case", [c for c in CASES if c != "chat-one-token"])
def test_equal_to_llama_servers_own(pair, case):
    pair.check(case)


def test_equal_with_a_real_model(make_daemon, folder, smollm):
    d = make_daemon([folder(smollm)], config={"defaults": {"ctx": 2048, "parallel": 2, "extra_args": ["--threads", "1"]}}).start()
    pair = Pair(d, d.openai().models.list().data[0].id)
    for case in ("chat", "chat-one-token", "chat-two", "chat-stop", "chat-logprobs", "text", "text-logprobs"):
        pair.check(case)
    d.stop()
