"""What bad input gets: a named error with a hint, nothing leaked, the daemon alive."""
import os
import socket

import pytest

from lib import procs
from lib.wire import BrokenStream, wait_for

def alive_and_sorry(d, model, statuses=(500, 502, 503)):
    """The request fails as JSON with a message and a hint; the daemon answers on."""
    status, answer = d.chat(model)
    assert status in statuses, (status, answer)
    assert model in answer["error"]["message"] and answer["error"]["hint"], answer
    assert d.get("/health")[0] == 200
    return answer["error"]


def test_port_in_use(make_daemon, folder, tiny):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(1)
        port = s.getsockname()[1]
        d = make_daemon([folder(tiny)], port=port).spawn()
        assert d.wait(20) == 1
    assert str(port) in d.log() and "in use" in d.log().lower()
    assert "hint" in d.log().lower()
    assert not os.path.exists(d.socket), "the control socket is not left behind"


def test_second_daemon_on_the_same_socket(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)]).start()
    second = make_daemon([folder(tiny)])
    second.socket = d.socket
    second.spawn()
    assert second.wait(20) == 1
    assert d.socket in second.log() or "already" in second.log()
    assert d.cli("status", check=0)
    d.stop()


def test_bad_listen_address(make_daemon):
    d = make_daemon([])
    d.args = ["--listen", "nonsense"]
    d.spawn()
    assert d.wait(20) in (1, 2)
    assert "nonsense" in d.log()


def test_no_llama_server(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)], runtime=None, env={"PATH": "/nonexistent"}).start()
    error = alive_and_sorry(d, "tiny-a")
    assert "no llama-server" in error["message"] and "install" in error["hint"], error
    wait_for(lambda: "no llama-server" in d.log(), 10, 0.05, "the log saying so")
    d.stop()


def test_a_runtime_path_that_is_not_there(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)], runtime="/nonexistent/llama-server").start()
    assert "/nonexistent/llama-server" in alive_and_sorry(d, "tiny-a")["message"]
    wait_for(lambda: "/nonexistent/llama-server" in d.log(), 10, 0.05, "the log saying so")
    d.stop()


def test_llama_server_that_exits_at_once(make_daemon, folder, tiny, wrapper):
    bad = wrapper('echo "error: the oven is cold" >&2; exit 3')
    d = make_daemon([folder(tiny)], runtime=bad).start()
    assert "the oven is cold" in alive_and_sorry(d, "tiny-a")["message"]
    assert "the oven is cold" in d.cli("logs", "tiny-a", check=0).stdout
    assert [i["state"] for i in d.instances("tiny-a")] == ["failed"]
    assert "the oven is cold" in d.cli("why", "tiny-a", check=0).stdout
    # back-off: an immediate second request is refused at once, with the cause
    assert "the oven is cold" in alive_and_sorry(d, "tiny-a")["message"]
    assert d.metric("arriero_load_failures_total") == 1
    d.stop()


def test_llama_server_that_is_false(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)], runtime="/bin/false").start()
    assert "/bin/false" in alive_and_sorry(d, "tiny-a")["message"]
    d.stop()


def test_llama_server_that_hangs_before_ready(make_daemon, folder, tiny, wrapper):
    bad = wrapper("exec sleep 600")
    d = make_daemon([folder(tiny)], runtime=bad, config={"limits": {"load_timeout": "2s", "stop_timeout": "1s"}}).start()
    d.remember_children()
    assert "no progress" in alive_and_sorry(d, "tiny-a", (502, 503, 504))["message"]
    wait_for(lambda: not procs.descendants(d.process.pid), 10, 0.05, "the hanging runtime's end")
    d.stop()


def test_client_that_leaves_during_a_load_leaves_no_mess(make_daemon, folder, tiny, wrapper):
    late = wrapper('sleep 1; exec "$REAL" "$@"')
    d = make_daemon([folder(tiny)], runtime=late).start()
    with d.wire() as w:
        w.request("POST", "/v1/completions", {"model": "tiny-a", "prompt": "x", "max_tokens": 2})
        w.reset()
    assert d.chat("tiny-a")[0] == 200
    assert d.metric("arriero_loads_total") == 1
    d.stop()


def test_llama_server_that_dies_mid_stream(make_daemon, folder, tiny, wrapper, fake_llama):
    d = make_daemon([folder(tiny)], runtime=wrapper(f'exec {fake_llama} die "$@"')).start()
    with d.wire() as w:
        w.request("POST", "/v1/chat/completions", {"model": "tiny-a", "messages": [], "stream": True})
        assert w.head() == 200
        got = []
        with pytest.raises((BrokenStream, ConnectionError)):
            for e in w.events():
                got.append(e)
    assert got and "[DONE]" not in got
    assert d.get("/health")[0] == 200
    d.stop()


@pytest.mark.parametrize("how", ["fin", "short"])
def test_truncated_answers_are_passed_on_as_broken(make_daemon, folder, tiny, wrapper, fake_llama, how):
    """A FIN inside a chunked answer, or before Content-Length is reached, is never success."""
    d = make_daemon([folder(tiny)], runtime=wrapper(f'exec {fake_llama} {how} "$@"')).start()
    with d.wire() as w:
        w.request("POST", "/v1/chat/completions", {"model": "tiny-a", "messages": [], "stream": how == "fin"})
        try:
            status = w.head()
        except (BrokenStream, ConnectionError):
            status = None
        if status == 200:
            with pytest.raises((BrokenStream, ConnectionError)):
                w.body()
        else:
            assert status in (None, 502)
    d.stop()


def test_truncated_and_hostile_files_do_not_hide_the_good_ones(make_daemon, folder, tiny, tiny_b, tmp_path):
    models = folder(tiny)
    whole = tiny_b.read_bytes()
    (models / "cut-header.gguf").write_bytes(whole[:100])
    (models / "cut-tensors.gguf").write_bytes(whole[:len(whole) // 2])
    (models / "empty.gguf").write_bytes(b"")
    (models / "not-one.gguf").write_bytes(b"GGML" + b"\xff" * 4096)
    (models / "huge-counts.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 16)
    d = make_daemon([models]).start()
    assert d.chat("tiny-a")[0] == 200
    served = [m["id"] for m in d.get_json("/v1/models")[1]["data"]]
    assert "tiny-a" in served
    for bad in ("cut-header", "empty", "not-one", "huge-counts", "cut-tensors"):
        status, answer = d.chat(bad)
        message = answer["error"]["message"]
        assert status == 404 and f'"{bad}" was found but is not served' in message, (bad, status, answer)
        assert message.count(f"{bad}.gguf") == 1 and answer["error"]["hint"], answer
        status, answer = d.get_json(f"/v1/models/{bad}")
        assert status == 404 and answer["error"]["message"] == message, (bad, answer)
        assert f"{bad}.gguf" in d.cli("load", bad, check=1).stderr
        wait_for(lambda: f"{bad}.gguf" in d.log(), 10, 0.05, f"the reason for {bad} in the log")  # noqa: B023
    listed = d.cli("models", str(models), "--json", check=0)
    assert "tiny-a" in listed.stdout
    r = d.cli("estimate", str(models / "cut-header.gguf"), "--ctx", "512")
    assert r.returncode == 1 and r.stderr.strip() and not r.stdout.strip()
    d.stop()


def test_unreadable_directory_is_said(make_daemon, folder, tiny):
    good = folder(tiny)
    d = make_daemon([good, "/nonexistent/models"]).start()
    wait_for(lambda: "cannot read /nonexistent/models: No such file" in d.log(), 10, 0.01, "the warning")
    assert d.chat("tiny-a")[0] == 200
    d.stop()


def test_no_model_at_all(make_daemon, tmp_path):
    d = make_daemon([tmp_path]).start()
    assert d.get_json("/v1/models")[1]["data"] == []
    assert d.chat("anything")[0] == 404
    d.stop()


def test_wrong_key_in_the_configuration(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)], config="listen: 127.0.0.1:1\nbugdet:\n  host: 600MiB\n").spawn()
    assert d.wait(20) in (1, 2)
    log = d.log()
    assert "bugdet" in log and "budget" in log, log
    assert "arriero.yaml:2" in log, "file and line are named: " + log


def test_wrong_type_in_the_configuration(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)], config="budget:\n  host: lots\n").spawn()
    assert d.wait(20) in (1, 2)
    assert "arriero.yaml:2" in d.log() and "lots" in d.log(), d.log()
    r = d.cli("config", "check", d.config_path)
    assert r.returncode == 1 and "arriero.yaml:2" in r.stdout + r.stderr


def test_a_missing_configuration_file(make_daemon):
    d = make_daemon([])
    d.config_path = "/nonexistent/arriero.yaml"
    d.spawn()
    assert d.wait(20) in (1, 2)
    assert "/nonexistent/arriero.yaml" in d.log()


def test_commands_without_a_daemon(make_daemon):
    d = make_daemon([])
    for command in (["ps"], ["status"], ["load", "x"]):
        r = d.cli(*command)
        assert r.returncode == 1, command
        assert "hint" in r.stderr and "serve" in r.stderr, r.stderr
