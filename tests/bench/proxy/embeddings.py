"""A backend that embeds without computing anything, and a client that asks it for many vectors at once."""
import http.client
import http.server
import json
import random
import threading


class Backend:
    """Its vectors have numbers as models give them; each request gets as many as it has texts."""

    def __init__(self, dimensions):
        chance = random.Random(1)
        self.vector = '[%s]' % ','.join('%.9g' % chance.uniform(-0.1, 0.1) for _ in range(dimensions))
        backend = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_POST(self):
                texts = json.loads(self.rfile.read(int(self.headers['Content-Length'])))['input']
                n = len(texts) if isinstance(texts, list) else 1
                items = ','.join('{"object":"embedding","index":%d,"embedding":%s}' % (i, backend.vector) for i in range(n))
                body = ('{"object":"list","data":[%s],"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (items, n, n)).encode()
                self.send_response(200)
                self.send_header('Content-Type', 'application/json')
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def ask(port, path, texts):
    """Bytes of the answer."""
    client = http.client.HTTPConnection('127.0.0.1', port, timeout=600)
    client.request('POST', path, json.dumps({'model': 'm', 'input': ['text %d' % i for i in range(texts)]}),
                   {'Content-Type': 'application/json'})
    answer, n = client.getresponse(), 0
    if answer.status != 200:
        raise SystemExit('%s: %d %s' % (path, answer.status, answer.read(500)))
    while part := answer.read(1 << 20):
        n += len(part)
    client.close()
    return n
