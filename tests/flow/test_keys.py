"""API keys from outside: made and revoked on the command line, with and without a daemon, used by the official client."""
import json
import subprocess

import openai
import pytest

from lib.wire import fetch

# a random model may well end its answer at the first token
ASK = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, "extra_body": {"ignore_eos": True}}


def arriero(d, *args, code=0):
    run = subprocess.run([d.binary, *args], env=d.env, capture_output=True, text=True, timeout=60)
    assert run.returncode == code, (args, run.stdout, run.stderr)
    return run


def add(d, *args):
    return arriero(d, "key", "add", *args).stdout.strip()


def client(d, key):
    return openai.OpenAI(base_url=d.url + "/v1", api_key=key, max_retries=0)


def test_a_key_from_the_command_line_to_its_end(make_daemon, folder, tiny, tiny_b):
    d = make_daemon([folder(tiny, tiny_b)]).start()
    assert d.get("/v1/models")[0] == 200  # no key, none needed
    ada = add(d, "ada", "--model", "tiny-a*", "--requests-per-minute", "3")
    assert d.get("/v1/models")[0] == 401  # from the moment that there is one
    assert [m.id for m in client(d, ada).models.list()] == ["tiny-a"]
    assert client(d, ada).chat.completions.create(model="tiny-a", **ASK).choices
    with pytest.raises(openai.PermissionDeniedError) as e:
        client(d, ada).chat.completions.create(model="tiny-b", **ASK)
    assert "tiny-b" in str(e.value) and ada[4:12] in str(e.value)
    client(d, ada).chat.completions.create(model="tiny-a", **ASK)
    with pytest.raises(openai.RateLimitError) as e:
        client(d, ada).chat.completions.create(model="tiny-a", **ASK)
    assert 0 < int(e.value.response.headers["retry-after"]) <= 21
    assert e.value.response.headers["x-ratelimit-limit-requests"] == "3"
    assert d.get("/health")[0] == 200
    head = f"Authorization: Bearer {ada}"
    assert fetch(d.where, "GET", "/unload", headers=[head])[0] == 403  # it would stop what others use
    assert json.loads(fetch(d.where, "GET", "/api/tags", headers=[head])[2])["models"][0]["name"] == "tiny-a"
    assert fetch(d.where, "GET", "/slots?model=tiny-b", headers=[head])[0] == 403
    assert fetch(d.where, "GET", "/upstream/tiny-b/props", headers=[head])[0] == 403
    # A spelling that finds a model but begins as the key's pattern does.
    assert fetch(d.where, "GET", "/slots?model=tiny-a/tiny-b", headers=[head])[0] == 403
    assert b"tiny-b" not in fetch(d.where, "GET", "/v1/models/tiny-c", headers=[head])[2]

    listed = json.loads(arriero(d, "key", "list", "--json").stdout)["keys"]
    assert [(k["name"], k["requests"], k["models"]) for k in listed] == [("ada", 3, ["tiny-a*"])]
    assert listed[0]["tokens"] > 0 and "hash" not in listed[0]
    arriero(d, "key", "add", "ada", code=1)
    arriero(d, "key", "revoke", "ada")
    with pytest.raises(openai.AuthenticationError):
        client(d, ada).models.list()
    assert d.get("/v1/models")[0] == 401  # the last key was revoked: that opens nothing
    d.stop()


def test_keys_without_a_daemon(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)])
    ring = d.state_dir + "/keys.json"
    run = arriero(d, "key", "add", "eve", "--file", ring)
    assert "No daemon runs here" in run.stderr and run.stdout.startswith("arr_")
    d.start()
    assert d.get("/v1/models")[0] == 401
    eve = run.stdout.strip()
    assert [m.id for m in client(d, eve).models.list()] == ["tiny-a"]
    with open(ring, encoding="utf-8") as f:
        assert eve[13:] not in f.read()
    d.stop()


def test_the_control_api_over_tcp_is_for_admins(make_daemon, folder, tiny):
    from lib.daemon import free_port

    port = free_port()
    d = make_daemon([folder(tiny)], config={"control_listen": [f"127.0.0.1:{port}"]}).start()
    status = lambda *fields: fetch(("127.0.0.1", port), "GET", "/api/arriero/v1/status", headers=fields)
    assert status()[0] == 401  # even where there is no key at all
    user, admin = add(d, "user"), add(d, "boss", "--scope", "admin")
    assert status(f"Authorization: Bearer {user}")[0] == 403
    assert status(f"Authorization: Bearer {admin}")[0] == 200
    assert d.get("/api/arriero/v1/status")[0] == 404  # not on the data plane's own address
    d.stop()


def test_no_door_stands_open_beyond_loopback(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)], args=["--listen", "0.0.0.0:0"])
    d.spawn()
    assert d.wait(30) == 1
    assert "there are no API keys" in d.log() and "arriero key add" in d.log()
    d.process = None
    add(d, "lan", "--file", d.state_dir + "/keys.json")
    d.start()
    assert d.get("/v1/models")[0] == 401
    d.stop()


def test_the_request_log_by_key(make_daemon, folder, tiny, tiny_b):
    d = make_daemon([folder(tiny, tiny_b)]).start()
    ada, eve = add(d, "ada", "--captures"), add(d, "eve")
    secret = "sk-0123456789abcdef0123"
    said = [{"role": "user", "content": f"my key is {secret} and this is kept"}]
    kept = client(d, ada).chat.completions.with_raw_response.create(
        model="tiny-a", messages=said, max_tokens=4, extra_headers={"X-Request-Id": "kept-1"})
    assert kept.status_code == 200
    list(client(d, eve).chat.completions.create(model="tiny-b", stream=True, extra_headers={"X-Request-Id": "gone-1"},
                                                stream_options={"include_usage": True}, **ASK))
    with pytest.raises(openai.NotFoundError):
        client(d, eve).chat.completions.create(model="nothing-like-it", **ASK)

    def requests(*args):
        return json.loads(arriero(d, "requests", *args, "--json").stdout)

    rows = requests("list")["requests"]
    assert [r["model"] for r in rows][1:] == ["tiny-b", "tiny-a"]
    assert rows[1]["key"] == eve[4:12] and rows[1]["completion_tokens"] == 4 and rows[1]["decode_tps"] > 0
    assert [r["request_id"] for r in requests("--key", "ada")["requests"]] == ["kept-1"]
    assert [r["outcome"] for r in requests("--failed", "--since", "1h")["requests"]] == ["refused"]
    usage = {u["key"]: u for u in requests("sum", "--since", "1h")["usage"]}
    assert usage[ada[4:12]]["requests"] == 1 and usage[eve[4:12]]["requests"] == 2
    assert usage[eve[4:12]]["ok"] == 1 and usage[eve[4:12]]["completion_tokens"] == 4

    shown = requests("show", "kept-1")
    capture = shown["captures"][0]
    assert "this is kept" in capture["request"] and secret not in capture["request"]
    assert "[secret left out]" in capture["request"] and '"choices"' in capture["response"]
    assert requests("show", "gone-1")["captures"] == []  # eve's key allows none
    arriero(d, "requests", "show", "never", code=1)
    assert "TOK/S" in arriero(d, "requests").stdout and "kept" in arriero(d, "requests", "show", "kept-1").stdout
    d.stop()
