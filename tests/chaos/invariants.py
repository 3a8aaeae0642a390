"""What must hold: of every ending, at every moment, at rest, and over a restart. Each check raises world.Violation.

ALWAYS is looked at all along, AT_REST when no client asks, nothing is loaded and all faults are cured, KEPT after each start.
"""
import os
import pathlib
import shutil
import sqlite3
import time

from lib import procs
from lib.daemon import MARK, REPORT
from lib.wire import fetch, wait_for

from world import BUSY_STATES, HOST_BUDGET, Violation

MIB = 1 << 20
ORPHAN_S = 8       # the daemon's children may outlive it so long: a killed process takes a while on a busy machine
REST_S = 60        # connections that are kept and threads of others end in far less
GROWTH_BYTES = 96 * MIB


# ---- endings ----

def judge(world, o):
    """The sentence that says what is wrong with an ending, or None."""
    down = world.was_down(o.began, o.ended)
    if o.ending in ("whole", "left", "refused", "told"):
        return None
    if o.ending == "lost" and down:
        return None
    if o.ending == "cut" and (down or world.was_disturbed(o.model, o.began, o.ended)):
        return None
    return str(o)


def endings(world):
    for o in world.take_outcomes():
        wrong = judge(world, o)
        if wrong:
            raise Violation(wrong)


# ---- at every moment ----

def lives(world):
    """Nobody but the harness ends the daemon."""
    process = world.daemon.process
    if world.is_up() and process and process.poll() is not None:
        raise Violation(f"the daemon ended by itself with {process.returncode}")


def reports_nothing(world):
    lines = world.daemon.lines
    new, world.seen_lines = lines[world.seen_lines:], len(lines)
    found = [line for line in new if REPORT.search(line)]
    world.check(not found, f"a sanitizer reports: {found[:1]}")


def memory(world):
    """What runs was promised no more than a device has, nor the budget; a worker serves one model at a time."""
    sums, users = {}, {}
    for i in world.instances():
        if i["state"] not in BUSY_STATES:
            continue  # one that is only planned waits until others are gone
        for d in i["devices"]:
            sums[d["name"]] = sums.get(d["name"], 0) + d["predicted_bytes"]
            if d["name"] != "Host":
                users.setdefault(d["name"], []).append(i["id"])
    bounds = {f"RPC{n}": toy.size for n, toy in enumerate(world.toys)}
    bounds["Host"] = HOST_BUDGET
    for name, total in sums.items():
        world.check(total <= bounds[name], f"{name} has {bounds[name]} bytes for models, and {total} are promised")
    for name, ids in users.items():
        world.check(len(ids) == 1, f"{name} serves one at a time, and has {ids}")


def no_orphans(world):
    """Every process with the mark of this run descends from the daemon, or is on its way out."""
    daemon = world.daemon.process
    known = procs.descendants(daemon.pid) if daemon else {}
    strays = {p: t for p, t in procs.marked(MARK, world.daemon.mark).items()
              if p not in known and not (daemon and p == daemon.pid)}
    if strays and world.is_up():
        left = [p for p in procs.wait_gone(strays, ORPHAN_S) if daemon and p not in procs.descendants(daemon.pid)]
        world.check(not left, "orphans: " + "; ".join(f"{p} {procs.cmdline(p)[:200]}" for p in left))


ALWAYS = (lives, reports_nothing, endings, memory, no_orphans)


# ---- at rest ----

def _status(world):
    return world.control("GET", "/status")[1]


def nobody_left(world):
    """No lease, no waiting request, no connection but the one that asks."""
    def rests():
        c = _status(world)["counters"]
        return c["leases"] == 0 and c["waiting"] == 0 and c["connections"] <= 1
    try:
        wait_for(rests, REST_S, 0.1)
    except AssertionError:
        raise Violation(f"at rest there are still leases, waiting requests or connections: {_status(world)['counters']}") from None


def no_children(world):
    left = procs.wait_gone(procs.descendants(world.daemon.process.pid), REST_S)
    world.check(not left, "nothing is loaded, and there are processes: " +
                "; ".join(f"{p} {procs.cmdline(p)[:200]}" for p in left))


def _descriptors(pid):
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
    return found


def descriptors(world):
    """As many as at the first rest; later ones may have fewer."""
    pid = world.daemon.process.pid
    if world.base_fds is None:
        world.base_fds = len(_descriptors(pid))
    try:
        wait_for(lambda: len(_descriptors(pid)) <= world.base_fds, REST_S, 0.2)
    except AssertionError:
        raise Violation(f"{world.base_fds} descriptors at the first rest, now {_descriptors(pid)}") from None


def _listening():
    for name in ("tcp", "tcp6"):
        with open(f"/proc/net/{name}", encoding="ascii") as f:
            for line in f.readlines()[1:]:
                cell = line.split()
                if cell[3] == "0A":
                    yield cell[9], int(cell[1].rpartition(":")[2], 16)


def ports(world):
    """The daemon listens at its own address and nowhere else."""
    pid = world.daemon.process.pid
    mine = {link[8:-1] for link in _descriptors(pid).values() if link.startswith("socket:[")}
    open_ports = sorted(port for inode, port in _listening() if inode in mine)
    world.check(open_ports == [world.daemon.port], f"the daemon listens on {open_ports}, not on {world.daemon.port} alone")


def resident_memory(world):
    """The second rest is the measure: by then every table has its size."""
    with open(f"/proc/{world.daemon.process.pid}/status", encoding="ascii") as f:
        now = next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmRSS"))
    world.rss.append(now)
    first = world.rss[:2][-1]
    world.check(now <= first + GROWTH_BYTES, f"{first / MIB:.0f} MiB resident at first, now {now / MIB:.0f}: {world.rss}")


def history_is_written(world):
    """Whatever the disk and the clock did before."""
    def writable():
        return _status(world)["store"]["writable"]
    try:
        wait_for(writable, REST_S, 0.2)
    except AssertionError:
        raise Violation(f"the history is not written again: {_status(world)['history']}") from None


def everything_answers(world):
    """With the faults gone and nothing pinned, every model is loaded and answers; a pause after failures is waited for."""
    for model in world.models:
        world.control("POST", "/pin", {"model": model, "on": False})
    for model in world.models:
        end = time.monotonic() + 120
        while True:
            status, answer = world.ask_once(model)
            if status == 200:
                break
            world.check(time.monotonic() < end, f"{model} does not answer when all is well again: {status} {answer}")
            world.over.wait(0.5)


AT_REST = (nobody_left, no_children, descriptors, ports, resident_memory, history_is_written)


# ---- over a restart ----

def database_opens(world):
    """A copy of what the daemon left; nothing was moved aside as corrupt."""
    state = pathlib.Path(world.daemon.state_dir)
    aside = [f.name for f in state.iterdir() if "corrupt" in f.name] if state.exists() else []
    world.check(not aside, f"the history was given up as corrupt: {aside}")
    copy = world.dir + "/history"
    shutil.rmtree(copy, ignore_errors=True)
    os.mkdir(copy)
    for f in state.glob("history.db*"):
        shutil.copy(f, copy)
    if not os.path.exists(copy + "/history.db"):
        return
    try:
        db = sqlite3.connect(copy + "/history.db")
        found = db.execute("PRAGMA integrity_check").fetchall()
        db.close()
    except sqlite3.Error as e:
        raise Violation(f"the history does not open: {e}") from None
    world.check(found == [("ok",)], f"the history is damaged: {found[:5]}")


def keys_are_kept(world):
    """Keys that were made are there and open the door; revoked ones are not and do not."""
    have = {k["id"] for k in world.control("GET", "/keys")[1]["keys"]}
    lost, back = set(world.keys) - have, set(world.revoked) & have
    world.check(not lost and not back, f"keys lost {lost}, keys come back {back}")
    for known, right in ((world.keys, 200), (world.revoked, 401)):
        for key in known.values():
            status = fetch(world.where, "GET", "/v1/models", headers=[f"Authorization: Bearer {key['key']}"])[0]
            world.check(status == right, f"key {key['name']}: {status}, not {right}")


def settings_are_kept(world):
    """What the file said when it was last acknowledged."""
    def told():
        have = world.control("GET", "/config")[1]
        return world.settings_shown(have) == world.settings_wanted()
    try:
        wait_for(told, REST_S, 0.1)
    except AssertionError:
        raise Violation(f"settings {world.settings_wanted()} are not those that the daemon tells: "
                        f"{world.settings_shown(world.control('GET', '/config')[1])}") from None


def pins_are_kept(world):
    """Until the next start (arriero help pin)."""
    have = {m["id"]: m["pinned"] for m in world.control("GET", "/models")[1]["models"]}
    for model, on in world.pins.items():
        world.check(have.get(model) == on, f"{model}: pinned {have.get(model)}, and {on} was acknowledged")


KEPT = (keys_are_kept, settings_are_kept)
