"""A backend that passes for llama-server until it is asked for something, and then fails in a chosen way.

    fake_llama.py die|fin|short|reset|stall|mute [llama-server's arguments]
      die    two events, then SIGKILL
      fin    two events of a chunked answer, then the end of the connection
      short  half of the body that Content-Length announced
      reset  two events, then RST
      stall  two events, then nothing
      mute   no answer at all; stdout tells "request" when one came and "gone SECONDS" (monotonic) when its
             connection was closed
"""
import os
import signal
import socket
import struct
import sys
import threading
import time

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],"object":"chat.completion.chunk"}\n\n'


def chunk(data):
    return b"%x\r\n" % len(data) + data + b"\r\n"


def serve(conn, how):
    with conn:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                more = conn.recv(65536)
                if not more:
                    return
                data += more
            head, data = data.split(b"\r\n\r\n", 1)
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            while len(data) < length:
                data += conn.recv(65536)
            data = data[length:]
            if head.startswith(b"GET"):
                body = b'{"status":"ok"}'
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                continue
            if how == "mute":
                print("request", flush=True)
                try:
                    while conn.recv(65536):
                        pass
                except ConnectionError:
                    pass
                print(f"gone {time.monotonic():.6f}", flush=True)
                return
            if how == "short":
                conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
                             + b'{"choices":' + b" " * 50000)
                return
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            conn.sendall(chunk(CHUNK))
            conn.sendall(chunk(CHUNK))
            if how == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "reset":
                conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            if how == "stall":
                while conn.recv(65536):
                    pass
            return


def main():
    how, args = sys.argv[1], sys.argv[2:]
    listener = socket.create_server(("127.0.0.1", int(args[args.index("--port") + 1])))
    while True:
        conn, _ = listener.accept()
        threading.Thread(target=serve, args=(conn, how), daemon=True).start()


if __name__ == "__main__":
    main()
