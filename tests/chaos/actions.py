"""What may happen. One row of ACTIONS each: a function of the world and the run's random numbers that does it and returns
words for the log; None if it could not be done now. What breaks something leaves its cure with world.later: the number of
steps after which it is taken back. Nothing here is drawn from time, so a seed gives the same run as far as the machine allows.
"""
import os
import signal
import socket

import invariants
from lib import procs
from lib.wire import fetch

MIB = 1 << 20
DAY_MS = 86_400_000


def _model(world, rng):
    return rng.choice(world.models)


# ---- an operator ----

def load(world, rng):
    model = _model(world, rng)
    world.operate(f"load {model}", lambda: world.control("POST", "/load", {"model": model}))
    return f"load {model}"


def unload(world, rng):
    model, force = rng.choice([*world.models, ""]), rng.random() < 0.3
    world.disturb(model or None)  # a stream may be longer than drain_timeout
    world.operate(f"unload {model or 'all'}", lambda: world.control("POST", "/unload", {"model": model, "force": force}))
    return f"unload {model or 'all'}{', by force' if force else ''}"


def pin(world, rng):
    model, on = _model(world, rng), rng.random() < 0.4
    status, answer = world.control("POST", "/pin", {"model": model, "on": on})
    world.check(status == 200, f"pin {model}: {status} {answer}")
    world.pins[model] = on
    return f"{'pin' if on else 'unpin'} {model}"


def change_settings(world, rng):
    model, setting = _model(world, rng), rng.choice(["ctx", "priority"])
    world.settings[model][setting] = rng.choice([512, 1024, 2048, 4096] if setting == "ctx" else [-1, 0, 1])
    world.disturb(model)
    world.configure()
    world.reload(by_signal=rng.random() < 0.5)
    return f"{model}: {setting} {world.settings[model][setting]}"


def break_settings(world, rng):
    """A file that is none: everything stays as it was."""
    world.configure(broken=True)
    world.reload(by_signal=rng.random() < 0.5)
    world.later(rng.randint(1, 3), "the broken configuration", lambda: (world.configure(), world.reload(False)))
    return "a broken configuration"


def add_key(world, rng):
    name = f"key-{len(world.keys) + len(world.revoked)}"
    status, answer = world.control("POST", "/keys", {"name": name, "priority": rng.choice([-1, 0, 1])})
    world.check(status == 200 or answer["error"]["message"], f"key add {name}: {status} {answer}")
    if status == 200:
        world.keys[answer["id"]] = {"name": name, "key": answer["key"]}
    return f"key add {name}: {status}"


def revoke_key(world, rng):
    spare = sorted(i for i, k in world.keys.items() if k["name"] != "clients")
    if not spare:
        return None
    chosen = rng.choice(spare)
    status, answer = world.control("POST", "/keys/revoke", {"id": chosen})
    world.check(status == 200 or answer["error"]["message"], f"key revoke {chosen}: {status} {answer}")
    if status == 200:
        world.revoked[chosen] = world.keys.pop(chosen)
    return f"key revoke: {status}"


LOOKS = ("/status", "/gpus", "/models", "/instances", "/decisions", "/requests?limit=50", "/usage", "/measures", "/history",
         "/config", "/rebalance", "/keys")


def look(world, rng):
    """Every view, and a plan: they answer, whatever goes on."""
    for path in LOOKS:
        status, answer = world.control("GET", path)
        world.check(status == 200 and answer, f"GET {path}: {status} {answer}")
    status, answer = world.control("POST", "/plan", {"model": _model(world, rng)})
    world.check(status == 200 or answer["error"]["message"], f"POST /plan: {status} {answer}")
    for path in ("/health", "/metrics"):
        status = fetch(world.where, "GET", path, headers=[world.credential])[0]
        world.check(status == 200, f"GET {path}: {status}")
    return "look at everything"


# ---- backends ----

def _signal_backend(world, rng, sig):
    running = world.backends()
    if not running:
        return None
    model, pid = rng.choice(running)
    world.disturb(model)
    procs.kill(pid, sig)
    return model, pid


def kill_backend(world, rng):
    hit = _signal_backend(world, rng, signal.SIGKILL)
    return hit and "SIGKILL to the backend %s (%d)" % hit


def crash_backend(world, rng):
    hit = _signal_backend(world, rng, signal.SIGSEGV)
    return hit and "SIGSEGV to the backend %s (%d)" % hit


def freeze_backend(world, rng):
    hit = _signal_backend(world, rng, signal.SIGSTOP)
    if not hit:
        return None
    started = procs.start_time(hit[1])
    world.later(rng.randint(1, 4), "the frozen backend %s (%d)" % hit,
                lambda: procs.alive(hit[1], started) and procs.kill(hit[1], signal.SIGCONT))
    return "SIGSTOP to the backend %s (%d)" % hit


# ---- the daemon ----

def _restart(world, kill):
    """The next life: what the last one left is looked at before, what it promised after."""
    world.stop(kill)
    invariants.database_opens(world)
    world.pins.clear()  # as arriero help pin says
    world.start()
    for check in invariants.KEPT:
        check(world)


def kill_daemon(world, rng):
    _restart(world, kill=True)
    return "SIGKILL to the daemon, and a new one"


def stop_daemon(world, rng):
    _restart(world, kill=False)
    return "SIGTERM to the daemon under load, and a new one"


# ---- tenants ----

def _back_to_size(world, toy):
    toy.set(toy.size)


def tenant(world, rng):
    """Somebody takes memory of a device, and tells or not."""
    toy, share, tells = rng.choice(world.toys), rng.choice([0.3, 0.6, 1.0]), rng.random() < 0.5
    left = int(toy.size * (1 - share)) // MIB * MIB
    toy.set(left if tells else toy.size, left)
    world.disturb()  # what was promised there may be taken from under a load
    world.later(rng.randint(2, 6), f"the tenant of {toy.endpoint}", lambda: _back_to_size(world, toy))
    return f"a tenant takes {share:.0%} of {toy.endpoint}{'' if tells else ', and the device does not tell'}"


def squat(world, rng):
    """A second client of a worker: while it stays, nobody else is served there."""
    toy = rng.choice(world.toys)
    host, port = toy.endpoint.split(":")
    try:
        guest = socket.create_connection((host, int(port)), timeout=5)
    except OSError:
        return None
    world.later(rng.randint(1, 3), f"the second client of {toy.endpoint}", guest.close)
    return f"a second client connects to {toy.endpoint}"


def lose_device(world, rng):
    """A worker dies; it comes back empty."""
    toy = rng.choice(world.toys)
    world.disturb()
    toy.kill()
    world.later(rng.randint(1, 4), f"the dead worker {toy.endpoint}", toy.revive)
    return f"the worker {toy.endpoint} dies"


# ---- the machine ----

def fill_disk(world, rng):
    disk = rng.choice(world.faults.disks)
    world.faults.fill(disk, True)
    world.later(rng.randint(2, 5), f"the full disk {os.path.basename(disk)}", lambda: world.faults.fill(disk, False))
    return f"the disk of {os.path.basename(disk)} is full"


def jump_clock(world, rng):
    by = rng.choice([-400 * DAY_MS, -3_600_000, -5_000, 5_000, 3_600_000, 400 * DAY_MS])
    world.faults.jump(world.faults.jump_ms + by if abs(world.faults.jump_ms + by) < 800 * DAY_MS else 0)
    return f"the clock jumps to {world.faults.jump_ms / 1000:+.0f} s"


def half_a_request(world, rng):
    """Connections that begin something and stay."""
    held = []
    for text in (b"", b"POST /v1/chat/comp", b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"):
        try:
            s = socket.create_connection(world.where, timeout=5)
            s.sendall(text)
        except OSError:
            continue
        held.append(s)
    world.later(rng.randint(1, 3), "the half requests", lambda: [s.close() for s in held])
    return f"{len(held)} clients stop in the middle of their requests"


def damage_file(world, rng):
    """A model whose file is cut off appears; it is told of and not served, and the others are."""
    path = f"{world.shelf}/damaged.gguf"
    whole = f"{world.shelf}/{_model(world, rng)}.gguf"
    with open(whole, "rb") as f:
        head = f.read(rng.randint(1, 9000))
    with open(path, "wb") as f:
        f.write(head)
    world.reload(False)
    world.later(rng.randint(1, 3), "the damaged file", lambda: (os.unlink(path), world.reload(False)))
    return "a damaged model file appears"


# name: (weight, function)
ACTIONS = {
    "load": (4, load), "unload": (3, unload), "pin": (2, pin), "change settings": (3, change_settings),
    "break settings": (1, break_settings), "add key": (1, add_key), "revoke key": (1, revoke_key), "look": (2, look),
    "kill backend": (3, kill_backend), "crash backend": (2, crash_backend), "freeze backend": (2, freeze_backend),
    "kill daemon": (1, kill_daemon), "stop daemon": (1, stop_daemon), "tenant": (3, tenant), "squat": (1, squat),
    "lose device": (1, lose_device), "fill disk": (2, fill_disk), "jump clock": (2, jump_clock),
    "half a request": (1, half_a_request), "damage file": (1, damage_file),
}


def deck(rng):
    """Every row as often as its weight, shuffled, again and again: a run of one deck has met everything."""
    while True:
        cards = [name for name, (weight, _) in ACTIONS.items() for _ in range(weight)]
        rng.shuffle(cards)
        yield from cards
