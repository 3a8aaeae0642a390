#!/usr/bin/env python3
"""Adds Ollama's requests and answers of every kind, whole and cut, to the corpus of fuzz_translate."""
import json
import pathlib

OUT = pathlib.Path(__file__).resolve().parents[2] / "corpus" / "translate"
FIRST = 2  # translated calls that stand before Ollama's
CHAT, GENERATE, EMBED, EMBEDDINGS = range(FIRST, FIRST + 4)


def event(delta=None, finish=None, **more):
    choices = [] if delta is None and finish is None else [{"finish_reason": finish, "index": 0, "delta": delta or {}}]
    return "data: " + json.dumps({"choices": choices, "created": 7, "id": "c", "model": "m", **more}) + "\n\n"


USAGE = event(usage={"completion_tokens": 2, "prompt_tokens": 5}, timings={"prompt_ms": 1.25, "predicted_ms": 3.5})
END = USAGE + "data: [DONE]\n\n"
WORDS = event({"role": "assistant", "content": None}) + event({"reasoning_content": "hm"}) + event({"content": "h\u00e9"})
CALL = event({"tool_calls": [{"index": 0, "id": "i", "type": "function", "function": {"name": "f", "arguments": "{\"a\""}}]}) + \
    event({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]})
USER = [{"role": "user", "content": "hi"}]
TALK = [{"role": "System", "content": "s"}, {"role": "user", "content": "see", "images": ["iVBORw0KGgo", "data:x"]},
        {"role": "assistant", "thinking": "t", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
        {"role": "tool", "tool_name": "f", "content": "1"}]
OPTIONS = {"temperature": 0.5, "seed": 1, "num_predict": 9, "stop": ["a"], "num_ctx": 8192, "top_k": 4.5}
VECTORS = json.dumps({"data": [{"index": 0, "embedding": [3, 4, 12]}, {"index": 1, "embedding": [1, 0, 0]}], "usage": {"prompt_tokens": 6}})
CASES = [
    (CHAT, {"messages": USER}, WORDS + event(finish="stop") + END),
    (CHAT, {"messages": USER, "stream": False}, WORDS + event(finish="length") + END),
    (CHAT, {"messages": TALK, "tools": [{"type": "function"}], "think": "high"}, CALL + event(finish="tool_calls") + END),
    (CHAT, {"messages": TALK, "stream": False, "options": OPTIONS}, CALL + event(finish="tool_calls") + END),
    (CHAT, {"messages": USER, "format": {"type": "object"}, "keep_alive": "1h30m"}, WORDS),
    (CHAT, {"messages": [], "keep_alive": 0}, ""),
    (CHAT, {"messages": USER}, WORDS + "data: " + json.dumps({"error": {"code": 500, "message": "no"}}) + "\n\n"),
    (GENERATE, {"prompt": "p", "system": "s", "format": "json"}, WORDS + event(finish="stop") + END),
    (GENERATE, {"prompt": "p", "raw": True, "stream": False}, WORDS.replace('"delta": {"content"', '"text": {"content"') + END),
    (GENERATE, {"prompt": "a", "suffix": "b"}, json.dumps({"content": "x", "stop_type": "limit", "tokens_predicted": 2})),
    (EMBED, {"input": ["a", "b"], "dimensions": 2}, VECTORS),
    (EMBED, {"input": []}, ""),
    (EMBEDDINGS, {"prompt": "a"}, json.dumps({"data": [{"embedding": [1, 2]}]})),
]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    for n, (call, body, stream) in enumerate(CASES):
        for step in (0, 7):
            text = bytes([call, step << 1]) + json.dumps(body).encode() + b"\0" + stream.encode()
            (OUT / f"ollama-{n:02}-{step}").write_bytes(text)
        (OUT / f"ollama-{n:02}-cut").write_bytes(text[:-9])


if __name__ == "__main__":
    main()
