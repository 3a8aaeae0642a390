"""Processes as /proc shows them: who descends from whom, who is alive, who carries a mark."""
import os
import select
import signal
import time


def start_time(pid):
    """Tells one pid's lives apart; None when it is dead or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rsplit(b")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def alive(pid, started=None):
    now = start_time(pid)
    return now is not None and (started is None or now == started)


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def all_pids():
    return [int(p) for p in os.listdir("/proc") if p.isdigit()]


def descendants(pid):
    """{pid: start time} of every living descendant."""
    parents = {}
    for p in all_pids():
        try:
            with open(f"/proc/{p}/stat", "rb") as f:
                parents.setdefault(int(f.read().rsplit(b")", 1)[1].split()[1]), []).append(p)
        except OSError:
            continue
    found, todo = {}, [pid]
    while todo:
        for child in parents.get(todo.pop(), ()):
            started = start_time(child)
            if started is not None:
                found[child] = started
                todo.append(child)
    return found


def marked(name, value):
    """{pid: start time} of living processes with NAME=value in their environment."""
    want = f"{name}={value}".encode()
    found = {}
    for p in all_pids():
        try:
            with open(f"/proc/{p}/environ", "rb") as f:
                if want in f.read().split(b"\0"):
                    started = start_time(p)
                    if started is not None:
                        found[p] = started
        except OSError:
            continue
    return found


def wait_gone(pids, seconds):
    """Waits for the deaths of {pid: start time}; returns those still alive."""
    poll, fds = select.poll(), {}
    for pid, started in pids.items():
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            continue
        if not alive(pid, started):
            os.close(fd)
            continue
        fds[fd] = pid
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + seconds
    while fds:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        for fd, _ in poll.poll(left * 1000):
            poll.unregister(fd)
            os.close(fd)
            del fds[fd]
    for fd in fds:
        os.close(fd)
    return [pid for pid in fds.values() if alive(pid, pids[pid])]


def kill(pid, sig=signal.SIGKILL):
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        pass
