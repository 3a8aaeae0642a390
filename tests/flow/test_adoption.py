"""Instances that outlive the daemon: left, found again, taken over or stopped; and reloads that touch only what changed."""
import contextlib
import glob
import json
import os
import signal
import threading

import pytest

from lib import procs
from lib.wire import wait_for

DETACH = {"detach": True, "defaults": {"ctx": 512, "extra_args": ["--threads", "1"]}}


@pytest.fixture
def leftovers():
    """{pid: start time} of servers that must not stay when a test fails."""
    pids = {}
    yield pids
    for pid, started in pids.items():
        if procs.alive(pid, started):
            procs.kill(pid)


def served_by(d, model, leftovers):
    """The instance that has answered, remembered for the end."""
    status, answer = d.chat(model)
    assert status == 200, answer
    i = d.instance(model)
    leftovers[i["pid"]] = procs.start_time(i["pid"])
    return i


def end(d, sig=signal.SIGTERM):
    """The daemon ends as it should; what it leaves is the test's to look at."""
    d.process.send_signal(sig)
    code = d.wait(40)
    assert code == 0, d.log()[-4000:]
    d.check_log()
    d.process = None


def rows(d):
    return sorted(glob.glob(d.state_dir + "/instances/*"))


def assert_adopted(d, before):
    """The same process serves, and nothing was loaded."""
    status, answer = d.chat(before["model"])
    assert status == 200, answer
    now = d.instance(before["model"])
    assert now["pid"] == before["pid"] and now["adopted"] is True and now["id"] == before["id"], now
    assert d.metric("arriero_loads_total") == 0
    assert now["devices"] == before["devices"], "what it takes is known as before"
    assert now["argv"] == before["argv"] and now["params"] == before["params"]


def told(d, text):
    """In the log, which a thread of ours reads."""
    wait_for(lambda: text in d.log(), 10, 0.02, f"{text!r} in the log")


def all_gone(leftovers):
    left = procs.wait_gone(leftovers, 20)
    assert not left, [procs.cmdline(p) for p in left]


def test_a_new_daemon_takes_over_what_the_last_one_left(make_daemon, folder, tiny, leftovers):
    d = make_daemon([folder(tiny)], config=DETACH).start()
    first = served_by(d, "tiny-a", leftovers)
    assert first["detached"] is True and first["adopted"] is False and len(rows(d)) == 1
    end(d)
    assert procs.alive(first["pid"], leftovers[first["pid"]]), "it was left running"
    d.start()
    assert_adopted(d, first)
    assert "adopted" in d.cli("ps", check=0).stdout
    told(d, "adopt tiny-a")
    assert "earlier daemon" in d.cli("why", "tiny-a", check=0).stdout
    # what it writes is heard again
    d.chat("tiny-a", "once more")
    assert d.cli("logs", "tiny-a", check=0).stdout.strip()
    # and again, by a third one, to which it is nobody's child
    end(d)
    d.start()
    assert_adopted(d, first)
    # it ends as any other
    d.cli("unload", "--all", check=0)
    all_gone(leftovers)
    assert not rows(d)
    assert d.chat("tiny-a")[0] == 200
    served_by(d, "tiny-a", leftovers)
    end(d, signal.SIGINT)
    all_gone(leftovers)
    assert not rows(d)


def test_it_survives_a_daemon_that_is_killed(make_daemon, folder, tiny, tiny_b, leftovers):
    d = make_daemon([folder(tiny, tiny_b)], config=DETACH).start()
    a, b = (served_by(d, m, leftovers) for m in ("tiny-a", "tiny-b"))
    d.process.kill()
    d.process.wait(10)
    d.start()
    assert_adopted(d, a)
    assert_adopted(d, b)
    # one that dies is noticed by a daemon that is not its parent
    procs.kill(a["pid"])
    wait_for(lambda: not d.instances("tiny-a") or d.instances("tiny-a")[0]["state"] != "ready", 10, 0.05, "the death being seen")
    assert d.chat("tiny-a")[0] == 200
    served_by(d, "tiny-a", leftovers)
    end(d, signal.SIGINT)
    all_gone(leftovers)


def test_a_running_answer_is_finished_first(make_daemon, folder, slow, leftovers):
    d = make_daemon([folder(slow)], config=DETACH).start()
    i = served_by(d, "slow", leftovers)
    w = d.wire()
    w.request("POST", "/v1/completions", {"model": "slow", "prompt": "go on", "max_tokens": 100, "stream": True, "ignore_eos": True})
    assert w.head() == 200
    events = w.events()
    next(events)
    d.process.send_signal(signal.SIGTERM)
    assert list(events)[-1] == "[DONE]"
    w.close()
    assert d.wait(30) == 0
    d.process = None
    d.start()
    assert_adopted(d, i)
    end(d, signal.SIGINT)
    all_gone(leftovers)


def test_changed_settings_end_it(make_daemon, folder, tiny, tiny_b, leftovers):
    config = {**DETACH, "models": {"tiny-a": {"ctx": 512}, "tiny-b": {"ctx": 512}}}
    d = make_daemon([folder(tiny, tiny_b)], config=config).start()
    a, b = (served_by(d, m, leftovers) for m in ("tiny-a", "tiny-b"))
    end(d)
    config["models"]["tiny-a"]["ctx"] = 1024
    config["models"]["tiny-b"]["priority"] = 3  # no instance is started with that
    d.write_config(config)
    d.start()
    assert not procs.wait_gone({a["pid"]: leftovers[a["pid"]]}, 20)
    told(d, "settings or file changed")
    assert_adopted(d, b)
    assert d.chat("tiny-a")[0] == 200
    assert served_by(d, "tiny-a", leftovers)["params"]["ctx"] == 1024 * 4 or d.instance("tiny-a")["pid"] != a["pid"]
    end(d, signal.SIGINT)
    all_gone(leftovers)


def test_without_detach_the_next_daemon_ends_what_is_left(make_daemon, folder, tiny, leftovers):
    d = make_daemon([folder(tiny)], config=DETACH).start()
    served_by(d, "tiny-a", leftovers)
    end(d)
    d.write_config({**DETACH, "detach": False})
    d.start()
    all_gone(leftovers)
    told(d, "detach is off")
    assert d.chat("tiny-a")[0] == 200
    d.stop()  # and leaves nothing


def test_a_number_that_is_another_process_is_never_touched(make_daemon, folder, tiny, leftovers):
    d = make_daemon([folder(tiny)], config=DETACH).start()
    i = served_by(d, "tiny-a", leftovers)
    end(d)
    (path,) = rows(d)
    with open(path, encoding="utf-8") as f:
        row = json.load(f)
    row["start_ticks"] += 1
    with open(path, "w", encoding="utf-8") as f:
        json.dump(row, f)
    d.start()
    told(d, "is another one by now and is left alone")
    assert d.chat("tiny-a")[0] == 200
    now = served_by(d, "tiny-a", leftovers)
    assert now["pid"] != i["pid"] and procs.alive(i["pid"], leftovers[i["pid"]])
    assert len(rows(d)) == 1
    end(d, signal.SIGINT)
    assert procs.alive(i["pid"], leftovers[i["pid"]]), "not even at the end"


def test_a_server_that_hangs_is_replaced(make_daemon, folder, tiny, leftovers):
    d = make_daemon([folder(tiny)], config={**DETACH, "limits": {"stop_timeout": "500ms"}}).start()
    i = served_by(d, "tiny-a", leftovers)
    end(d)
    os.kill(i["pid"], signal.SIGSTOP)
    d.start()
    status, answer = d.chat("tiny-a", timeout=60)
    assert status == 200, answer
    assert served_by(d, "tiny-a", leftovers)["pid"] != i["pid"]
    assert not procs.wait_gone({i["pid"]: leftovers[i["pid"]]}, 20)
    told(d, "answers no health check")
    end(d, signal.SIGINT)
    all_gone(leftovers)


def test_one_that_was_loading_is_taken_over_too(make_daemon, folder, tiny, wrapper, leftovers, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    runtime = wrapper(f'read x < {gate}; exec "$REAL" "$@"')
    d = make_daemon([folder(tiny)], runtime=runtime, config=DETACH).start()
    threading.Thread(target=ask_quietly, args=(d,), daemon=True).start()
    i = wait_for(lambda: next((i for i in d.instances("tiny-a") if i["pid"]), None), 20, 0.05, "the load")
    leftovers[i["pid"]] = procs.start_time(i["pid"])
    d.process.kill()
    d.process.wait(10)
    d.start()
    with open(gate, "w", encoding="utf-8") as f:
        f.write("go\n")
    status, answer = d.chat("tiny-a")
    assert status == 200, answer
    assert d.instance("tiny-a")["pid"] == i["pid"]
    end(d, signal.SIGINT)
    all_gone(leftovers)


def ask_quietly(d):
    with contextlib.suppress(Exception):
        d.chat("tiny-a", timeout=20)


def test_two_daemons_never_share_a_state_directory(make_daemon, folder, tiny, leftovers, tmp_path):
    d = make_daemon([folder(tiny)], config=DETACH).start()
    served_by(d, "tiny-a", leftovers)
    other = make_daemon([folder(tiny)], config=DETACH)
    link = tmp_path / "state-by-another-name"
    os.symlink(d.state_dir, link)
    other.state_dir = str(link)
    other.spawn()
    assert other.wait(30) != 0
    assert f"in use by process {d.process.pid}" in other.log() and "--state-dir" in other.log(), other.log()
    # a server that was left holds no lock
    end(d)
    d.start()
    assert d.chat("tiny-a")[0] == 200
    end(d, signal.SIGINT)
    all_gone(leftovers)


def test_a_reload_touches_only_what_an_instance_was_started_with(make_daemon, folder, tiny, tiny_b, one_thread):
    config = {**one_thread, "models": {"tiny-a": {"ctx": 512}, "tiny-b": {"ctx": 512}}}
    d = make_daemon([folder(tiny, tiny_b)], config=config).start()
    assert d.chat("tiny-a")[0] == 200 and d.chat("tiny-b")[0] == 200
    a, b = d.instance("tiny-a")["pid"], d.instance("tiny-b")["pid"]
    door = {"aliases": ["smallest"], "priority": 7, "pin": True, "ttl": "1h", "timeout": "30s", "preload": True,
            "on_disconnect": "drain", "fallback": ["tiny-b"], "instances": 2, "allow_smaller": False, "bpw_floor": 2}
    for key, value in door.items():
        config["models"]["tiny-a"][key] = value
        d.write_config(config)
        reload(d)
        assert d.instance("tiny-a")["pid"] == a, key
    i = d.instance("tiny-a")
    assert i["pinned"] is True and 3_000_000 < i["expires_ms"] <= 3_600_000
    assert d.chat("smallest")[0] == 200 and d.instance("tiny-a")["pid"] == a
    config["models"]["tiny-a"]["ubatch"] = 256
    d.write_config(config)
    reload(d)
    assert d.chat("tiny-a")[0] == 200
    assert d.instance("tiny-a")["pid"] != a and d.instance("tiny-b")["pid"] == b
    d.stop()


def test_a_request_in_flight_outlives_its_instances_settings(make_daemon, folder, slow, one_thread):
    config = {**one_thread, "models": {"slow": {"ctx": 4096}}}
    d = make_daemon([folder(slow)], config=config).start()
    w = d.wire()
    w.request("POST", "/v1/completions", {"model": "slow", "prompt": "go on", "max_tokens": 300, "stream": True, "ignore_eos": True})
    assert w.head() == 200
    events = w.events()
    next(events)
    config["models"]["slow"]["ctx"] = 2048
    d.write_config(config)
    reload(d)
    assert list(events)[-1] == "[DONE]"
    w.close()
    assert d.chat("slow")[0] == 200
    d.stop()


def reload(d):
    before = d.log().count("reloaded:")
    d.process.send_signal(signal.SIGHUP)
    wait_for(lambda: d.log().count("reloaded:") > before, 20, 0.02, "the reload")


def test_an_operators_pin_outlives_a_reload(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)], config={"models": {"tiny-a": {"ctx": 512}}}).start()
    assert d.chat("tiny-a")[0] == 200
    d.cli("pin", "tiny-a", check=0)
    d.write_config({"models": {"tiny-a": {"ctx": 1024}}})
    reload(d)
    assert d.chat("tiny-a")[0] == 200
    assert d.instance("tiny-a")["pinned"] is True
    d.stop()
