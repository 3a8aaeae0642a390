"""Writes the corpus of fuzz_backend: chats in OpenAI's words with streams of Anthropic's events."""
import json
import os

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../corpus/backend")
os.makedirs(OUT, exist_ok=True)


def event(kind, **more):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **more})}\n\n"


def block(i, first, *deltas):
    return event("content_block_start", index=i, content_block=first) + \
        "".join(event("content_block_delta", index=i, delta=d) for d in deltas) + event("content_block_stop", index=i)


START = event("message_start", message={"id": "msg_1", "model": "c", "usage": {"input_tokens": 3, "output_tokens": 1}})
TEXT = block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": "hé"})
THINK = block(0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "hm"},
              {"type": "signature_delta", "signature": "x"})
CALL = block(1, {"type": "tool_use", "id": "t", "name": "f", "input": {}},
             {"type": "input_json_delta", "partial_json": '{"a":'}, {"type": "input_json_delta", "partial_json": "1}"})


def stop(reason):
    return event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": 2}) + event("message_stop")


STREAMS = [START + event("ping") + TEXT + stop("end_turn"), START + THINK + CALL + stop("tool_use"), START + TEXT,
           START + block(0, {"type": "tool_use", "id": "t", "name": "g"}) + stop("max_tokens"),
           event("error", error={"type": "overloaded_error", "message": "full"}), START + START, "data: []\n\n"]
HI = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
BODIES = [{"messages": [HI]},
          {"stream": True, "stream_options": {"include_usage": True}, "messages": [{"role": "system", "content": "s"}, HI]},
          {"messages": [HI, {"role": "assistant", "content": None, "tool_calls": [
              {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]},
              {"role": "tool", "tool_call_id": "t", "content": "x"}], "tools": [TOOL], "tool_choice": "required"},
          {"messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, {
              "type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}]}], "stop": "x", "temperature": 2},
          {"messages": [HI], "max_tokens": 3, "response_format": {"type": "json_schema", "json_schema": {"schema": {}}}}]
for b, body in enumerate(BODIES):
    for s, stream in enumerate(STREAMS):
        with open(f"{OUT}/{b}{s}", "wb") as f:  # the calls of OpenAI's chat come first
            f.write(bytes([0, (s * 37 + b * 5) & 255]) + json.dumps(body).encode() + b"\0" + stream.encode())
