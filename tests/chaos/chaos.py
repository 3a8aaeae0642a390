#!/usr/bin/env python3
"""Everything that may go wrong, at random and at once, while clients ask; and what must hold all the same.

    chaos.py --arriero BINARY --llama BUNDLE/llama-server [--minutes N] [--seed S] [--clients N] [--out FILE]

Actions come from a shuffled deck (actions.py), about one in half a second; clients (clients.py) ask all along; invariants.py
says what must hold. Once a minute and at the end everything is cured, and the daemon is looked at at rest. At the first
broken invariant the run ends with exit status 1, the seed, the last actions and the end of the daemon's log.
"""
import argparse
import json
import pathlib
import random
import sys
import threading
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / folder) for folder in ("chaos", "flow", "bench/oom")]

import actions  # noqa: E402
import invariants  # noqa: E402
from clients import ENDINGS  # noqa: E402
from lib.wire import wait_for  # noqa: E402
from world import Violation, World  # noqa: E402

REST_EVERY = 40  # steps


class Watcher(threading.Thread):
    """Looks at what must always hold; what it meets while the daemon comes or goes is looked at again."""

    def __init__(self, world):
        super().__init__(daemon=True, name="watcher")
        self.world, self.looks = world, 0

    def run(self):
        while not self.world.over.wait(0.5):
            for check in invariants.ALWAYS:
                self.look(check)
            self.looks += 1

    def look(self, check):
        world = self.world
        began, life = time.monotonic(), world.life
        try:
            if world.is_up():
                check(world)
        except Violation as e:
            if life == world.life or check is invariants.endings:
                world.violate(str(e))
        except (OSError, AssertionError, ValueError, KeyError) as e:  # a look that the end of the daemon cut short
            if life == world.life and not world.was_down(began, time.monotonic()):
                world.violate(f"{check.__name__}: {type(e).__name__}: {e}")


class Run:
    def __init__(self, world, rng):
        self.world, self.rng, self.deck = world, rng, actions.deck(rng)
        self.watcher = Watcher(world)

    def begin(self):
        world = self.world
        world.start()
        status, key = world.control("POST", "/keys", {"name": "clients"})
        world.check(status == 200, f"no key: {status} {key}")
        world.keys[key["id"]] = {"name": "clients", "key": key["key"]}
        world.credential = f"Authorization: Bearer {key['key']}"
        for model in world.models:
            world.ask_once(model)
        self.rest()
        self.watcher.start()
        for c in world.clients:
            c.start()

    def act(self):
        world = self.world
        world.step += 1
        world.cure()
        name = next(self.deck)
        pause = self.rng.uniform(0.1, 0.8)
        told = actions.ACTIONS[name][1](world, self.rng)
        if told:
            world.counts[name] += 1
            world.did(told)
        world.over.wait(pause)

    def rest(self):
        """Nobody asks, nothing is loaded, all is cured: what is left then is a leak."""
        world = self.world
        world.go.clear()
        world.cure(everything=True)
        wait_for(lambda: world.over.is_set() or all(c.rests for c in world.clients), 200, 0.05, "the clients' rest")
        for t in world.operators:
            t.join(200)
            world.check(not t.is_alive(), f"{t.name}: no answer within 200 s")
        world.operators.clear()
        invariants.endings(world)
        status, answer = world.control("POST", "/unload", {"model": ""})
        world.check(status == 200, f"unload all: {status} {answer}")
        for check in (*invariants.AT_REST, *invariants.KEPT, invariants.pins_are_kept):
            check(world)
        world.did("at rest: nothing is left")

    def go(self, minutes, steps):
        world = self.world
        try:
            self.begin()
            end = time.monotonic() + 60 * minutes
            while not world.over.is_set() and (world.step < steps or time.monotonic() < end):
                if world.step % REST_EVERY == REST_EVERY - 1:
                    self.rest()
                world.go.set()
                self.act()
            if not world.violations:
                self.rest()
                invariants.everything_answers(world)
                world.over.set()
                world.go.set()
                world.daemon.stop(60)
                invariants.database_opens(world)
        except (Violation, AssertionError, OSError, KeyError, ValueError) as e:
            world.violate(f"{type(e).__name__}: {e}" if not isinstance(e, Violation) else str(e))


def summary(world, run, seconds):
    return {"seed": world.seed, "seconds": round(seconds, 1), "steps": world.step,
            "actions": dict(sorted(world.counts.items())), "requests": sum(world.endings.values()),
            "endings": {k: world.endings[k] for k in ENDINGS if world.endings[k]},
            "lives": (world.life + 1) // 2, "looks": run.watcher.looks, "writes_refused": world.faults.refused,
            "resident_mib": [round(r / (1 << 20), 1) for r in world.rss], "violations": world.violations}


def show(r, out=sys.stdout):
    print(f"\nchaos, seed {r['seed']}: {r['steps']} steps in {r['seconds']} s, {r['lives']} lives of the daemon, "
          f"{r['looks']} looks, {r['writes_refused']} writes refused", file=out)
    for title, rows in (("action", r["actions"]), ("ending", r["endings"])):
        width = max(map(len, rows), default=0)
        for name, n in rows.items():
            print(f"  {title if name == next(iter(rows)) else '':8}{name:{width}}  {n:6}", file=out)
    print(f"  {r['requests']} requests; resident at each rest, MiB: {r['resident_mib']}", file=out)


def story(world):
    """What is needed to look into a broken invariant."""
    yield f"\nBROKEN (SEED={world.seed} plays the same actions again):"
    yield from world.violations
    yield "\nthe last 30 s:\n" + world.recent(30)
    yield "\nthe daemon's log:\n" + world.daemon.log()[-6000:]


def play(world, minutes=0.0, steps=0):
    """A whole run; its summary. The world is not destroyed."""
    began = time.monotonic()
    run = Run(world, random.Random(world.seed))
    run.go(minutes, steps)
    return summary(world, run, time.monotonic() - began)


def main():
    p = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    p.add_argument("--arriero", required=True)
    p.add_argument("--llama", required=True)
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--seed", type=int, default=None)
    p.add_argument("--clients", type=int, default=50)
    p.add_argument("--out")
    a = p.parse_args()
    seed = a.seed if a.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"SEED={seed}", flush=True)
    world = World(str(pathlib.Path(a.arriero).resolve()), a.llama, seed, log=lambda s: print(s, flush=True), n_clients=a.clients)
    try:
        result = play(world, a.minutes)
        if world.violations:
            print(*story(world), sep="\n")
    finally:
        world.destroy()
    show(result)
    if a.out:
        pathlib.Path(a.out).write_text(json.dumps(result, indent=1) + "\n")
    print("chaos: " + ("every invariant held" if not result["violations"] else "BROKEN, see above"))
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
