"""Ends of a server that nobody asked for, and what follows: causes, back-off, reset, changes of state."""
import json
import os
import signal

from lib.wire import BrokenStream, wait_for


def failed(d, model, seconds=30):
    return d.instance(model, "failed", seconds)


def crash(d, model, signo):
    assert d.chat(model)[0] == 200
    os.kill(d.instance(model)["pid"], signo)
    return failed(d, model)


def reasons(d, model, kind):
    """Of the newest decision of that kind, by code."""
    for decision in d.control("GET", f"/decisions?model={model}&limit=50")[1]["decisions"]:
        if decision["kind"] == kind:
            return {r["code"]: r["text"] for r in decision["reasons"]}
    return None


def crash_reasons(d, model):
    return wait_for(lambda: reasons(d, model, "crash"), 10, 0.05, "the crash in the history")


def test_kill_9_is_told_from_want_of_memory(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)]).start()
    dead = crash(d, "tiny-a", signal.SIGKILL)
    # the kernel's counter is readable everywhere these tests run
    assert dead["failure"] == "signal" and "memory had not run out" in dead["last_error"]["message"], dead["last_error"]
    assert "signal" in crash_reasons(d, "tiny-a")
    assert d.chat("tiny-a")[0] == 200  # once may be bad luck
    d.stop()


def test_a_fault_is_told(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)]).start()
    dead = crash(d, "tiny-a", signal.SIGSEGV)
    assert dead["failure"] == "signal" and "SEGV" in dead["last_error"]["message"], dead["last_error"]
    assert d.chat("tiny-a")[0] == 200
    d.stop()


def test_somebody_elses_sigterm_is_no_unload(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)]).start()
    dead = crash(d, "tiny-a", signal.SIGTERM)
    assert dead["failure"] == "exit" and "arriero did not" in dead["last_error"]["message"], dead["last_error"]
    assert "crashed" in crash_reasons(d, "tiny-a")
    assert d.chat("tiny-a")[0] == 200
    d.stop()


def test_a_limit_of_memory_is_told_and_a_series_is_held_back(make_daemon, folder, tiny, wrapper):
    # enough for the server's own libraries, not for what it does with the model
    d = make_daemon([folder(tiny)], runtime=wrapper('ulimit -v 400000; exec "$REAL" "$@"')).start()
    status, answer = d.chat("tiny-a", timeout=180)
    assert status == 507 and "failed loads" in answer["error"]["message"], answer
    assert "temporarily unavailable" in answer["error"]["message"] or "alloc" in answer["error"]["message"], answer
    assert "memory" in wait_for(lambda: reasons(d, "tiny-a", "fail"), 10, 0.05, "the failure in the history")
    assert "out_of_memory" in reasons(d, "tiny-a", "ladder") and "held_back" in reasons(d, "tiny-a", "refuse")
    assert "no further try for" in d.cli("why", "tiny-a", check=0).stdout
    d.stop()


def test_ps_tells_when_the_next_try_is(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)], config={"models": {"tiny-a": {"extra_args": ["--no-such-option"]}}}).start()

    def fails_again():
        assert d.chat("tiny-a")[0] == 502
        return failed(d, "tiny-a")["failures"] >= 3

    wait_for(fails_again, 60, 0.2, "a pause of 4 s after three failures")
    told = d.cli("ps", check=0).stdout
    assert "next try: in" in told and "arriero reset tiny-a" in told, told
    assert failed(d, "tiny-a")["retry_in_ms"] > 0
    assert "held_back" in reasons(d, "tiny-a", "fail")
    d.stop()


def test_a_refused_argument_and_reset(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)], config={"models": {"tiny-a": {"extra_args": ["--no-such-option"]}}}).start()
    assert d.chat("tiny-a")[0] == 502
    assert failed(d, "tiny-a")["failure"] == "argument"
    assert d.chat("tiny-a")[0] == 502
    assert "held back no longer" in d.cli("reset", "tiny-a", check=0).stdout
    assert "was not held back" in d.cli("reset", "tiny-a", check=0).stdout
    assert d.control("POST", "/reset", {"model": ""})[1]["reset"] == 0
    assert d.control("POST", "/reset", {"model": "nobody"})[0] == 404
    assert "asked" in reasons(d, "tiny-a", "reset")
    d.stop()


def test_a_broken_file_is_told_and_a_mended_one_is_tried_at_once(make_daemon, folder, tiny, wrapper, tmp_path):
    models, broken = folder(tiny), tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and no more")
    # whole to arriero, and broken to the server, as a file may be that is still being copied
    d = make_daemon([models], runtime=wrapper(f'[ -e {broken} ] && exec "$REAL" -m {broken}\nexec "$REAL" "$@"')).start()

    def fails_again():
        assert d.chat("tiny-a")[0] == 502
        return failed(d, "tiny-a")["failures"] >= 3

    wait_for(fails_again, 60, 0.2, "a pause of 4 s after three failures")
    assert failed(d, "tiny-a")["failure"] == "model"
    broken.unlink()
    os.utime(models / "tiny-a.gguf")
    wait_for(lambda: d.chat("tiny-a")[0] == 200, 60, 0.1, "the mended file being tried")
    assert "file_changed" in wait_for(lambda: reasons(d, "tiny-a", "reset"), 10, 0.05, "the reset in the history")
    d.stop()


def test_every_change_of_state_is_in_the_history_with_its_reason(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)]).start()
    assert d.chat("tiny-a")[0] == 200
    d.cli("unload", "tiny-a", check=0)

    def rows():
        return d.control("GET", "/history?model=tiny-a&limit=20")[1]["instances"]

    wait_for(lambda: len(rows()) >= 5, 10, 0.05, "the changes in the history")
    got = [(r["state"], bool(r["cause"])) for r in reversed(rows())]
    assert got == [(s, True) for s in ("planned", "starting", "ready", "draining", "stopped")], json.dumps(rows())
    d.stop()


# ---- the end of the time that running requests are given ----

def stream_past_the_limit(d, model="slow"):
    w = d.wire()
    w.request("POST", "/v1/completions",
              {"model": model, "prompt": "go on", "max_tokens": 30000, "stream": True, "ignore_eos": True})
    assert w.head() == 200
    events = w.events()
    next(events)
    return w, events


def must_end_honestly(w, events):
    got, broken = [], False
    try:
        got.extend(events)
    except (BrokenStream, ConnectionError):
        broken = True
    assert "[DONE]" not in got, "a cut answer ended as if it were whole"
    assert broken, "the stream ended as if it were whole"
    assert got and "error" in json.loads(got[-1]), got[-1:]
    w.close()


SHORT = {"limits": {"drain_timeout": "1s"}, "defaults": {"ctx": 32768, "extra_args": ["--threads", "1"]}}


def test_an_unload_ends_a_stream_past_the_limit_with_an_error(make_daemon, folder, slow):
    d = make_daemon([folder(slow)], config=SHORT).start()
    w, events = stream_past_the_limit(d)
    assert d.control("POST", "/unload", {"model": "slow"})[0] == 200
    must_end_honestly(w, events)
    d.stop()


def test_a_reload_ends_a_stream_past_the_limit_with_an_error(make_daemon, folder, slow):
    d = make_daemon([folder(slow)], config=SHORT).start()
    w, events = stream_past_the_limit(d)
    d.write_config({**SHORT, "defaults": {**SHORT["defaults"], "ctx": 16384}})
    d.process.send_signal(signal.SIGHUP)
    must_end_honestly(w, events)
    d.stop()


def test_a_stop_ends_a_stream_past_the_limit_with_an_error(make_daemon, folder, slow):
    d = make_daemon([folder(slow)], config=SHORT).start()
    w, events = stream_past_the_limit(d)
    d.remember_children()
    d.process.send_signal(signal.SIGTERM)
    must_end_honestly(w, events)
    assert d.wait(30) == 0
    d.assert_no_child()
    d.check_log()


# ---- loaded at the start ----

def test_preload_goes_by_priority_and_tries_again(make_daemon, folder, tiny, tiny_b, wrapper, tmp_path):
    mark = tmp_path / "failed-once"
    runtime = wrapper(f'case "$*" in *tiny-b*) [ -e {mark} ] || {{ touch {mark}; exit 1; }};; esac; exec "$REAL" "$@"')
    config = {"models": {"tiny-a": {"preload": True, "priority": 1}, "tiny-b": {"preload": True, "priority": 7}}}
    d = make_daemon([folder(tiny, tiny_b)], runtime=runtime, config=config).start()
    assert d.instance("tiny-a") and d.instance("tiny-b")  # nobody asked for them
    rows = wait_for(lambda: [x for x in reversed(d.control("GET", "/decisions?limit=50")[1]["decisions"])
                             if x["kind"] in ("load", "fail")][:4], 10, 0.05, "the loads in the history")
    assert rows[0]["model"] == "tiny-b", rows
    assert [x["kind"] for x in rows if x["model"] == "tiny-b"][:3] == ["load", "fail", "load"], rows
    d.stop()


def test_a_preload_that_never_fits_is_told_and_stops_nobody(make_daemon, folder, tiny, slow):
    config = {"budget": {"Host": "20MiB"}, "models": {"slow": {"preload": True, "priority": 7}, "tiny-a": {"preload": True}}}
    d = make_daemon([folder(tiny, slow)], config=config).start()
    assert d.instance("tiny-a")
    assert "slow is not loaded at the start: " in d.log()
    d.stop()
