"""The data plane through the official openai client and the real llama-server."""
import json
import threading

import openai
import pytest

MESSAGES = [{"role": "user", "content": "Say something."}]


def test_models_lists_both_without_loading_them(daemon):
    ids = [m.id for m in daemon.openai().models.list()]
    assert {"tiny-a", "tiny-b"} <= set(ids)
    status, one = daemon.get_json("/v1/models")
    assert status == 200 and one["object"] == "list"
    assert all(m["object"] == "model" for m in one["data"])


def test_plain_chat(daemon):
    r = daemon.openai().chat.completions.create(model="tiny-a", messages=MESSAGES, max_tokens=8)
    assert r.object == "chat.completion"
    assert r.choices[0].message.role == "assistant"
    assert r.usage.completion_tokens > 0
    assert r.model == "tiny-a"


def test_streamed_chat(daemon):
    stream = daemon.openai().chat.completions.create(
        model="tiny-a", messages=MESSAGES, max_tokens=12, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert len(chunks) > 2, "the answer came in pieces"
    assert any(c.choices and c.choices[0].finish_reason for c in chunks)
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens > 0


def test_stream_ends_with_done_and_is_an_event_stream(daemon):
    with daemon.wire() as w:
        w.request("POST", "/v1/chat/completions", {"model": "tiny-a", "messages": MESSAGES, "max_tokens": 6, "stream": True})
        assert w.head() == 200
        assert w.headers["content-type"].startswith("text/event-stream")
        events = list(w.events())
    assert events[-1] == "[DONE]"
    for e in events[:-1]:
        json.loads(e)


def test_completions_plain_and_streamed(daemon):
    c = daemon.openai()
    r = c.completions.create(model="tiny-b", prompt="once", max_tokens=6)
    assert r.object == "text_completion" and r.usage.completion_tokens > 0
    pieces = list(c.completions.create(model="tiny-b", prompt="once", max_tokens=6, stream=True))
    assert len(pieces) >= 2


def test_async_client_and_many_at_once(daemon):
    results, problems = [], []

    def ask(i):
        try:
            text = daemon.openai().chat.completions.create(
                model="tiny-a" if i % 2 else "tiny-b", messages=[{"role": "user", "content": f"number {i}"}], max_tokens=6)
            results.append(text.choices[0].finish_reason)
        except Exception as e:  # noqa: BLE001 - told below
            problems.append(e)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert not problems and len(results) == 12


def test_keep_alive_serves_many_requests_on_one_connection(daemon):
    with daemon.wire() as w:
        for i in range(3):
            w.request("POST", "/v1/completions", {"model": "tiny-a", "prompt": f"a{i}", "max_tokens": 2})
            assert w.head() == 200
            assert json.loads(w.body())["object"] == "text_completion"
        w.request("GET", "/health")
        assert w.head() == 200 and json.loads(w.body())["status"] == "ok"


def test_pipelined_requests_are_answered_in_order(daemon):
    with daemon.wire() as w:
        w.send_raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert w.head() == 200 and json.loads(w.body())["status"] == "ok"
        assert w.head() == 200 and json.loads(w.body())["object"] == "list"


def test_unicode_and_escapes_in_the_body_survive(daemon):
    body = ('{"messages":[{"role":"user","content":"\\u00e9\\ud83e\\udd99 \\"model\\": \\"no\\" 🦙"}],'
            '"\\u006dodel" : "tiny-a","max_tokens":3}')
    status, answer = daemon.post_json("/v1/chat/completions", body)
    assert status == 200, answer


def test_embeddings(make_daemon, folder, shelf):
    """One model whose file says that it is made for embeddings, one that the configuration uses so."""
    made = shelf.make("made-embed.gguf", name="Made Embed", seed=9, pooling=3)
    used = shelf.make("used-embed.gguf", name="Used Embed", seed=10)
    config = {"models": {"used-embed": {"embedding": True}}}
    d = make_daemon([folder(made, used)], config=config).start()
    for model in ("made-embed", "used-embed"):
        r = d.openai().embeddings.create(model=model, input=["one", "two"], encoding_format="float")
        assert len(r.data) == 2 and len(r.data[0].embedding) == 64
        assert r.data[0].embedding != r.data[1].embedding
    d.stop()


def test_real_model_answers_in_words(make_daemon, smollm, folder):
    d = make_daemon([folder(smollm)]).start()
    model = d.openai().models.list().data[0].id
    r = d.openai().chat.completions.create(
        model=model, max_tokens=24, temperature=0, messages=[{"role": "user", "content": "What is the largest ocean on Earth?"}])
    assert "Pacific" in r.choices[0].message.content
    d.stop()


# ---- errors that a client sees ----

def test_a_form_reaches_the_model_that_it_names(daemon):
    """These models do not hear, so llama-server's own refusal comes back: from an instance of the model in the form."""
    sound = ("a.wav", b"RIFF\x00\xff--\r\n")
    with pytest.raises(openai.APIStatusError) as refused:
        daemon.openai().audio.transcriptions.create(model="tiny-b", file=sound)
    assert refused.value.response.headers["x-arriero-instance"].startswith("tiny-b"), refused.value
    with pytest.raises(openai.NotFoundError) as missing:
        daemon.openai().audio.transcriptions.create(model="tiny-z", file=sound)
    assert "tiny-z" in missing.value.message


def test_unknown_model_is_404_with_the_nearest_names(daemon):
    with pytest.raises(openai.NotFoundError) as e:
        daemon.openai().chat.completions.create(model="tiny-aa", messages=MESSAGES)
    assert "tiny-a" in str(e.value)
    status, body = daemon.chat("tiny-aa")
    assert status == 404
    assert body["error"]["message"] and body["error"]["type"] and "code" in body["error"]
    assert "param" in body["error"]


@pytest.mark.parametrize("body", ['{"messages": []}', '{"model": 7, "messages": []}', '{"model": ""}', '{"model": "tiny-a"',
                                  "[]", "", "nonsense", '{"model": "tiny-a", "model": "tiny-b"}'],
                         ids=["no-model", "number", "empty-model", "cut", "array", "empty", "not-json", "two-models"])
def test_bad_bodies_are_400(daemon, body):
    status, answer = daemon.post_json("/v1/chat/completions", body)
    assert status == 400, answer
    assert answer["error"]["message"]
    assert daemon.get("/health")[0] == 200


def test_unknown_path_and_wrong_method(daemon):
    status, answer = daemon.get_json("/v1/nothing")
    assert status == 404 and answer["error"]["message"]
    status, answer = daemon.get_json("/v1/chat/completions")
    assert status == 405 and answer["error"]["message"]


def test_a_body_past_the_limit_is_413_that_names_it(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)], config={"limits": {"max_body": "64KiB"}}).start()
    status, answer = d.post_json("/v1/chat/completions", {"model": "tiny-a", "prompt": "x" * 100_000})
    assert status == 413, answer
    assert "64" in answer["error"]["message"]
    # announced only: refused before the body is sent
    with d.wire() as w:
        w.send_raw(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
        assert w.head() == 413
    # chunked, without a length
    with d.wire() as w:
        w.send_raw(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            w.send_raw(b'15\r\n{"prompt": "the same \r\n')
            for _ in range(20):
                w.send_raw(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
        except OSError:
            pass
        assert w.head() == 413
    assert d.chat("tiny-a")[0] == 200
    d.stop()


@pytest.mark.parametrize("raw", [
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /health HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
    b"POST /v1/completions HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GARBAGE\r\n\r\n",
], ids=["length-and-chunked", "no-host", "two-hosts", "version", "connect", "chunked-1.0", "garbage"])
def test_malformed_requests_are_refused(daemon, raw):
    with daemon.wire() as w:
        w.send_raw(raw)
        status = w.head()
        assert 400 <= status <= 505 and status not in (404, 499, 500), status
    assert daemon.get("/health")[0] == 200
