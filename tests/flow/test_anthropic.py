"""The official anthropic client against the daemon, with the real llama-server behind it."""
import os
import shutil

import anthropic
import pytest

from lib.daemon import Daemon
from lib.wire import wait_for

ASK = {"max_tokens": 8, "messages": [{"role": "user", "content": "Say hello"}],
       "extra_body": {"temperature": 0, "seed": 1, "cache_prompt": False}}
TOOL = {"name": "weather", "description": "The weather in a city.",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}


def records(d):
    return [r for r in d.control("GET", "/requests")[1]["requests"] if r["path"] == "/v1/messages"]


def client(d, key="none"):
    return anthropic.Anthropic(base_url=f"http://127.0.0.1:{d.port}", api_key=key, max_retries=0, timeout=120)


# What llama-server speaks itself is relayed; what it is not asked in is translated at the door.
DIALECTS = {"relayed": {}, "translated": {"runtime": {"dialects": ["openai", "llamacpp"]}}}


@pytest.fixture(scope="module", params=DIALECTS)
def door(request, arriero_bin, llama_server, shelf):
    folder = f"{shelf.root}/anthropic"
    os.makedirs(folder, exist_ok=True)
    shutil.copy(shelf.make("tiny-a.gguf", name="Tiny A", seed=1), folder)
    config = {"defaults": {"extra_args": ["--threads", "1"]}, **DIALECTS[request.param]}
    with Daemon(arriero_bin, [folder], llama_server, config=config) as d:
        yield d


@pytest.fixture(params=DIALECTS)
def real(request, make_daemon, folder, smollm, one_thread):
    """A model whose answers begin with a whole character: llama-server leaves out message_start where they do not."""
    d = make_daemon([folder(smollm)], config={**one_thread, **DIALECTS[request.param]}).start()
    yield d, d.openai().models.list().data[0].id
    d.stop()


def test_a_message(door):
    m = client(door).messages.create(model="tiny-a", system="Be brief.", **ASK)
    assert m.type == "message" and m.role == "assistant" and m.model == "tiny-a"
    assert m.stop_reason in ("max_tokens", "end_turn")
    assert m.usage.input_tokens > 0 and 0 < m.usage.output_tokens <= 8
    assert all(block.type == "text" for block in m.content)


def test_a_streamed_message_is_the_plain_one(real):
    d, model = real
    c = client(d)
    plain = c.messages.create(model=model, **ASK)
    with c.messages.stream(model=model, **ASK) as s:
        kinds = [event.type for event in s]
        final = s.get_final_message()
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop" and "content_block_delta" in kinds
    assert final.stop_reason == plain.stop_reason and final.usage.output_tokens == plain.usage.output_tokens
    assert [b.text for b in final.content] == [b.text for b in plain.content]
    one = c.messages.count_tokens(model=model, messages=ASK["messages"]).input_tokens
    wait_for(lambda: len(records(d)) == 2, 10, 0.05, "the records")
    for row in records(d):
        assert row["outcome"] == "ok" and row["completion_tokens"] == final.usage.output_tokens
        assert row["prompt_tokens"] == one


def test_tokens_are_counted(door):
    c = client(door)
    one = c.messages.count_tokens(model="tiny-a", messages=ASK["messages"]).input_tokens
    more = c.messages.count_tokens(model="tiny-a", messages=ASK["messages"], tools=[TOOL]).input_tokens
    assert 0 < one <= more
    usage = c.messages.create(model="tiny-a", **ASK).usage
    assert usage.input_tokens + usage.cache_read_input_tokens == one


def test_a_conversation_with_a_tool(door):
    """Its definition, its call and its result are taken; what a random model answers is its own affair."""
    m = client(door).messages.create(model="tiny-a", max_tokens=4, tools=[TOOL], messages=[
        {"role": "user", "content": "Weather in Paris?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "Rain"}]}])
    assert m.type == "message" and m.usage.output_tokens > 0


def test_errors_are_of_the_dialect(door):
    with pytest.raises(anthropic.NotFoundError) as e:
        client(door).messages.create(model="nothing-like-it", **ASK)
    assert e.value.body["type"] == "error" and e.value.body["error"]["type"] == "not_found_error"
    assert "nothing-like-it" in e.value.body["error"]["message"]
    with pytest.raises(anthropic.BadRequestError):
        client(door).messages.create(model="tiny-a", max_tokens=4, messages=[{"role": "user", "content": "word " * 20000}])


def test_keys_are_taken_as_the_client_sends_them(make_daemon, folder, tiny, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("sesame\n")
    keys.chmod(0o600)
    d = make_daemon([folder(tiny)], config={"api_keys_file": str(keys)}).start()
    with pytest.raises(anthropic.AuthenticationError) as e:
        client(d, "wrong").messages.create(model="tiny-a", **ASK)
    assert e.value.body["error"]["type"] == "authentication_error"
    assert client(d, "sesame").messages.create(model="tiny-a", **ASK).type == "message"
    d.stop()
