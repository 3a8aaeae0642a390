"""Toy GPUs: workers of llama.cpp's RPC backend with a size of their own and a real limit to it.

A worker tells the size that its file holds and refuses buffers past it (toy_rpc.c), and the kernel refuses it more
address space than what it has when idle, the toy's size, and SLACK for what a worker keeps beside device memory:
messages, graphs and scratch space.
"""
import os
import resource
import signal
import socket
import subprocess
import time

MIB = 1 << 20
SLACK = 64 * MIB


class Toy:
    def __init__(self, server, shim, folder, number):
        self.server, self.shim = server, shim
        self.file, self.log = f"{folder}/toy{number}.size", f"{folder}/toy{number}.log"
        self.process, self.restarts = None, -1
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.endpoint = "127.0.0.1:%d" % s.getsockname()[1]
        self._write(0, 0)

    def _write(self, told, real):
        with open(self.file + ".new", "w") as f:
            f.write(f"{told} {real}")
        os.replace(self.file + ".new", self.file)
        self.told, self.real = told, real

    def _used(self):
        with open(f"/proc/{self.process.pid}/statm") as f:
            return int(f.read().split()[0]) * resource.getpagesize()

    def _listens(self):
        """Asks the kernel, not the worker, which would write of it in its log."""
        port = "%04X" % int(self.endpoint.split(":")[1])
        with open("/proc/net/tcp") as f:
            return any(line.split()[1].endswith(":" + port) and line.split()[3] == "0A" for line in f.readlines()[1:])

    def start(self):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("LLAMA_", "GGML_"))}
        # fixed: what is freed goes back to the kernel, whatever was freed before
        env.update(LD_PRELOAD=self.shim, TOY_RPC_SIZE=self.file, MALLOC_MMAP_THRESHOLD_="131072", MALLOC_ARENA_MAX="1",
                   MALLOC_TRIM_THRESHOLD_="131072", GGML_VK_VISIBLE_DEVICES="")
        host, port = self.endpoint.split(":")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([self.server, "-H", host, "-p", port, "-t", "1"], env=env, stdout=log,
                                            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        self.restarts += 1
        until = time.monotonic() + 60
        while not self._listens():
            assert self.process.poll() is None and time.monotonic() < until, f"{self.endpoint} did not start: {self.log}"
            time.sleep(0.01)
        self.idle = self._used()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def set(self, told, real=None):
        """It says `told` bytes; `real` (else the same) is what it can give."""
        if not self.alive():
            self.start()
        real = told if real is None else real
        limit = self.idle + real + SLACK
        resource.prlimit(self.process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        self._write(told, real)

    def wait_idle(self, seconds=10):
        """Until what its last client had is given back."""
        until = time.monotonic() + seconds
        while self.alive() and self._used() > self.idle + 4 * MIB and time.monotonic() < until:
            time.sleep(0.005)
        if self.alive():
            self.idle = self._used()

    def stop(self):
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)
