"""Servers elsewhere: trust, keys, translation, stand-ins, retries, spending; against toy servers on loopback."""
import concurrent.futures
import json
import os

import anthropic
import httpx
import pytest

from lib.authority import Authority, openssl
from lib.daemon import free_port
from lib.toy_upstream import Upstream
from lib.wire import wait_for

KEY = "sk-upstream-0123456789abcdef"
ASK = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
SOON = {"retry": {"base": "1ms"}}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("ca")))


@pytest.fixture
def upstream():
    made = []

    def make(*args, **options):
        made.append(Upstream(*args, **options))
        return made[-1]

    yield make
    for u in made:
        u.close()


def entry(up, authority=None, **more):
    e = {"url": up.url, "dialect": up.dialect, "key_env": "TOY_KEY", "models": ["big"], **more}
    if authority:
        e["ca_file"] = authority.cert
    return e


@pytest.fixture
def serve(make_daemon, folder, tiny):
    def start(upstreams, models=None, **config):
        d = make_daemon([folder(tiny)], config={
    "upstreams" : upstreams, **({ "models" : models } if models else {}), **config},
                        env={"TOY_KEY": KEY})
        d.start()
        return d

    return start


def post(d, body, path="/v1/chat/completions", headers=None):
    return httpx.post(d.url + path, json=body, headers=headers or {}, timeout=60)


def test_openai_over_tls(serve, upstream, authority):
    up = upstream("openai", cert=authority.sign(20))
    d = serve({"toy": entry(up, authority, url=up.url + "/api/v1", models={"fast": "big-model-2026"})})
    listed = {m["id"]: m["owned_by"] for m in d.get_json("/v1/models")[1]["data"]}
    assert listed["toy/fast"] == "toy"
    r = post(d, {**ASK, "model": "toy/fast"}, headers={"Authorization": "Bearer mine", "Cookie": "a=b", "X-Mine": "c"})
    assert r.status_code == 200 and r.json()["choices"][0]["message"]["content"] == "from afar"
    assert r.headers["x-arriero-route"] == "toy/fast" and r.headers["x-arriero-instance"] == "toy"
    assert "set-cookie" not in r.headers and "openai-organization" not in r.headers
    path, head, body = up.asked[0]
    assert path == "/api/v1/chat/completions" and body["model"] == "big-model-2026"
    assert head["Authorization"] == "Bearer " + KEY and head["Host"] == f"localhost:{up.port}"
    assert "Cookie" not in head and "X-Mine" not in head and head["User-Agent"].startswith("arriero/")
    stream = list(d.openai().chat.completions.create(model="fast", stream=True, **ASK))  # by its name alone
    assert "".join(c.choices[0].delta.content or "" for c in stream) == "from afar"
    said = json.dumps(d.get_json("/status")[1]) + d.log() + d.cli("config", "print", "--config", d.config_path).stdout
    wait_for(lambda: len(d.cli_json("requests")["requests"]) == 2, message="the history")
    rows = d.cli_json("requests")["requests"]
    assert KEY not in said + json.dumps(rows) and rows[0]["model"] == "toy/fast" and rows[0]["asked"] == "fast"
    d.stop()


@pytest.mark.parametrize("stream", [False, True])
def test_an_openai_client_at_an_anthropic_server(serve, upstream, authority, stream):
    up = upstream("anthropic", cert=authority.sign(21))
    d = serve({"toy": entry(up, authority)})
    tool = {"type": "function", "function": {"name": "sky", "parameters": {"type": "object", "properties": {}}}}
    answer = d.openai().chat.completions.create(model="toy/big", stream=stream, **ASK)
    text = "".join(c.choices[0].delta.content or "" for c in answer) if stream else answer.choices[0].message.content
    assert text == "from afar"
    if not stream:
        assert answer.usage.prompt_tokens == 1000 and answer.usage.completion_tokens == 500
        call = d.openai().chat.completions.create(model="toy/big", tools=[tool], **ASK).choices[0]
        assert call.finish_reason == "tool_calls" and json.loads(call.message.tool_calls[0].function.arguments) == {"city": "Oslo"}
    path, head, body = up.asked[0]
    assert path == "/v1/messages" and head["x-api-key"] == KEY and head["anthropic-version"] == "2023-06-01"
    assert body["model"] == "big" and body["max_tokens"] == 8 and "Authorization" not in head
    with anthropic.Anthropic(base_url=d.url, api_key="none") as client:  # its own dialect passes as it is
        m = client.messages.create(model="toy/big", **ASK)
        assert m.content[0].text == "from afar"
    assert up.asked[-1][1]["x-api-key"] == KEY
    d.stop()


def untrusted(kind, authority, tmp_path):
    if kind == "another host":
        return authority.sign(30, names="DNS:other.example"), "hostname mismatch"
    if kind == "expired":
        return authority.sign(31, days=0), "certificate has expired"
    cert, key = str(tmp_path / "own.pem"), str(tmp_path / "own.key")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert)
    return (cert, key), "self-signed certificate"


@pytest.mark.parametrize("kind", ["another host", "expired", "self-signed"])
def test_who_is_not_trusted_gets_nothing(serve, upstream, authority, tmp_path, kind):
    cert, why = untrusted(kind, authority, tmp_path)
    up = upstream("openai", cert=cert)
    d = serve({"toy": entry(up, authority)})
    r = post(d, {**ASK, "model": "toy/big"})
    assert r.status_code == 502 and up.asked == []
    assert why in r.json()["error"]["message"] and "ca_file" in r.json()["error"]["hint"], r.text
    d.stop()


def test_a_name_without_address_and_a_key_that_is_not_set(serve):
    d = serve({"gone": {"url": "https://no-such-host.invalid", "models": ["m"]},
               "keyless": {"url": "https://localhost:1", "models": ["m"], "key_env": "NOT_SET_ANYWHERE_KEY"}})
    r = post(d, {**ASK, "model": "gone/m"})
    assert r.status_code == 502 and "no-such-host.invalid has no address" in r.json()["error"]["message"]
    r = post(d, {**ASK, "model": "keyless/m"})
    assert r.status_code == 502 and "NOT_SET_ANYWHERE" in r.json()["error"]["message"]
    assert "NOT_SET_ANYWHERE" in d.cli("status").stdout
    r = post(d, {**ASK, "model": "keyless/other"})  # not on its list
    assert r.status_code == 404
    d.stop()


def test_stand_ins(serve, upstream):
    up = upstream("openai")
    closed = free_port()
    d = serve({"toy": entry(up), "dead": {"url": f"http://127.0.0.1:{closed}", "models": ["m"]}},
              models={"tiny-a": {"fallback": ["toy/big"], "ctx": 1048576, "ctx_min": 1048576, "vram_limit": "1MiB", "allow_cpu": False},
                      "dead/m": {"fallback": ["toy/big"]}}, **SOON)
    r = post(d, {**ASK, "model": "tiny-a"})  # it fits nowhere
    assert r.status_code == 200 and r.headers["x-arriero-route"] == "toy/big", r.text
    r = post(d, {**ASK, "model": "dead/m"})  # no connection can be made
    assert r.status_code == 200 and r.headers["x-arriero-route"] == "toy/big", r.text
    up.fail(429, {"Retry-After": "9000"})
    r = post(d, {**ASK, "model": "toy/big"})  # nobody stands in for it: its own answer
    assert r.status_code == 429 and r.headers["retry-after"] == "9000"
    r = post(d, {**ASK, "model": "toy/big"})  # it is left alone as it asked
    assert r.status_code == 429 and "takes no requests for another" in r.json()["error"]["message"]
    assert int(r.headers["retry-after"]) > 8000
    d.stop()


def test_retries(serve, upstream):
    up = upstream("openai")
    d = serve({"toy": entry(up)}, **SOON)
    up.fail(429, {"Retry-After": "0"})
    up.fail(503)
    up.fail(529)
    r = post(d, {**ASK, "model": "toy/big"})
    assert r.status_code == 200 and len(up.asked) == 4
    up.fail(503, times=4)
    r = post(d, {**ASK, "model": "toy/big"})  # three more tries, then what it says
    assert r.status_code == 503 and len(up.asked) == 8
    up.fail(500)
    r = post(d, {**ASK, "model": "toy/big"})  # it may have been worked on: never again
    assert r.status_code == 500 and len(up.asked) == 9
    d.stop()


def test_spending_is_limited_and_kept(serve, upstream):
    up = upstream("openai")
    priced = entry(up, price_input=1000, price_output=2000, spend_per_day=3)  # 1 + 1 an answer
    d = serve({"toy": priced})
    assert post(d, {**ASK, "model": "toy/big"}).status_code == 200
    text = post(d, {**ASK, "model": "toy/big", "stream": True}).text  # streams are asked for their usage
    assert "[DONE]" in text and up.asked[1][2]["stream_options"] == {"include_usage": True}
    wait_for(lambda: d.get_json("/status")[1]["upstreams"][0]["spent_day"] == 4, message="the sum")
    r = post(d, {**ASK, "model": "toy/big"})
    assert r.status_code == 429 and len(up.asked) == 2
    assert "the spending limit of upstream toy is reached: 3 a day" in r.json()["error"]["message"]
    assert "4 of 3 spent this day" in d.cli("status").stdout
    d.stop()
    d.start()
    assert d.get_json("/status")[1]["upstreams"][0]["spent_day"] == 4
    assert post(d, {**ASK, "model": "toy/big"}).status_code == 429 and len(up.asked) == 2
    d.stop()


def test_a_wait_for_an_upstream_is_bounded_and_listed(serve, upstream):
    up = upstream("openai")
    d = serve({"toy": entry(up, max_concurrency=1)}, limits={"queue_wait": "300ms"})
    up.gate.clear()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        held = pool.submit(post, d, {**ASK, "model": "toy/big"})
        wait_for(lambda: len(up.asked) == 1, message="the first request")
        listed = d.cli_json("ps")
        assert listed["instances"] == [] and listed["upstreams"][0]["running"] == 1
        assert "toy/big" in d.cli("ps").stdout and "1/1" in d.cli("ps").stdout
        r = post(d, {**ASK, "model": "toy/big"})
        assert r.status_code == 503 and int(r.headers["retry-after"]) >= 1, r.text
        assert "upstream toy had no place for the request" in r.json()["error"]["message"]
        assert "queue_wait" in r.json()["error"]["hint"]
        r = post(d, {**ASK, "model": "toy/big"}, "/v1/messages")  # the dialect's own words
        assert r.status_code == 503 and r.json()["error"]["type"] == "overloaded_error"
        up.gate.set()
        assert held.result().status_code == 200 and len(up.asked) == 1
    d.stop()


def test_a_place_in_an_upstreams_line(serve, upstream):
    up = upstream("openai")
    d = serve({"toy": entry(up, max_concurrency=1)})
    up.gate.clear()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        held = pool.submit(post, d, {**ASK, "model": "toy/big"})
        wait_for(lambda: len(up.asked) == 1, message="the first request")
        waiting = pool.submit(post, d, {**ASK, "model": "toy/big", "stream": True}, headers={"X-Arriero-Progress": "1"})
        plain = pool.submit(post, d, {**ASK, "model": "toy/big"})
        wait_for(lambda: d.cli_json("ps")["upstreams"][0]["waiting"] == 2, message="the line")
        assert "1/1 (+2)" in d.cli("ps").stdout
        up.gate.set()
        assert held.result().status_code == 200
        assert '"position":' in waiting.result().text and "from afar" in waiting.result().text
        assert plain.result().headers["x-arriero-queue"][0] in "12" and len(up.asked) == 3
    d.stop()


REFUSED = [("/v1/embeddings", {"input": "a"}, "message"), ("/v1/completions", {"prompt": "a"}, "message"),
           ("/v1/rerank", {"query": "a", "documents": ["b"]}, "message"), ("/api/embed", {"input": "a"}, None),
           ("/api/generate", {"prompt": "a", "raw": True, "stream": False}, None)]


@pytest.mark.parametrize("path,body,member", REFUSED)
def test_what_an_anthropic_server_cannot_answer(serve, upstream, path, body, member):
    up = upstream("anthropic")
    d = serve({"toy": entry(up)})
    r = post(d, {**body, "model": "toy/big"}, path)
    error = r.json()["error"]
    text = error[member] + error["hint"] if member else error  # Ollama's clients get one text
    assert r.status_code == 501 and up.asked == [], r.text
    asked = "/v1/embeddings" if path == "/api/embed" else path  # in parts, which have a path of their own
    assert f"upstream toy cannot answer {asked}" in text and "anthropic" in text and "openai" in text
    assert d.cli_json("ps")["upstreams"][0]["requests"] == 0
    form = httpx.post(d.url + "/v1/audio/transcriptions", data={"model": "toy/big"}, files={"file": b"RIFF"}, timeout=60)
    assert form.status_code == 501 and "upstream toy cannot answer /v1/audio/transcriptions" in form.text and up.asked == []
    d.stop()


def test_a_stand_in_answers_what_the_first_cannot(serve, upstream):
    up, other = upstream("anthropic"), upstream("openai")
    d = serve({"toy": entry(up), "open": entry(other)}, models={"toy/big": {"fallback": ["open/big"]}})
    r = post(d, {"input": ["a", "bc"], "model": "toy/big"}, "/v1/embeddings")
    assert r.status_code == 200 and [e["embedding"][0] for e in r.json()["data"]] == [1.0, 2.0]
    assert up.asked == [] and len(other.asked) == 1
    d.stop()


def test_each_model_has_its_price(serve, upstream):
    up = upstream("openai")
    models = {"dear": {"name": "big", "price_input": 1000, "price_output": 2000}, "cheap": "small", "free": {"price_input": 0}}
    d = serve({"toy": entry(up, models=models, price_output=200, spend_per_day=3)})  # 1000 and 500 tokens an answer
    for model, sum_then in [("toy/cheap", 0.1), ("toy/dear", 2.1)]:
        assert post(d, {**ASK, "model": model}).status_code == 200
        wait_for(lambda: abs(d.get_json("/status")[1]["upstreams"][0]["spent_day"] - sum_then) < 1e-9, message="the sum")
    assert [body["model"] for _, _, body in up.asked] == ["small", "big"]
    status = d.get_json("/status")[1]["upstreams"][0]
    assert status["prices"]["toy/dear"] == {"input": 1000, "output": 2000} and status["models"] == ["toy/dear", "toy/cheap", "toy/free"]
    assert status["prices"]["toy/cheap"] == {"input": 0, "output": 200} and status["prices"]["toy/free"]["output"] == 200
    said = d.cli("config", "print", "--config", d.config_path, check=0).stdout
    assert "dear:" in said and "price_input: 1000" in said
    assert post(d, {**ASK, "model": "toy/dear"}).status_code == 200
    wait_for(lambda: d.get_json("/status")[1]["upstreams"][0]["spent_day"] > 3, message="the sum")
    assert post(d, {**ASK, "model": "toy/cheap"}).status_code == 429  # the limit is the upstream's
    d.stop()


def test_wrong_settings_are_named(make_daemon, folder, tiny, tmp_path):
    for settings, words in [({"models": ["m"]}, "upstreams.x has no url"),
                            ({"url": "ftp://h", "models": ["m"]}, "neither https:// nor http://"),
                            ({"url": "https://u:hush@h", "models": ["m"]}, "it names a user"),
                            ({"url": "https://h"}, "lists no models"),
                            ({"url": "http://h", "models": ["m"], "key_env": "SOME_KEY"}, "without encryption"),
                            ({"url": "https://h", "models": ["m"], "key_env": "MINE"}, "call the variable MINE_API_KEY"),
                            ({"url": "https://h", "models": ["m"], "spend_per_day": 1}, "knows no prices"),
                            ({"url": "https://h", "models": {"m": {"price_input": 1}, "n": "o"}, "spend_per_day": 1}, "no price of its model n"),
                            ({"url": "https://h", "models": {"m": {"prise_input": 1}}}, "unknown key upstreams.x.models.m.prise_input"),
                            ({"url": "https://h", "models": {"m": {"price_input": "a"}}}, "upstreams.x.models.m.price_input must be a number"),
                            ({"url": "https://h", "models": {"m": ["n"]}}, "upstreams.x.models.m must be"),
                            ({"url": "https://h", "models": ["m"], "key": "sk-1"}, "unknown key upstreams.x.key")]:
        d = make_daemon([folder(tiny)], config={"upstreams": {"x": settings}})
        out = d.cli("config", "check", d.config_path)
        assert out.returncode == 1 and words in out.stdout + out.stderr, out
        assert "hush" not in out.stdout + out.stderr
    key = tmp_path / "key"
    key.write_text(KEY + "\n")
    os.chmod(key, 0o644)
    d = make_daemon([folder(tiny)], config={"upstreams": {"x": {"url": "https://h", "models": ["m"], "key_file": str(key)}}})
    d.start()
    assert f"chmod 600 {key}" in d.log() and KEY not in d.log()
    d.stop()
