"""Measurements and what the planner learns: arriero bench, and lessons of real loads and requests."""
import json
import os
import signal
import sqlite3
import subprocess

PROMPT = "the llamas carry salt over the pass and bells ring in the morning " * 4


def rows(daemon, table):
    db = sqlite3.connect(f"file:{daemon.state_dir}/history.db?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    try:
        return [dict(r) for r in db.execute(f"SELECT * FROM {table} ORDER BY id")]
    finally:
        db.close()


def run(daemon, *args, **kw):
    return subprocess.run([daemon.binary, *args], env=daemon.env, capture_output=True, text=True, **kw)


def plan(daemon, model):
    p = run(daemon, "plan", str(model), "--ctx", "2048", "--json")
    assert p.returncode == 0, p.stderr
    return json.loads(p.stdout)


def test_loads_and_requests_teach_the_planner(make_daemon, folder, tiny):
    # one thread: on a busy machine two that wait for each other take a hundred times as long, which teaches nothing
    daemon = make_daemon([folder(tiny)], config={"defaults": {"extra_args": ["--threads", "1"]}})
    daemon.start()
    before = plan(daemon, tiny)
    assert before["speed"]["decode_samples"] == 0 and before["devices"][-1]["overhead_loads"] == 0
    for i in range(12):
        daemon.post_json("/v1/completions", {"model": "tiny-a", "prompt": f"{i} {PROMPT}", "max_tokens": 12,
                                             "ignore_eos": True, "cache_prompt": False})
    daemon.stop()  # writes what is queued
    lessons = rows(daemon, "lessons")
    kinds = {r["kind"] for r in lessons}
    assert {"overhead", "load"} <= kinds and kinds & {"prefill", "decode"}, lessons
    assert all(r["architecture"] == "llama" and r["device"] and r["runtime"] for r in lessons)
    after = plan(daemon, tiny)
    assert after["devices"][-1]["overhead_loads"] == 1
    assert after["speed"]["decode_samples"] + after["speed"]["prefill_samples"] > 0
    codes = [r["code"] for r in after["reasons"]]
    assert "overhead" in codes and "speed_learned" in codes


def test_a_corrupt_history_teaches_nothing_and_is_told(make_daemon, folder, tiny):
    daemon = make_daemon([folder(tiny)])
    daemon.start()
    daemon.stop()
    for name in ("history.db", "history.db-wal", "history.db-shm"):
        path = os.path.join(daemon.state_dir, name)
        if os.path.exists(path):
            os.unlink(path)
    with open(os.path.join(daemon.state_dir, "history.db"), "w") as f:
        f.write("no database at all, " * 100)
    answer = plan(daemon, tiny)
    assert answer["fits"] and "history.db" in answer["figures"]["note"]


def test_host_figures_reach_the_plan(make_daemon, folder, tiny):
    daemon = make_daemon([folder(tiny)])
    daemon.start()
    assert plan(daemon, tiny)["figures"]["host"] is None
    p = run(daemon, "bench", "host", "--json")
    assert p.returncode == 0, p.stderr
    measured = json.loads(p.stdout)
    assert measured["saved"] and measured["memory"]["read_gbps"] > 0 and measured["products"]["int8_core_gops"] > 0
    host = plan(daemon, tiny)["figures"]["host"]
    assert abs(host["read_gbps"] - measured["memory"]["read_gbps"]) < 1e-6
    assert host["age_seconds"] < 3600
    text = run(daemon, "plan", str(tiny), "--ctx", "2048").stdout
    assert "The host was measured" in text and "ago" in text


def test_an_interrupt_keeps_nothing(make_daemon, folder, tiny):
    daemon = make_daemon([folder(tiny)])
    daemon.start()
    child = subprocess.Popen([daemon.binary, "bench", "host"], env=daemon.env, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
    # the signal may come before it is looked for: then the process just ends by it
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    assert child.returncode in (130, -signal.SIGINT) and out == ""
    assert rows(daemon, "figures") == []


def test_no_gpu_has_its_word(make_daemon, folder, tiny):
    daemon = make_daemon([folder(tiny)])
    daemon.start()
    env = {**daemon.env, "ARRIERO_CUDA": "/nonexistent/libcuda.so.1"}
    p = subprocess.run([daemon.binary, "bench", "gpu"], env=env, capture_output=True, text=True)
    assert p.returncode == 1 and "driver" in p.stderr
    assert run(daemon, "bench", "toaster").returncode == 2
    assert run(daemon, "bench", "model").returncode == 2


def test_a_model_and_the_relay_are_measured(make_daemon, folder, tiny):
    daemon = make_daemon([folder(tiny)])
    daemon.start()
    p = run(daemon, "bench", "model", "tiny-a", "-p", "48", "-n", "10", "-r", "2", "--json")
    assert p.returncode == 0, p.stderr
    answer = json.loads(p.stdout)
    assert answer["runs"] == 2 and answer["prefill"]["measured_tps"] > 0 and answer["decode"]["predicted_tps"] > 0
    p = run(daemon, "bench", "proxy", "tiny-a", "-r", "3", "--json")
    assert p.returncode == 0, p.stderr
    assert json.loads(p.stdout)["requests"] == 3
