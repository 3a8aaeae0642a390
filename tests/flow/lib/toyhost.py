"""A host of a size of its own: /proc/meminfo of a daemon, in a mount namespace, tells a total and what is left of it by the
real memory of the daemon's servers and of real tenants. Whatever else runs on the machine is not seen.
"""
import contextlib
import os
import subprocess
import sys
import threading

from . import procs

MIB = 1 << 20
TENANT = r"""
import mmap, os, sys
held = []
for line in sys.stdin:
    for m in held:
        m.close()
    held.clear()
    n = int(line) << 20
    if n:
        m = mmap.mmap(-1, n)
        for at in range(0, n, 4096):
            m[at] = 1
        held.append(m)
    print("done", flush=True)
"""


def own_bytes(pid):
    """Resident and not of a file: what this process alone has taken."""
    with contextlib.suppress(OSError, IndexError):
        with open(f"/proc/{pid}/statm") as f:
            words = f.read().split()
        return (int(words[1]) - int(words[2])) * os.sysconf("SC_PAGESIZE")
    return 0


def shared_bytes(pid):
    """Of an anonymous shared mapping, as Python's mmap makes it: resident, and counted with files."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/status") as f:
            for line in f:
                if line.startswith("RssShmem:"):
                    return int(line.split()[1]) * 1024
    return 0


class Tenant:
    """A process that takes as much as it is told: at once, as the host's figures have it."""

    def __init__(self, lock):
        self.lock = lock
        self.process = subprocess.Popen([sys.executable, "-c", TENANT], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.take(0)
        self.idle = self.used()

    def used(self):
        return own_bytes(self.process.pid) + shared_bytes(self.process.pid)

    def take(self, mib):
        with self.lock:
            self.process.stdin.write(f"{mib}\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline() == "done\n"

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


class ToyHost:
    """A wrapper for a daemon's binary, and a thread that keeps its /proc/meminfo true."""

    def __init__(self, folder, binary, total_mib):
        self.total, self.file = total_mib * MIB, f"{folder}/meminfo"
        self.tenants, self.daemon, self._stop = [], None, threading.Event()
        self._lock = threading.Lock()
        self._write(self.total)
        self.wrapper = f"{folder}/arriero-on-a-toy-host"
        with open(self.wrapper, "w", encoding="utf-8") as f:
            f.write(f'#!/bin/sh\n[ "$1" = serve ] || exec {binary} "$@"\n'
                    f"exec unshare {' '.join(self.flags())} sh -c 'mount --bind {self.file} /proc/meminfo && "
                    f"exec {binary} \"$@\"' sh \"$@\"\n")
        os.chmod(self.wrapper, 0o755)

    @staticmethod
    def flags():
        return ["-m"] if os.geteuid() == 0 else ["-U", "-r", "-m"]

    @classmethod
    def works(cls, folder):
        """Whether this machine lets us have a mount namespace of our own."""
        probe = f"{folder}/probe"
        open(probe, "w", encoding="utf-8").close()
        r = subprocess.run(["unshare", *cls.flags(), "mount", "--bind", probe, "/proc/meminfo"], capture_output=True)
        return r.returncode == 0

    def _write(self, available):
        kib = [self.total // 1024, max(0, available) // 1024]
        text = f"MemTotal: {kib[0]:>15} kB\nMemFree: {kib[1]:>15} kB\nMemAvailable: {kib[1]:>15} kB\n" \
               "SwapTotal:               0 kB\nSwapFree:               0 kB\n"
        fd = os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(fd, text.encode(), 0)  # always of one length: a reader sees the old or the new
        os.close(fd)

    def _servers(self):
        pid = self.daemon.process.pid if self.daemon and self.daemon.process else 0
        return list(procs.descendants(pid)) if pid else []

    def _run(self):
        while not self._stop.wait(0.03):
            with self._lock:
                used = sum(own_bytes(p) for p in self._servers()) + sum(t.used() - t.idle for t in self.tenants)
                self._write(self.total - used)

    def watch(self, daemon):
        self.daemon = daemon
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def tenant(self):
        t = Tenant(self._lock)
        self.tenants.append(t)
        return t

    def close(self):
        self._stop.set()
        if self.daemon:
            self._thread.join(10)
        for t in self.tenants:
            t.close()
