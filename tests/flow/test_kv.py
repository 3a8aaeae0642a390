"""Conversations that go on after their instance was swapped away, with the real llama-server and a real model."""
import json
import os
import pathlib

import pytest

from lib.wire import wait_for

FACTS = " ".join(f"Fact {i}: the mule called Number {i} carried {i * 7 % 90 + 10} kilograms of salt." for i in range(20))
CONFIG = {"defaults": {"ctx": 4096, "extra_args": ["--threads", "1"]}}


def turn(d, model, messages, **more):
    body = {"model": model, "messages": messages, "max_tokens": 8, "temperature": 0, **more}
    status, answer = d.post_json("/v1/chat/completions", body, timeout=300)
    assert status == 200, answer
    return answer["choices"][0]["message"]["content"], answer["usage"]


def cached(usage):
    return usage["prompt_tokens_details"]["cached_tokens"]


def begin(d, model):
    """A first turn; returns the messages of the second one and the tokens that a state of the first has."""
    messages = [{"role": "user", "content": FACTS + " What did Number 5 carry?"}]
    text, usage = turn(d, model, messages)
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "And Number 6?"}]
    return messages, usage["prompt_tokens"]


def swap_away(d, model):
    d.cli("unload", model)
    wait_for(lambda: not d.instances(model), 60, 0.05, "the end of the instance")


def files(d):
    return sorted(pathlib.Path(d.state_dir, "kv").glob("*.kv"))


@pytest.fixture
def real(make_daemon, folder, smollm):
    d = make_daemon([folder(smollm)], config=CONFIG).start()
    name = os.path.basename(smollm).removesuffix(".gguf").lower()
    status, models = d.get_json("/v1/models")
    assert status == 200
    model = next(m["id"] for m in models["data"] if m["id"].lower() == name)
    return d, model


def test_the_next_turn_is_not_read_anew(real):
    d, model = real
    messages, tokens = begin(d, model)
    assert tokens > 350
    without, _ = turn(d, model, messages)  # what the same server says without a swap
    swap_away(d, model)
    assert len(files(d)) == 1
    assert os.stat(files(d)[0].parent).st_mode & 0o777 == 0o700
    text, usage = turn(d, model, messages)
    assert cached(usage) >= tokens - 16, usage
    assert text == without
    assert d.metric("arriero_kv_saved_total") == 1
    assert d.metric("arriero_kv_restored_total") == 1
    assert d.metric("arriero_kv_hit_tokens_total") >= tokens - 16
    kv = d.instance(model)["kv"]
    assert kv["kept"] is True and kv["why_not"] is None and kv["restored"] == 1 and kv["hit_tokens"] >= tokens - 16
    why = d.cli("why", model).stdout
    assert "was read back" in why and "is kept" in why, why
    # it goes on in the same instance, and a stream does too
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "And Number 7?"}]
    _, usage = turn(d, model, messages)
    assert cached(usage) >= tokens
    d.stop()


def test_a_restart_of_the_daemon_loses_nothing(real):
    d, model = real
    messages, tokens = begin(d, model)
    d.stop()
    assert len(files(d)) == 1
    d.start()
    _, usage = turn(d, model, messages)
    assert cached(usage) >= tokens - 16, usage
    d.stop()


def test_a_damaged_file_costs_only_time(real):
    d, model = real
    messages, tokens = begin(d, model)
    swap_away(d, model)
    with open(files(d)[0], "r+b") as f:
        f.seek(os.path.getsize(f.name) // 2)
        f.write(b"spoiled by a disk")
    _, usage = turn(d, model, messages)
    assert cached(usage) < tokens // 2
    assert files(d) == []
    assert d.metric("arriero_kv_failures_total") == 1
    assert "is damaged" in d.cli("why", model).stdout
    d.stop()


def test_other_conversations_are_not_mixed_up(make_daemon, folder, smollm):
    d = make_daemon([folder(smollm)], config={"defaults": {**CONFIG["defaults"], "ctx": 16384}}).start()
    model = d.get_json("/v1/models")[1]["data"][0]["id"]
    messages, tokens = begin(d, model)
    other = [{"role": "user", "content": "Of another train. " + FACTS + " What is this?"}]
    text, usage = turn(d, model, other)
    swap_away(d, model)
    assert len(files(d)) == 2
    other += [{"role": "assistant", "content": text}, {"role": "user", "content": "Why?"}]
    _, second = turn(d, model, other)
    assert cached(second) >= usage["prompt_tokens"] - 16, second
    _, first = turn(d, model, messages)
    assert cached(first) >= tokens - 16, first
    fresh = [{"role": "user", "content": "Say something else. " * 20}]
    _, new = turn(d, model, fresh)
    assert cached(new) < 40  # the template's own beginning
    d.stop()


def test_the_quota_and_switching_off(make_daemon, folder, smollm):
    d = make_daemon([folder(smollm)], config={**CONFIG, "kv": {"quota": "1MiB"}}).start()
    model = d.get_json("/v1/models")[1]["data"][0]["id"]
    begin(d, model)
    swap_away(d, model)
    assert files(d) == []
    d.stop()
    d.write_config({**CONFIG, "models": {model: {"kv_keep": "off"}}})
    d.start()
    begin(d, model)
    assert "--slot-save-path" not in d.instance(model)["argv"]
    assert d.instance(model)["kv"] == {"kept": False, "why_not": "it is switched off for this model", "saved": 0,
                                       "restored": 0, "hit_tokens": 0}
    swap_away(d, model)
    assert files(d) == []
    d.stop()


def test_a_sliding_window_is_never_tried(make_daemon, folder, shelf, wrapper, fake_llama):
    window = shelf.make("window.gguf", name="Window", arch="gemma2", seed=9)
    d = make_daemon([folder(window)], config=CONFIG, runtime=wrapper(f'exec {fake_llama} fin "$@"')).start()
    d.cli("load", "window")
    instance = d.instance("window")
    assert instance["kv"]["kept"] is False and "sliding-window" in instance["kv"]["why_not"]
    assert "--slot-save-path" not in instance["argv"]
    d.stop()


def test_two_daemons_do_not_share_a_folder(make_daemon, folder, tiny, tmp_path):
    config = {**CONFIG, "kv": {"dir": str(tmp_path / "kept")}}
    first = make_daemon([folder(tiny)], config=config).start()
    second = make_daemon([folder(tiny)], config=config).start()
    assert not any("conversations are not kept" in w for w in first.get_json("/status")[1]["warnings"])
    warnings = second.get_json("/status")[1]["warnings"]
    assert any("another daemon keeps its conversations in" in w for w in warnings), warnings
    assert second.chat("tiny-a")[0] == 200
    assert json.loads(second.cli("ps", "--json").stdout)
    second.stop()
    first.stop()
