"""Starting, stopping, reloading and dying: the daemon, its instances, its history."""
import json
import os
import signal
import socket
import threading
import time

from lib import procs
from lib.wire import BrokenStream, fetch_json, wait_for


# Each takes 45 MiB, or 34 with the smallest cache type: one fits, and not two.
BUDGET_OF_ONE = {"budget": {"Host": "64MiB"}, "defaults": {"ctx": 4096, "extra_args": ["--threads", "1"]}}


def ask_stream(d, model, tokens=400):
    w = d.wire()
    w.request("POST", "/v1/completions", {"model": model, "prompt": "go on", "max_tokens": tokens, "stream": True, "ignore_eos": True})
    assert w.head() == 200
    return w


def test_health_status_metrics(daemon):
    assert daemon.get_json("/health") [1]["status"] == "ok"
    status, s = daemon.get_json("/status")
    assert status == 200 and s.get("version")
    status, head, text = daemon.get("/metrics")
    assert status == 200 and head["content-type"].startswith("text/plain")
    assert b"arriero_" in text and b"# TYPE" in text


def test_twenty_clients_cause_one_load(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)]).start()
    barrier, answers = threading.Barrier(20), []

    def ask(i):
        barrier.wait(30)
        answers.append(d.chat("tiny-a", f"client {i}")[0])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert answers == [200] * 20
    assert d.metric("arriero_loads_total") == 1
    assert len(d.instances("tiny-a")) == 1
    d.stop()


def test_two_models_take_turns_within_a_budget(make_daemon, folder, slow, slow_b):
    d = make_daemon([folder(slow, slow_b)], config=BUDGET_OF_ONE).start()
    for model in ("slow", "slow-b", "slow", "slow-b"):
        status, answer = d.chat(model)
        assert status == 200, answer
        ready = [i["model"] for i in d.instances() if i["state"] == "ready"]
        assert ready == [model], "the budget holds one"
    assert d.metric("arriero_loads_total") == 4
    assert d.metric("arriero_evictions_total") == 3
    assert "to make room" in d.cli("why", "slow", check=0).stdout
    d.stop()


def test_a_busy_model_is_not_evicted(make_daemon, folder, slow, slow_b):
    d = make_daemon([folder(slow, slow_b)], config=BUDGET_OF_ONE).start()
    w = ask_stream(d, "slow", 1500)
    events = w.events()
    next(events)
    other = []
    t = threading.Thread(target=lambda: other.append(d.chat("slow-b")))
    t.start()
    wait_for(lambda: other or d.metric("arriero_queue_waiting") == 1, 20, 0.01, "the second model's request being in line")
    assert not other and d.instance("slow")["busy"] == 1
    rest = list(events)
    assert rest[-1] == "[DONE]", "the running answer was finished"
    t.join(120)
    assert other and other[0][0] == 200, other
    assert d.metric("arriero_evictions_total") == 1
    w.close()
    d.stop()


def test_a_model_beyond_the_budget_is_refused_with_reasons(make_daemon, folder, slow):
    d = make_daemon([folder(slow)], config={"budget": {"Host": "20MiB"}}).start()
    status, answer = d.chat("slow")
    assert status == 507, answer
    assert "RAM needs" in answer["error"]["message"] and "20.0 MiB" in answer["error"]["message"], answer
    assert answer["error"]["hint"]
    assert d.get("/health")[0] == 200
    assert not [i for i in d.instances() if i["state"] == "ready"]
    d.stop()


def test_backend_killed_mid_stream_breaks_the_stream_and_the_next_request_works(make_daemon, folder, slow, one_thread):
    d = make_daemon([folder(slow)], config=one_thread).start()
    w = ask_stream(d, "slow", 20000)
    events = w.events()
    first = next(events)
    assert json.loads(first)
    pid = d.instance("slow")["pid"]
    procs.kill(pid)
    got = []
    broken = False
    try:
        for e in events:
            got.append(e)
    except (BrokenStream, ConnectionError):
        broken = True
    assert broken, "the stream ended as if it were whole"
    assert "[DONE]" not in got
    status, answer = d.chat("slow")
    assert status == 200, answer
    assert d.instance("slow")["pid"] != pid
    d.stop()


def test_backend_killed_while_idle_is_noticed(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)]).start()
    assert d.chat("tiny-a")[0] == 200
    pid = d.instance("tiny-a")["pid"]
    procs.kill(pid)
    wait_for(lambda: not [i for i in d.instances() if i["state"] == "ready" and i["pid"] == pid], 10, 0.05, "the death being noticed")
    assert d.chat("tiny-a")[0] == 200
    d.stop()


def test_daemon_killed_leaves_no_llama_server(make_daemon, folder, tiny, tiny_b):
    d = make_daemon([folder(tiny, tiny_b)]).start()
    assert d.chat("tiny-a")[0] == 200
    assert d.chat("tiny-b")[0] == 200
    pids = {i["pid"]: procs.start_time(i["pid"]) for i in d.instances()}
    assert len(pids) == 2
    d.kill()
    d.children.update(pids)
    d.assert_no_child(10)


def test_daemon_killed_starts_again_on_the_same_socket_and_history(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)]).start()
    assert d.chat("tiny-a")[0] == 200
    d.kill()
    d.assert_no_child(10)
    d.start()
    assert d.chat("tiny-a")[0] == 200
    assert d.cli("why", "tiny-a", check=0).stdout.strip()
    d.stop()


def test_sigterm_lets_a_running_answer_finish(make_daemon, folder, slow, one_thread):
    d = make_daemon([folder(slow)], config=one_thread).start()
    w = ask_stream(d, "slow", 120)
    events = w.events()
    next(events)
    d.remember_children()
    assert d.children
    d.process.send_signal(signal.SIGTERM)
    rest = list(events)
    assert rest[-1] == "[DONE]"
    w.close()
    assert d.wait(30) == 0
    d.assert_no_child()
    d.check_log()


def test_a_second_sigterm_hurries(make_daemon, folder, slow, one_thread):
    d = make_daemon([folder(slow)], config=one_thread).start()
    w = ask_stream(d, "slow", 20000)
    next(w.events())
    d.remember_children()
    d.process.send_signal(signal.SIGTERM)
    # refused from the moment the listener is closed: then the first signal has been taken
    wait_for(lambda: not can_connect(d.port), 10, 0.02, "the closing of the listener")
    d.process.send_signal(signal.SIGTERM)
    d.wait(15)
    w.close()
    d.assert_no_child()
    d.check_log()


def can_connect(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def test_sigint_stops_it_too(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)]).start()
    assert d.chat("tiny-a")[0] == 200
    d.stop(sig=signal.SIGINT)


def test_sigterm_during_a_load(make_daemon, folder, tiny, wrapper):
    hang = wrapper("exec sleep 600")
    d = make_daemon([folder(tiny)], runtime=hang).start()
    answer = []
    t = threading.Thread(target=lambda: answer.append(safe(lambda: d.chat("tiny-a"))))
    t.start()
    wait_for(lambda: d.instances("tiny-a"), 10, 0.05, "the load being under way")
    d.stop()
    t.join(30)
    assert not t.is_alive()


def safe(f):
    try:
        return f()
    except Exception as e:  # noqa: BLE001 - any end is right for the caller
        return e


def test_sighup_reloads_and_leaves_untouched_models_alone(make_daemon, folder, tiny, tiny_b):
    config = {"models": {"tiny-a": {"ctx": 512}, "tiny-b": {"ctx": 512}}}
    d = make_daemon([folder(tiny, tiny_b)], config=config).start()
    assert d.chat("tiny-a")[0] == 200 and d.chat("tiny-b")[0] == 200
    a, b = d.instance("tiny-a")["pid"], d.instance("tiny-b")["pid"]
    config["models"]["tiny-b"]["ctx"] = 1024
    config["models"]["tiny-a"]["aliases"] = ["smallest"]
    del config["models"]["tiny-a"]["aliases"]
    d.write_config(config)
    d.process.send_signal(signal.SIGHUP)
    wait_for(lambda: not [i for i in d.instances() if i["pid"] == b and i["state"] == "ready"], 15, 0.05,
             "the changed model being stopped")
    assert d.instance("tiny-a")["pid"] == a
    assert d.chat("tiny-b")[0] == 200
    assert d.instance("tiny-b")["pid"] != b
    # a broken file changes nothing
    d.write_config("models: [")
    d.process.send_signal(signal.SIGHUP)
    assert d.chat("tiny-a")[0] == 200
    assert d.instance("tiny-a")["pid"] == a
    d.stop()


def test_sighup_finds_new_files(make_daemon, folder, tiny, tiny_b):
    models = folder(tiny)
    d = make_daemon([models]).start()
    assert d.chat("tiny-b")[0] == 404
    os.link(tiny_b, models / "tiny-b.gguf")
    d.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "tiny-b" in [m["id"] for m in d.get_json("/v1/models")[1]["data"]], 10, 0.05, "the new file")
    assert d.chat("tiny-b")[0] == 200
    d.stop()


def test_corrupt_history_is_moved_aside(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)]).start()
    assert d.chat("tiny-a")[0] == 200
    d.stop()
    files = [f for f in os.listdir(d.state_dir) if f.endswith(".db")]
    assert files, os.listdir(d.state_dir)
    path = os.path.join(d.state_dir, files[0])
    for extra in ("-wal", "-shm"):
        if os.path.exists(path + extra):
            os.unlink(path + extra)
    with open(path, "r+b") as f:
        f.write(b"this is not a database" * 200)
    d.start()
    assert d.chat("tiny-a")[0] == 200
    assert [f for f in os.listdir(d.state_dir) if "corrupt" in f], os.listdir(d.state_dir)
    d.stop()


def test_history_that_cannot_be_written_is_said_and_nothing_stops(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)])
    with open(d.state_dir, "w", encoding="utf-8"):
        pass  # a file where the folder should be: nobody, not even root, can write below it
    d.start()
    assert d.chat("tiny-a")[0] == 200
    assert "history" in (d.log() + json.dumps(d.get_json("/status")[1])).lower()
    d.stop()


def test_control_socket_answers_and_is_private(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)]).start()
    assert os.stat(d.socket).st_mode & 0o077 == 0
    assert fetch_json(d.socket, "GET", "/api/arriero/v1/status")[0] == 200
    assert d.get("/api/arriero/v1/status")[0] in (401, 403, 404), "the control API is not on TCP"
    for path in ("/gpus", "/models", "/instances", "/decisions", "/requests"):
        status, _ = d.control("GET", path)
        assert status == 200, path
    status, plan = d.control("POST", "/plan", {"model": "tiny-a"})
    assert status == 200 and plan
    assert d.control("POST", "/load", {"model": "tiny-a"})[0] == 200
    assert d.instance("tiny-a")
    assert d.control("POST", "/unload", {"model": "tiny-a"})[0] == 200
    wait_for(lambda: not [i for i in d.instances("tiny-a") if i["state"] == "ready"], 10, 0.05, "the unload")
    assert d.control("POST", "/load", {"model": "nothing-like-it"})[0] == 404
    d.stop()


def test_idle_unload(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)], config={"models": {"tiny-a": {"ttl": "1s"}}}).start()
    assert d.chat("tiny-a")[0] == 200
    start = time.monotonic()
    wait_for(lambda: not [i for i in d.instances() if i["state"] in ("ready", "draining")], 15, 0.1, "the idle model's end")
    assert time.monotonic() - start > 0.5
    d.stop()
