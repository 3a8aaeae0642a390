"""Writes small random llama models that the real llama-server serves (gibberish, correct protocol).

    write("a.gguf", name="Tiny A")                       0.6 MB
    write("m.gguf", embd=512, layers=4, ff=1024)         slow enough to be interrupted

Run as a program: tinygguf.py OUT.gguf [KEY=VALUE]... with the same keywords.
"""
import array
import random
import struct
import sys

MAGIC, VERSION, ALIGN = b"GGUF", 3, 32
U32, F32, BOOL, STR, ARR, I32 = 4, 6, 7, 8, 9, 5
TOKEN_NORMAL, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_BYTE = 1, 2, 3, 6


def _str(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def _kv(key, kind, value):
    out = _str(key) + struct.pack("<I", kind)
    if kind == STR:
        return out + _str(value)
    if kind == ARR:
        sub, items = value
        out += struct.pack("<IQ", sub, len(items))
        if sub == STR:
            return out + b"".join(_str(i) for i in items)
        return out + array.array({I32: "i", F32: "f"}[sub], items).tobytes()
    return out + struct.pack({U32: "<I", F32: "<f", BOOL: "<?"}[kind], value)


def vocabulary(size):
    """A byte vocabulary and words made of letters to fill it: (tokens, scores, types)."""
    tokens, types = ["<unk>", "<s>", "</s>"], [TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_CONTROL]
    tokens += [f"<0x{b:02X}>" for b in range(256)]
    types += [TOKEN_BYTE] * 256
    letters = "abcdefghijklmnopqrstuvwxyz"
    n = 0
    while len(tokens) < size:
        word, i = "", n
        while True:
            word = letters[i % 26] + word
            i = i // 26 - 1
            if i < 0:
                break
        tokens.append("\u2581" + word)
        types.append(TOKEN_NORMAL)
        n += 1
    scores = [0.0] * 259 + [-float(i) for i in range(len(tokens) - 259)]
    return tokens, scores, types


def write(path, name="Tiny", ctx=2048, layers=2, embd=64, heads=4, kv_heads=None, ff=128, vocab=384,
          seed=1, arch="llama", rope_base=10000.0, pooling=None, experts=0, used=2):
    """Writes one model; returns the path. experts: so many of width ff in each layer, of which a token goes to `used`. pooling: as an embedding model says it (1 mean, 2 first, 3 last)."""
    kv_heads = kv_heads or heads
    head_dim = embd // heads
    tokens, scores, types = vocabulary(vocab)
    kvs = [
        _kv("general.architecture", STR, arch),
        _kv("general.name", STR, name),
        _kv("general.type", STR, "model"),
        _kv("general.file_type", U32, 0),
        _kv(f"{arch}.context_length", U32, int(ctx)),
        _kv(f"{arch}.embedding_length", U32, embd),
        _kv(f"{arch}.block_count", U32, layers),
        _kv(f"{arch}.feed_forward_length", U32, ff),
        _kv(f"{arch}.attention.head_count", U32, heads),
        _kv(f"{arch}.attention.head_count_kv", U32, kv_heads),
        _kv(f"{arch}.attention.layer_norm_rms_epsilon", F32, 1e-5),
        _kv(f"{arch}.rope.dimension_count", U32, head_dim),
        _kv(f"{arch}.rope.freq_base", F32, rope_base),
        _kv(f"{arch}.vocab_size", U32, vocab),
        _kv("tokenizer.ggml.model", STR, "llama"),
        _kv("tokenizer.ggml.tokens", ARR, (STR, tokens)),
        _kv("tokenizer.ggml.scores", ARR, (F32, scores)),
        _kv("tokenizer.ggml.token_type", ARR, (I32, types)),
        _kv("tokenizer.ggml.bos_token_id", U32, 1),
        _kv("tokenizer.ggml.eos_token_id", U32, 2),
        _kv("tokenizer.ggml.unknown_token_id", U32, 0),
        _kv("tokenizer.ggml.add_bos_token", BOOL, True),
    ]
    if pooling is not None:
        kvs.append(_kv(f"{arch}.pooling_type", U32, pooling))
    if experts:
        kvs += [_kv(f"{arch}.expert_count", U32, experts), _kv(f"{arch}.expert_used_count", U32, used)]
    each, suffix = ((experts,), "_exps") if experts else ((), "")
    tensors = [("token_embd.weight", (embd, vocab)), ("output_norm.weight", (embd,)), ("output.weight", (embd, vocab))]
    for i in range(layers):
        b = f"blk.{i}."
        tensors += [
            (b + "attn_norm.weight", (embd,)), (b + "ffn_norm.weight", (embd,)),
            (b + "attn_q.weight", (embd, heads * head_dim)), (b + "attn_k.weight", (embd, kv_heads * head_dim)),
            (b + "attn_v.weight", (embd, kv_heads * head_dim)), (b + "attn_output.weight", (heads * head_dim, embd)),
            (b + f"ffn_gate{suffix}.weight", (embd, ff) + each), (b + f"ffn_up{suffix}.weight", (embd, ff) + each),
            (b + f"ffn_down{suffix}.weight", (ff, embd) + each),
        ]
        if experts:
            tensors.append((b + "ffn_gate_inp.weight", (embd, experts)))
    return _save(path, kvs, tensors, seed, 1.0 / embd ** 0.5)


def write_adapter(path, name="Tiny LoRA", layers=2, embd=64, heads=4, rank=8, alpha=16.0, seed=9, arch="llama"):
    """A LoRA adapter for the model that write() makes of the same sizes; returns the path."""
    kvs = [_kv("general.architecture", STR, arch), _kv("general.type", STR, "adapter"), _kv("general.name", STR, name),
           _kv("adapter.type", STR, "lora"), _kv("adapter.lora.alpha", F32, alpha)]
    tensors = []
    for i in range(layers):
        for weight in ("attn_q", "attn_output"):
            tensors += [(f"blk.{i}.{weight}.weight.lora_a", (embd, rank)), (f"blk.{i}.{weight}.weight.lora_b", (rank, embd))]
    return _save(path, kvs, tensors, seed, 1.0 / embd ** 0.5)


def _save(path, kvs, tensors, seed, scale):
    infos, offset = [], 0
    for tname, dims in tensors:
        count = 1
        for d in dims:
            count *= d
        infos.append(_str(tname) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
                     + struct.pack("<IQ", 0, offset))
        offset += (count * 4 + ALIGN - 1) // ALIGN * ALIGN
    head = MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(kvs)) + b"".join(kvs) + b"".join(infos)
    head += b"\0" * (-len(head) % ALIGN)

    rng = random.Random(seed)
    block = array.array("f", (rng.gauss(0.0, scale) for _ in range(8191))).tobytes()
    with open(path, "wb") as f:
        f.write(head)
        for tname, dims in tensors:
            count = 1
            for d in dims:
                count *= d
            if tname.endswith("norm.weight"):
                data = array.array("f", [1.0] * count).tobytes()
            else:
                at = rng.randrange(8191) * 4
                data = (block[at:] + block * (count * 4 // len(block) + 1))[:count * 4]
            f.write(data + b"\0" * (-len(data) % ALIGN))
    return path


def main(argv):
    if not argv or "=" in argv[0]:
        sys.exit(__doc__)
    options = {}
    for a in argv[1:]:
        key, _, value = a.partition("=")
        options[key] = value if key in ("name", "arch") else float(value) if key == "rope_base" else int(value)
    print(write(argv[0], **options))


if __name__ == "__main__":
    main(sys.argv[1:])
