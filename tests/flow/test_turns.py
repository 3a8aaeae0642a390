"""Whose turn it is: arriero plan --live, loads side by side, models that take turns where one fits."""
import threading

from lib.wire import wait_for

BUDGET_OF_ONE = {"budget": {"Host": "64MiB"}, "defaults": {"ctx": 4096, "extra_args": ["--threads", "1"]}}


def live(d, model, *options):
    return d.cli_json("plan", model, "--live", *options)


def streaming(d, model):
    w = d.wire()
    w.request("POST", "/v1/completions",
              {"model": model, "prompt": "go on", "max_tokens": 30000, "stream": True, "ignore_eos": True})
    assert w.head() == 200
    next(w.events())
    return w


def test_plan_live_tells_what_would_happen(make_daemon, folder, slow, slow_b):
    d = make_daemon([folder(slow, slow_b)], config=BUDGET_OF_ONE).start()
    free = live(d, "slow")
    assert free["fits"] and not free["waits"] and free["live"]["answer"] == "now", free
    assert free["live"]["evicts"] == [] and free["live"]["position"] == 0, free["live"]
    text = d.cli("plan", "slow", "--live", check=0).stdout
    assert "slow would be loaded at once; nobody has to leave for it." in text and "RAM" in text, text
    assert "Ready in about" in text, text
    assert max(map(len, text.splitlines())) <= 80, text

    d.cli("load", "slow", check=0)
    assert live(d, "slow")["live"]["answer"] == "ready"
    assert "slow is loaded and answers." in d.cli("plan", "slow", "--live", check=0).stdout
    other = live(d, "slow-b")
    assert other["live"]["answer"] == "now" and other["victims"] == ["slow#1"], other
    (gone,) = other["live"]["evicts"]
    assert gone["model"] == "slow" and gone["busy"] == 0 and gone["bytes"] > 0, gone
    assert other["live"]["cost_seconds"] == gone["reload_seconds"] or abs(
        other["live"]["cost_seconds"] - gone["reload_seconds"]) < 0.001, other["live"]
    text = d.cli("plan", "slow-b", "--live", check=0).stdout
    assert "slow-b would be loaded now, in the place of slow." in text and "slow gives" in text, text
    assert d.instance("slow")["state"] == "ready" and not d.instances("slow-b")  # nothing was started

    w = streaming(d, "slow")
    later = live(d, "slow-b")
    assert later["live"]["answer"] == "later" and later["waits"] and later["live"]["position"] == 1, later
    assert 0 < later["live"]["wait_seconds"] <= 15 and later["live"]["evicts"][0]["busy"] == 1, later["live"]
    text = d.cli("plan", "slow-b", "--live", check=0).stdout
    assert "slow-b would have to wait" in text and "its turn comes within" in text, text
    assert max(map(len, text.splitlines())) <= 80, text
    w.close()
    d.stop()


def test_plan_live_takes_settings_and_refuses_what_is_not_its_own(make_daemon, folder, slow):
    d = make_daemon([folder(slow)], config=BUDGET_OF_ONE).start()
    assert live(d, "slow", "--ctx", "1k")["params"]["ctx"] == 1024
    never = d.cli("plan", "slow", "--live", "--ctx", "32k", "--min-ctx", "32k", "--cache-type-k", "f16",
                  "--cache-type-v", "f16")
    assert never.returncode == 1 and "would be refused" in never.stdout, never.stdout
    assert d.cli("plan", "slow", "--live", "--hw", "2x3090").returncode == 2
    nobody = d.cli("plan", "nobody", "--live")
    assert nobody.returncode == 1 and "nobody" in nobody.stderr
    d.stop()
    gone = d.cli("plan", "slow", "--live")
    assert gone.returncode == 1 and "arriero serve" in gone.stderr, gone.stderr


def test_two_models_load_at_the_same_time(make_daemon, folder, slow, slow_b, wrapper, tmp_path):
    """Each server begins when the other one's process is there: one after the other they would wait for ever."""
    gate = tmp_path / "gate"
    runtime = wrapper(f'printf x >> {gate}; while [ "$(wc -c < {gate})" -lt 2 ]; do sleep 0.02; done\nexec "$REAL" "$@"')
    d = make_daemon([folder(slow, slow_b)], runtime=runtime, config={"defaults": BUDGET_OF_ONE["defaults"]})
    d.start()
    answers = []
    threads = [threading.Thread(target=lambda m=m: answers.append(d.chat(m)[0])) for m in ("slow", "slow-b")]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert answers == [200, 200], answers
    d.stop()


def test_models_take_turns_and_nobody_starves(make_daemon, folder, slow, slow_b):
    """Two clients that never pause, with room for one model: both get on, and most answers need no swap."""
    config = {**BUDGET_OF_ONE, "limits": {"patience": "1s", "min_residence": "500ms"}}
    d = make_daemon([folder(slow, slow_b)], config=config).start()
    done, stop = {"slow": 0, "slow-b": 0}, threading.Event()

    def client(model):
        while not stop.is_set():
            assert d.chat(model)[0] == 200
            done[model] += 1

    threads = [threading.Thread(target=client, args=(m,)) for m in done for _ in range(2)]
    for t in threads:
        t.start()
    try:
        wait_for(lambda: min(done.values()) >= 12, 110, 0.05, "both models answering")
    finally:
        stop.set()
        for t in threads:
            t.join(60)
    loads = d.metric("arriero_loads_total")
    assert 2 <= loads <= sum(done.values()) / 2, (loads, done)
    d.stop()
