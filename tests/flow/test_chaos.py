"""The short form of `make chaos`: one deck of its actions, so that each has been met, with fewer clients and a seed of its own."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "chaos"))

import chaos  # noqa: E402
import actions  # noqa: E402
from world import World  # noqa: E402

SEED = 5


def test_one_deck_of_chaos(arriero_bin, bundle):
    cards = sum(weight for weight, _ in actions.ACTIONS.values())
    world = World(arriero_bin, bundle + "/llama-server", SEED, log=lambda line: None, n_clients=10)
    try:
        result = chaos.play(world, steps=cards)
        assert not world.violations, "\n".join(chaos.story(world))
    finally:
        world.destroy()
    assert result["endings"]["whole"] > 0 and result["lives"] > 2
    # the others need a running backend, or a spare key, at the moment of their card
    always = set(actions.ACTIONS) - {"kill backend", "crash backend", "freeze backend", "revoke key", "squat"}
    assert always <= set(result["actions"]), always - set(result["actions"])
