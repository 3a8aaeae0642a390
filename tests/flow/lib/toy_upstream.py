"""Servers as the cloud has them, on loopback: they speak OpenAI's or Anthropic's API as recorded, with TLS or
without, remember what they were asked, and can be told to fail first."""
import http.server
import json
import ssl
import threading


def sse(*events):
    return "".join(f"data: {e if isinstance(e, str) else json.dumps(e)}\n\n" for e in events)


def named(*events):
    return "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events)


def openai_answer(body):
    head = {"id": "chatcmpl-up", "created": 7, "model": body["model"], "system_fingerprint": "fp"}
    usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
    if not body.get("stream"):
        return "application/json", json.dumps({**head, "object": "chat.completion", "usage": usage, "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "from afar"}, "finish_reason": "stop"}]})
    chunk = {**head, "object": "chat.completion.chunk"}
    events = [{**chunk, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
              {**chunk, "choices": [{"index": 0, "delta": {"content": "from afar"}, "finish_reason": None}]},
              {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append({**chunk, "choices": [], "usage": usage})
    return "text/event-stream", sse(*events, "[DONE]")


def embeddings_answer(body):
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    return "application/json", json.dumps({
        "object": "list", "model": body["model"], "usage": {"prompt_tokens": 3 * len(texts), "total_tokens": 3 * len(texts)},
        "data": [{
        "object" : "embedding", "index" : i, "embedding" : [ float(len(t)), 1.0 ]} for i, t in enumerate(texts)]})


def anthropic_answer(body):
    usage = {"input_tokens": 1000, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": [],
               "stop_reason": None, "stop_sequence": None, "usage": usage}
    if not body.get("stream"):
        return "application/json", json.dumps({**message, "content": [{"type": "text", "text": "from afar"}],
                                               "stop_reason": "end_turn", "usage": {**usage, "output_tokens": 500}})
    if body.get("tools"):
        blocks = [{"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "toolu_1", "name": "sky", "input": {}}},
                  {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{\"city\": \"Oslo\"}"}}]
    else:
        blocks = [{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                  {"type": "ping"},
                  {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "from afar"}}]
    return "text/event-stream", named(
        {"type": "message_start", "message": message}, *blocks, {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use" if body.get("tools") else "end_turn", "stop_sequence": None},
         "usage": {"output_tokens": 500}}, {"type": "message_stop"})


class Upstream:
    def __init__(self, dialect="openai", cert=None):
        self.dialect, self.asked, self.faults, self.lock = dialect, [], [], threading.Lock()
        self.health = 200
        self.gate = threading.Event()  # shut (clear), answers wait
        self.gate.set()
        up = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.answer(up.health if self.path == "/health" else 404, "application/json", "{}", {})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with up.lock:
                    up.asked.append((self.path, dict(self.headers), body))
                    fault = up.faults.pop(0) if up.faults else None
                up.gate.wait()
                if fault:
                    status, headers, text = fault
                    self.answer(status, "application/json", text, headers)
                    return
                answer = embeddings_answer if self.path.endswith("/embeddings") else openai_answer if up.dialect == "openai" else anthropic_answer
                kind, text = answer(body)
                self.answer(200, kind, text, {"Set-Cookie": "secret=1", "openai-organization": "acct"})

            def answer(self, status, kind, text, headers):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text.encode())))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):
                """Whoever does not trust the certificate goes away in the middle: that is what is tested."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port, self.tls = self.server.server_address[1], cert is not None
        if cert:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*cert)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def fail(self, status, headers=None, text='{"error":{"message":"no","type":"x"}}', times=1):
        self.faults += [(status, headers or {}, text)] * times

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}"

    def close(self):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
