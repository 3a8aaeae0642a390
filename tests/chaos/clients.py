"""Clients that ask all along, each in its own manner, and write down how every request ended.

An ending is one of ENDINGS. What of it is allowed, invariants.judge says; here is only what a client saw.
"""
import dataclasses
import json
import random
import socket
import threading
import time
from typing import Any

from lib.wire import BrokenStream, Wire

PATIENCE_S = 150  # without a byte; every limit of the daemon is far below it

ENDINGS = {
    "whole": "answered, to the end",
    "left": "the client left, on purpose",
    "refused": "an error with status, type and message",
    "told": "a stream that ended with an error event",
    "cut": "a stream whose connection broke",
    "lost": "no answer: no connection, or broken before a status",
    "silent": "a stream that ended properly, but without end mark and error",
    "odd": "an answer that is none: wrong form, or an error without type or message",
    "hang": f"nothing for {PATIENCE_S} s",
}


@dataclasses.dataclass
class Outcome:
    client: int
    ask: str
    manner: str
    model: str
    began: float
    life: int  # of the daemon when it was sent
    ended: float = 0.0
    ending: str = ""
    status: int = 0
    detail: str = ""

    def __str__(self):
        return (f"client {self.client}: {self.ask} of {self.model}, {self.manner}: {self.ending} after "
                f"{self.ended - self.began:.1f} s, status {self.status} {self.detail}")


# ---- the APIs ----

def _words(rng):
    return " ".join(rng.choice(("arriero", "llama", "mula", "carga", "camino")) for _ in range(rng.choice((2, 8, 60))))


def _openai_mark(text):
    if text == "[DONE]":
        return "whole"
    return "told" if "error" in json.loads(text) else None


def _anthropic_mark(text):
    return {"message_stop": "whole", "error": "told"}.get(json.loads(text)["type"])


def _ollama_mark(text):
    o = json.loads(text)
    return "told" if "error" in o else "whole" if o.get("done") else None


def _openai_error(o):
    e = o["error"]
    return e["type"] and e["code"] and e["message"]


def _anthropic_error(o):
    """What llama-server itself refuses is passed on in its own form, without the outer type."""
    return o.get("type", "error") == "error" and o["error"]["type"] and o["error"]["message"]


@dataclasses.dataclass(frozen=True)
class Ask:
    path: str
    body: Any            # (words, tokens) → members beside model and stream
    member: str          # what a whole plain answer has
    mark: Any = None     # of a piece of a stream: "whole", "told" or None; no mark: never streamed
    error: Any = _openai_error
    lines: bool = False  # a stream of lines, not of events


def _chat(words, tokens):
    return {"messages": [{"role": "user", "content": words}], "max_tokens": tokens}


ASKS = {
    "chat": Ask("/v1/chat/completions", _chat, "choices", _openai_mark),
    "completion": Ask("/v1/completions", lambda w, n: {"prompt": w, "max_tokens": n, "ignore_eos": True}, "choices", _openai_mark),
    "messages": Ask("/v1/messages", _chat, "content", _anthropic_mark, _anthropic_error),
    "ollama": Ask("/api/chat", lambda w, n: {"messages": [{"role": "user", "content": w}], "options": {"num_predict": n}},
                  "message", _ollama_mark, lambda o: o["error"], lines=True),
    "tokenize": Ask("/tokenize", lambda w, n: {"content": w}, "tokens"),
}
# manner: (weight, does it stream)
MANNERS = {"plain": (4, False), "stream": (6, True), "slow": (1, True), "leave": (2, True), "reset": (1, True),
           "leave early": (1, False)}


def _pieces(wire, ask):
    if not ask.lines:
        yield from wire.events()
        return
    rest = b""
    for chunk in wire.chunks():
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.decode() for line in lines if line)


class Client(threading.Thread):
    """One after another, drawn from its own random numbers, until `over`; between two requests it obeys `pause`."""

    def __init__(self, number, seed, world):
        super().__init__(daemon=True, name=f"client {number}")
        self.number, self.world = number, world
        self.rests = True  # between two requests, waiting to be let go on
        self.rng = random.Random(f"{seed} client {number}")

    def run(self):
        while self.may_go():
            outcome = self.draw()
            try:
                self.ask(outcome)
            except Exception as e:  # noqa: BLE001 - the harness's own fault must not pass for an answer
                outcome.ending, outcome.detail = "odd", f"{type(e).__name__}: {e}"
            outcome.ended = time.monotonic()
            self.world.ended(outcome)
            if outcome.ending in ("lost", "refused"):
                self.world.over.wait(self.rng.uniform(0.02, 0.3))  # as clients do who try again

    def may_go(self):
        self.rests = not self.world.go.is_set()
        self.world.go.wait()
        self.rests = False
        return not self.world.over.is_set()

    def draw(self):
        manner = self.rng.choices(list(MANNERS), [w for w, _ in MANNERS.values()])[0]
        asks = [a for a, row in ASKS.items() if row.mark or not MANNERS[manner][1]]
        return Outcome(self.number, self.rng.choice(asks), manner, self.rng.choice(self.world.models), time.monotonic(),
                       self.world.life)

    def ask(self, o):
        ask, rng = ASKS[o.ask], self.rng
        streams = MANNERS[o.manner][1]
        body = {"model": o.model, "stream": streams, **ask.body(_words(rng), rng.choice((2, 16, 300)))}
        head = [self.world.credential]
        if rng.random() < 0.2:
            head.append("X-Arriero-Progress: 1")
        try:
            with Wire(self.world.where, PATIENCE_S) as w:
                w.request("POST", ask.path, body, head, close=rng.random() < 0.5)
                if o.manner == "leave early":
                    self.world.over.wait(rng.uniform(0, 0.2))
                    o.ending = "left"
                    return
                o.status = w.head()
                self.read(o, ask, w, streams)
        except TimeoutError:
            o.ending = "hang"
        except (OSError, BrokenStream) as e:
            o.ending, o.detail = "cut" if o.status else "lost", repr(e)

    def read(self, o, ask, w, streams):
        if o.status != 200 or not streams:
            self.read_plain(o, ask, json.loads(w.body()))
            return
        if o.manner == "slow":
            w.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            for n, piece in enumerate(_pieces(w, ask)):
                o.ending = ask.mark(piece) or o.ending
                if n == 1 and o.manner in ("leave", "reset"):
                    w.reset() if o.manner == "reset" else w.close()
                    o.ending = "left"
                    return
                if o.manner == "slow":
                    self.world.over.wait(0.02)
        except (BrokenStream, ConnectionError) as e:  # behind the last word nothing is lost by it
            o.ending, o.detail = o.ending or "cut", repr(e)
        o.ending = o.ending or "silent"

    @staticmethod
    def read_plain(o, ask, answer):
        if o.status == 200:
            fine = ask.member in answer
            o.ending = "whole" if fine else "odd"
        else:
            try:
                fine = ask.error(answer)
            except (KeyError, TypeError):
                fine = None
            o.ending = "refused" if fine else "odd"
        if o.status != 200 or not fine:
            o.detail = json.dumps(answer)[:400]
