#!/usr/bin/env python3
"""Writes the seed corpus of fuzz_gguf: make_corpus.py DIR. Small valid files, and one for each way to lie."""
import struct
import sys
from pathlib import Path

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q",
           I64: "<q", F64: "<d"}
SIZES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 8: (32, 34), 12: (256, 144), 14: (256, 210), 39: (32, 17)}


def text(s):
    raw = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind, v):
    if kind == STRING:
        return text(v)
    if kind == ARRAY:
        sub, items = v
        return struct.pack("<IQ", sub, len(items)) + b"".join(value(sub, i) for i in items)
    return struct.pack(FORMATS[kind], v)


def kv(key, kind, v):
    return text(key) + struct.pack("<I", kind) + value(kind, v)


def llama(layers=2):
    return [kv("general.architecture", STRING, "llama"), kv("llama.block_count", U32, layers),
            kv("llama.context_length", U32, 4096), kv("llama.embedding_length", U64, 256)]


def info(name, dims, kind, offset):
    return (text(name) + struct.pack("<I", len(dims)) + struct.pack("<%dQ" % len(dims), *dims)
            + struct.pack("<IQ", kind, offset))


def file(kvs, tensors, version=3, align=32, data=True, n_kvs=None, n_tensors=None):
    infos, offset = b"", 0
    for name, dims, kind in tensors:
        infos += info(name, dims, kind, offset)
        n = 1
        for d in dims:
            n *= d
        block, size = SIZES[kind]
        offset += -(-(n // block * size) // align) * align
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors) if n_tensors is None else n_tensors,
                                 len(kvs) if n_kvs is None else n_kvs) + b"".join(kvs) + infos
    head += b"\0" * (-len(head) % align)
    return head + (b"\0" * offset if data else b"")


def raw_tensor(body, data=64):
    head = file(llama(), [], n_tensors=1)
    head = head[:24] + b"".join(llama()) + body
    return head + b"\0" * (-len(head) % 32) + b"\0" * data


def valid():
    small = [("token_embd.weight", (32, 4), 8), ("blk.0.attn_q.weight", (32, 1), 2), ("blk.1.attn_norm.weight", (8,), 0)]
    many = [kv("k.%d" % k, k, 1) for k in FORMATS]
    arrays = [kv("a.%d" % k, ARRAY, (k, [0, 1])) for k in FORMATS]
    tokens = kv("tokenizer.ggml.tokens", ARRAY, (STRING, ["<s>", "a", "\u2581b"]))
    yield "valid-minimal", file(llama(), [])
    yield "valid-v2", file(llama(), small, version=2)
    yield "valid-tensors", file(llama(), small)
    yield "valid-kinds", file(llama() + many + arrays, [])
    yield "valid-vocabulary", file(llama() + [tokens, kv("tokenizer.chat_template", STRING, "{{ x }}"),
                                              kv("general.name", STRING, "A\u00e9 b"),
                                              kv("general.file_type", U32, 15)], small)
    yield "valid-moe", file(llama() + [kv("llama.expert_count", U32, 8), kv("llama.expert_used_count", U32, 2)],
                            [("blk.0.ffn_up_exps.weight", (32, 2, 8), 39), ("blk.1.ffn_up.3.weight", (32, 1), 39)])
    yield "valid-alignment", file(llama() + [kv("general.alignment", U32, 64)], small, align=64)
    yield "valid-per-layer", file(llama() + [kv("llama.attention.head_count_kv", ARRAY, (I32, [8, 0]))], [])
    yield "valid-projector", file([kv("general.architecture", STRING, "clip"),
                                   kv("general.type", STRING, "mmproj")], [("v.blk.0.attn_q.weight", (8, 8), 1)])
    yield "valid-scalar", file(llama(), [("t", (), 0)])


def hostile():
    ok = file(llama(), [("blk.0.attn_q.weight", (32, 1), 2)])
    yield "bad-magic", b"GGML" + ok[4:]
    yield "bad-empty", b""
    yield "bad-v1", ok[:4] + struct.pack("<I", 1) + ok[8:]
    yield "bad-endian", ok[:4] + struct.pack(">I", 3) + ok[8:]
    yield "bad-counts", b"GGUF" + struct.pack("<IQQ", 3, 1 << 61, 1 << 60) + b"\0" * 40
    yield "bad-counts-negative", b"GGUF" + struct.pack("<IQQ", 3, 2**64 - 1, 2**64 - 1) + b"\0" * 40
    yield "bad-truncated-head", ok[:60]
    yield "bad-truncated-data", ok[:-20]
    yield "bad-long-string", file(llama() + [text("s") + struct.pack("<IQ", STRING, 2**63)], [])
    yield "bad-long-array", file(llama() + [text("s") + struct.pack("<IIQ", ARRAY, U64, 2**61)], [])
    yield "bad-string-array", file(llama() + [text("s") + struct.pack("<IIQ", ARRAY, STRING, 2**60)], [])
    yield "bad-nested-array", file(llama() + [kv("s", ARRAY, (ARRAY, [(U8, [1])]))], [])
    yield "bad-kind", file(llama() + [text("s") + struct.pack("<IQ", 13, 1)], [])
    yield "bad-duplicate-key", file(llama() + [kv("llama.block_count", U32, 2)], [])
    yield "bad-duplicate-tensor", file(llama(), [("t", (8,), 0), ("t", (8,), 0)])
    yield "bad-nul-key", file(llama() + [text(b"a\0b") + struct.pack("<IB", U8, 1)], [])
    yield "bad-alignment-0", file(llama() + [kv("general.alignment", U32, 0)], [])
    yield "bad-alignment-3", file(llama() + [kv("general.alignment", U32, 3)], [])
    yield "bad-alignment-huge", file(llama() + [kv("general.alignment", U32, 1 << 31)], [])
    yield "bad-alignment-string", file(llama() + [kv("general.alignment", STRING, "32")], [])
    yield "bad-no-architecture", file(llama()[1:], [])
    yield "bad-architecture-kind", file([kv("general.architecture", U32, 1)] + llama()[1:], [])
    yield "bad-block-count-kind", file([llama()[0], kv("llama.block_count", STRING, "2")], [])
    yield "bad-block-count-huge", file(llama(0xffffffff), [])
    yield "bad-split", file(llama() + [kv("split.count", U16, 3), kv("split.no", U16, 1)], [])
    yield "bad-dims-5", raw_tensor(info("t", (1, 1, 1, 1, 1), 0, 0))
    yield "bad-dims-huge", raw_tensor(text("t") + struct.pack("<I", 0xffffffff))
    yield "bad-dim-zero", raw_tensor(info("t", (8, 0), 0, 0))
    yield "bad-dims-overflow", raw_tensor(info("t", (1 << 32, 1 << 31), 0, 0))
    yield "bad-bytes-overflow", raw_tensor(info("t", (1 << 31, 1 << 31), 28, 0))
    yield "bad-block", raw_tensor(info("t", (100,), 2, 0))
    yield "bad-type", raw_tensor(info("t", (8,), 4, 0))
    yield "bad-offset", raw_tensor(info("t", (8,), 0, 2**64 - 32))
    yield "bad-name-long", raw_tensor(info("n" * 64, (8,), 0, 0))
    yield "bad-name-empty", raw_tensor(info("", (8,), 0, 0))


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    for source in (valid(), hostile()):
        for name, data in source:
            (out / (name + ".gguf")).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
