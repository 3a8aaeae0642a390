"""Files beside a model, from the configuration to the real llama-server: adapters and a draft."""
import os

import pytest
from lib import tinygguf


@pytest.fixture
def adapter(tmp_path):
    return tinygguf.write_adapter(str(tmp_path / "tone.gguf"))


def answer(d, **more):
    body = {"model": "tiny-a", "prompt": "a b c d", "max_tokens": 24, "temperature": 0, "seed": 1, **more}
    status, a = d.post_json("/v1/completions", body)
    assert status == 200, a
    return a["choices"][0]["text"]


def after(argv, option):
    return argv[argv.index(option) + 1]


def exact(d):
    """What the daemon says of prediction and measurement when the model was loaded."""
    rows = [x["text"] for e in d.control("GET", "/decisions?model=tiny-a")[1]["decisions"] if e["kind"] == "ready"
            for x in e["reasons"] if x["code"] == "measured"]
    assert rows
    assert all("(+0.0 %)" in r for r in rows), rows
    return True


def test_adapters_are_applied_and_counted(make_daemon, folder, tiny, adapter):
    config = {"models": {"tiny-a": {"adapters": [adapter + ":8"]}}}
    with make_daemon([folder(tiny)]) as plain:
        without = answer(plain)
    with make_daemon([folder(tiny)], config=config) as d:
        assert answer(d) != without, "the adapter changes what is written"
        argv = d.instance("tiny-a")["argv"]
        assert after(argv, "--lora-scaled") == adapter + ":8"
        assert exact(d)
        assert "adapter takes" in d.cli("why", "tiny-a", check=0).stdout


def test_a_relative_path_is_taken_from_the_configuration(make_daemon, folder, tiny, adapter):
    d = make_daemon([folder(tiny)], config={"models": {"tiny-a": {"adapters": ["tone.gguf"]}}})
    os.link(adapter, d.dir + "/tone.gguf")
    with d:
        answer(d)
        assert after(d.instance("tiny-a")["argv"], "--lora") == d.dir + "/tone.gguf"


def test_a_draft_by_its_id(make_daemon, folder, tiny, tiny_b):
    """The same model as its own draft: every guess is right, and the answer is the same as without."""
    config = {"models": {"tiny-a": {"draft": "tiny-b", "draft_max": 5, "draft_min": 1}}}
    with make_daemon([folder(tiny)]) as plain:
        without = answer(plain)
    with make_daemon([folder(tiny, tiny_b)], config=config) as d:
        assert answer(d) == without, "a draft changes nothing of the answer"
        argv = d.instance("tiny-a")["argv"]
        assert after(argv, "--model-draft").endswith("/tiny-b.gguf")
        assert after(argv, "--spec-draft-n-max") == "5" and after(argv, "--spec-draft-n-min") == "1"
        assert exact(d)
        assert "guesses up to 5 tokens ahead" in d.cli("why", "tiny-a", check=0).stdout
        plan = d.control("POST", "/plan", {"model": "tiny-a"})[1]
        assert plan["devices"][-1]["draft_bytes"] > 0


def test_an_adapter_of_another_model_is_refused_by_name(make_daemon, folder, tiny, tmp_path):
    wrong = tinygguf.write_adapter(str(tmp_path / "wrong.gguf"), embd=128)
    with make_daemon([folder(tiny)], config={"models": {"tiny-a": {"adapters": [wrong]}}}) as d:
        status, a = d.post_json("/v1/completions", {"model": "tiny-a", "prompt": "a"})
        assert status == 502 or status == 503, (status, a)
        assert "wrong.gguf" in a["error"]["message"]
