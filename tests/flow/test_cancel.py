"""A client that goes away frees the backend's slot, in every phase.

The witness is llama-server's own log ("cancel task", "release"), never its /slots: every answer to such
a question restarts the one-second wait after which llama-server looks whether its client is still
there, so that watching it closely keeps the slot busy. Times are printed, not judged: see the benchmark.
"""
import re
import time

import pytest

from lib.wire import BrokenStream, wait_for

LONG = "hello world " * 4000  # a token a letter: some seconds of prefill


class BackendLog:
    """The lines that an instance's llama-server has written since the last mark."""

    def __init__(self, d, model):
        self.path = d.instance(model)["log_path"]
        self.mark()

    def mark(self):
        with open(self.path, "rb") as f:
            f.seek(0, 2)
            self.at = f.tell()

    def since(self):
        with open(self.path, "rb") as f:
            f.seek(self.at)
            return f.read().decode("utf-8", "replace")

    def wait(self, pattern, seconds=20):
        return wait_for(lambda: re.search(pattern, self.since()), seconds, 0.001, f"{pattern!r} in the backend's log")


def leave(w, how):
    start = time.monotonic()
    {"fin": w.close, "rst": w.reset, "half": w.half_close}[how]()
    return start


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize("how", ["fin", "rst", "half"])
def test_disconnect_closes_the_connection_to_the_backend(make_daemon, folder, tiny, wrapper, fake_llama, how, stream, capsys):
    """The proxy's own part: a backend that is silent, as in prefill, sees the end of its connection."""
    d = make_daemon([folder(tiny)], runtime=wrapper(f'exec {fake_llama} mute "$@"')).start()
    d.control("POST", "/load", {"model": "tiny-a"})
    log = BackendLog(d, "tiny-a")
    w = d.wire()
    w.request("POST", "/v1/completions", {"model": "tiny-a", "prompt": "x", "stream": stream})
    log.wait(r"request\n")
    left = leave(w, how)
    gone = float(log.wait(r"gone ([0-9.]+)\n").group(1))
    with capsys.disabled():
        print(f"\n  disconnect ({how}, {'stream' if stream else 'plain'}): backend's connection closed after"
              f" {(gone - left) * 1000:.2f} ms")
    wait_for(lambda: d.instance("tiny-a").get("busy", 0) == 0, 5, 0.05, "the lease being given back")
    w.close()
    d.stop()


LAUNCHED = r"launch_slot|processing task|new prompt"
RELEASED = r"slot +release:.*stop processing: n_tokens = (\d+)"


@pytest.fixture
def prefilling(make_daemon, folder, long_prompt):
    d = make_daemon([folder(long_prompt)], config={"models": {"longprompt": {"ctx": 65536}}}).start()
    assert d.chat("longprompt")[0] == 200  # loaded
    yield d
    d.stop()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_disconnect_during_prefill_frees_the_slot(prefilling, stream, how, capsys):
    d = prefilling
    log = BackendLog(d, "longprompt")
    w = d.wire()
    w.request("POST", "/v1/completions", {"model": "longprompt", "prompt": how + str(stream) + LONG, "max_tokens": 4,
                                          "stream": stream, "cache_prompt": False})
    log.wait(LAUNCHED)
    start = leave(w, how)
    found = log.wait(RELEASED)
    ms = (time.monotonic() - start) * 1000
    with capsys.disabled():
        print(f"\n  disconnect ({how}, {'stream' if stream else 'plain'}) during prefill: slot free after {ms:.0f} ms,"
              f" {found.group(1)} of {len(LONG)} tokens done")
    assert int(found.group(1)) < len(LONG), "the prompt was processed to its end for nobody"
    assert d.chat("longprompt")[0] == 200


def test_half_close_after_the_request_counts_as_a_disconnect(prefilling):
    d = prefilling
    log = BackendLog(d, "longprompt")
    w = d.wire()
    w.request("POST", "/v1/completions", {"model": "longprompt", "prompt": "half" + LONG, "max_tokens": 4, "stream": True,
                                          "cache_prompt": False})
    log.wait(LAUNCHED)
    w.half_close()
    found = log.wait(RELEASED)
    assert int(found.group(1)) < len(LONG)
    w.close()


def test_disconnect_while_streaming_frees_the_slot(make_daemon, folder, slow, one_thread, capsys):
    d = make_daemon([folder(slow)], config=one_thread).start()
    w = d.wire()
    w.request("POST", "/v1/completions", {"model": "slow", "prompt": "go", "max_tokens": 20000, "stream": True, "ignore_eos": True})
    assert w.head() == 200
    next(w.events())
    log = BackendLog(d, "slow")
    start = time.monotonic()
    w.reset()
    log.wait(RELEASED)
    with capsys.disabled():
        print(f"\n  disconnect while streaming: slot free after {(time.monotonic() - start) * 1000:.0f} ms")
    wait_for(lambda: d.instances("slow")[0].get("busy", 0) == 0, 5, 0.05, "the lease being given back")
    d.stop()


def test_disconnect_while_waiting_for_a_plain_answer(make_daemon, folder, slow, one_thread):
    d = make_daemon([folder(slow)], config=one_thread).start()
    assert d.chat("slow")[0] == 200
    log = BackendLog(d, "slow")
    w = d.wire()
    w.request("POST", "/v1/completions", {"model": "slow", "prompt": "go", "max_tokens": 20000, "ignore_eos": True})
    log.wait(LAUNCHED)
    w.close()
    found = log.wait(RELEASED)
    assert int(found.group(1)) < 20000
    d.stop()


def test_a_slow_reader_does_not_fill_the_daemons_memory(make_daemon, folder, tiny):
    """Back-pressure: a client that does not read holds its own answer up, and nothing else."""
    d = make_daemon([folder(tiny)]).start()
    assert d.chat("tiny-a")[0] == 200

    def resident_kib():
        with open(f"/proc/{d.process.pid}/status", encoding="ascii") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))

    before = resident_kib()
    sleepers = []
    for i in range(8):
        w = d.wire()
        w.request("POST", "/v1/completions", {"model": "tiny-a", "prompt": f"go {i}", "max_tokens": 100, "n_probs": 20,
                                              "stream": True, "ignore_eos": True})
        sleepers.append(w)
    for w in sleepers:
        assert w.head() == 200
    assert d.chat("tiny-a")[0] == 200, "others are served meanwhile"
    assert resident_kib() - before < 64 * 1024
    for w in sleepers:
        events = list(w.events())
        assert events[-1] == "[DONE]"
        w.close()
    d.stop()


def test_a_body_that_stops_coming_is_given_up(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)], config={"limits": {"header_timeout": "1s"}}).start()
    with d.wire() as w:
        w.send_raw(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        try:
            assert w.head() == 408
        except (BrokenStream, ConnectionError):
            pass  # closed without a word is right, too
    with d.wire() as w:
        w.send_raw(b"GET /heal")
        try:
            assert w.head() == 408
        except (BrokenStream, ConnectionError):
            pass
    assert d.get("/health")[0] == 200
    d.stop()


def test_expect_100_continue(daemon):
    body = b'{"model":"tiny-a","prompt":"x","max_tokens":2}'
    with daemon.wire() as w:
        w.send_raw(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                   b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        w._until(b"100 Continue\r\n\r\n")
        w.send_raw(body)
        assert w.head() == 200
        w.body()


def test_a_body_in_small_pieces(daemon):
    body = b'{"max_tokens":2,"prompt":"x","model":"tiny-a"}'
    with daemon.wire() as w:
        w.send_raw(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for i in range(len(body)):
            w.send_raw(b"1\r\n" + body[i:i + 1] + b"\r\n")
        w.send_raw(b"0\r\n\r\n")
        assert w.head() == 200
        w.body()
