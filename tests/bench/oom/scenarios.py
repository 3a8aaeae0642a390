"""The scenarios, the same for the same number: models, devices, contexts, cache types, tenants."""
import random

MIB = 1 << 20

# Thin layers, as many as real models have, so that a share of them can fill a device as finely as there. F32.
MODELS = {
    "mha-48": dict(embd=128, layers=48, heads=4, ff=256, ctx=512, vocab=512),
    "gqa-40": dict(embd=128, layers=40, heads=4, kv_heads=1, ff=320, ctx=768, vocab=512),
    "gqa-32": dict(embd=192, layers=32, heads=6, kv_heads=2, ff=512, ctx=512, vocab=1024),
    "thin-64": dict(embd=64, layers=64, heads=2, ff=192, ctx=768, vocab=384),
    "short-12": dict(embd=128, layers=12, heads=4, ff=384, ctx=1024, vocab=512),
    "moe-8x32": dict(embd=128, layers=32, heads=4, kv_heads=2, ff=64, ctx=512, vocab=512, experts=8),
    "moe-16x24": dict(embd=96, layers=24, heads=3, ff=64, ctx=768, vocab=512, experts=16),
}


def weights(m):
    """Bytes of the layers and the output: what all of it on devices takes."""
    kv = m.get("kv_heads") or m["heads"]
    dim = m["embd"] // m["heads"]
    attention = m["embd"] * (2 * m["heads"] + 2 * kv) * dim
    n = m.get("experts", 0)
    ffn = 3 * m["embd"] * m["ff"] * (n or 1) + m["embd"] * n
    return 4 * (m["layers"] * (attention + ffn + 2 * m["embd"]) + m["embd"] * (m["vocab"] + 1))


def cache(m, ctx):
    """Bytes of an f16 cache."""
    kv = m.get("kv_heads") or m["heads"]
    return ctx * m["layers"] * kv * (m["embd"] // m["heads"]) * 2 * 2


def work(m, ctx):
    """About what the graph takes on one device: rows of 512 tokens, and the mask."""
    return 4 * 512 * (3 * m["ff"] + 4 * m["embd"]) + ctx * 512 * 2


def naive_need(m, ctx):
    return weights(m) + cache(m, ctx) + work(m, ctx)


def _split(rng, total, n, least):
    """Unequal shares, none below the least."""
    parts = [rng.uniform(0.25, 1) for _ in range(n)]
    return [max(int(total * p / sum(parts)), least) // 4096 * 4096 for p in parts]


def scenario(i):
    """A dictionary: everything that the three ways are told, and what happens behind their backs.

    ctx        asked, in tokens: all of it must be served; 0 = as much as fits, at least ctx_min
    kv         "auto" or a cache type asked
    allow_cpu  may layers lie in RAM? false: all layers on devices
    tenant     None, or {device, bytes, hidden}: memory that another takes between plan and load; hidden: the
               device goes on to tell the old size
    """
    rng = random.Random(7919 * (i + 1))
    name = rng.choice(list(MODELS))
    m = MODELS[name]
    asked = rng.random() < 0.5
    ctx = rng.choice([256, 512, m["ctx"], m["ctx"]]) if asked else 0
    ctx_min = ctx or rng.choice([256, 512])
    kv = rng.choice(["auto", "auto", "auto", "f16", "q8_0"])
    allow_cpu = rng.random() < 0.8
    n = rng.choice([1, 1, 1, 2, 2, 3])
    # from a quarter of what all layers and the whole context take to a third more
    total = naive_need(m, ctx or m["ctx"]) * rng.uniform(0.25, 1.3)
    # no device that two graphs would fill: real ones are far larger than theirs
    sizes = _split(rng, total, n, max(8 * MIB, 2 * work(m, ctx or m["ctx"])))
    tenant = None
    if rng.random() < 0.25:
        device = rng.randrange(n)
        tenant = {"device": device, "bytes": int(sizes[device] * rng.uniform(0.15, 0.6)), "hidden": rng.random() < 0.5}
    return {"number": i, "model": name, "ctx": ctx, "ctx_min": ctx_min, "kv": kv, "allow_cpu": allow_cpu,
            "sizes": sizes, "tenant": tenant, "larger": weights(m) > sum(sizes)}


def title(s):
    t = s["tenant"]
    return "%3d %-9s ctx %-5s kv %-4s %s %s%s" % (
        s["number"], s["model"], s["ctx"] or f">={s['ctx_min']}", s["kv"], "cpu " if s["allow_cpu"] else "gpus",
        "+".join("%.1f" % (b / MIB) for b in s["sizes"]),
        " tenant %s%.1f on %d" % ("hidden " if t["hidden"] else "", t["bytes"] / MIB, t["device"]) if t else "")
