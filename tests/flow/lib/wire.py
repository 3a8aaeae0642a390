"""A raw HTTP/1.1 client over a socket: for half-closes, aborts and truncation that no library shows."""
import contextlib
import json
import socket
import struct
import time


class BrokenStream(Exception):
    """The connection ended before the answer did."""


class Wire:
    """One connection. TCP with (host, port), a Unix socket with a path."""

    def __init__(self, where, timeout=60):
        if isinstance(where, (tuple, list)):
            self.sock = socket.create_connection(where, timeout=timeout)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(timeout)
            self.sock.connect(where)
        self.buf = b""
        self.status, self.headers = 0, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        with contextlib.suppress(OSError):
            self.sock.close()

    def reset(self):
        """Closes with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def send_raw(self, data):
        self.sock.sendall(data)

    def request(self, method, path, body=None, headers=(), close=False):
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        if close:
            lines.append("Connection: close")
        lines += list(headers)
        self.send_raw("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))

    def _more(self):
        data = self.sock.recv(65536)
        if not data:
            return False
        self.buf += data
        return True

    def _until(self, mark):
        while mark not in self.buf:
            if not self._more():
                raise BrokenStream(f"closed before {mark!r}; had {self.buf[:200]!r}")
        head, self.buf = self.buf.split(mark, 1)
        return head

    def head(self):
        """Reads status line and headers; returns the status."""
        while True:
            lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            self.status = int(lines[0].split()[1])
            self.headers = {}
            for line in lines[1:]:
                name, _, value = line.partition(":")
                self.headers[name.strip().lower()] = value.strip()
            if self.status >= 200:
                return self.status

    def chunks(self):
        """Yields the body as it comes; BrokenStream when it ends too early."""
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while True:
                size = int(self._until(b"\r\n").split(b";")[0], 16)
                if size == 0:
                    self._until(b"\r\n")
                    return
                while len(self.buf) < size + 2:
                    if not self._more():
                        raise BrokenStream("closed inside a chunk")
                data, self.buf = self.buf[:size], self.buf[size + 2:]
                yield data
        elif "content-length" in self.headers:
            left = int(self.headers["content-length"])
            while left:
                if not self.buf and not self._more():
                    raise BrokenStream(f"closed {left} bytes early")
                data, self.buf = self.buf[:left], self.buf[left:]
                left -= len(data)
                yield data
        else:
            while True:
                if self.buf:
                    data, self.buf = self.buf, b""
                    yield data
                elif not self._more():
                    return

    def body(self):
        return b"".join(self.chunks())

    def read_until(self, mark):
        """The body from where it was read to, up to the piece that completes the mark."""
        self.stream = getattr(self, "stream", None) or self.chunks()
        got = b""
        while mark not in got:
            piece = next(self.stream, None)
            if piece is None:
                raise BrokenStream(f"ended before {mark!r}; had {got[:500]!r}")
            got += piece
        return got

    def events(self):
        """Yields the data of each server-sent event, as text."""
        rest = b""
        for chunk in self.chunks():
            rest += chunk
            while b"\n\n" in rest:
                event, rest = rest.split(b"\n\n", 1)
                for line in event.split(b"\n"):
                    if line.startswith(b"data:"):
                        yield line[5:].strip().decode("utf-8", "replace")


def fetch(where, method, path, body=None, headers=(), timeout=60):
    """One request on a connection of its own: (status, headers, body bytes)."""
    with Wire(where, timeout) as w:
        w.request(method, path, body, headers, close=True)
        status = w.head()
        return status, w.headers, w.body()


def fetch_json(where, method, path, body=None, headers=(), timeout=60):
    status, head, data = fetch(where, method, path, body, headers, timeout)
    try:
        return status, json.loads(data or b"null")
    except ValueError as e:
        raise AssertionError(f"{method} {path}: {status} {head} is not JSON: {data[:300]!r}") from e


def wait_for(what, seconds=20, every=0.005, message="the awaited state"):
    """Polls what() until it is true; returns its value. For states of other programs that tell no event."""
    deadline = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{message}: not within {seconds} s")
        time.sleep(every)
