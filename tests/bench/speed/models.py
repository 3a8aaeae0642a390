"""Writes llama models with random weights: every block has a sane scale and random values, so that they cost what
trained weights of the type cost. No vocabulary: llama-bench feeds random tokens."""
import os
import random
import struct

# number in the file, values of a block, bytes of a block
TYPES = {'F32': (0, 1, 4), 'Q4_0': (2, 32, 18), 'Q8_0': (8, 32, 34), 'Q4_K': (12, 256, 144)}
FILE_TYPES = {'Q4_0': 2, 'Q8_0': 7, 'Q4_K': 14}
# layers, width, feed-forward, heads, heads of the cache, vocabulary
SIZES = {'100M': (12, 768, 2048, 12, 4, 16384), '300M': (16, 1024, 4096, 16, 4, 16384),
         '600M': (20, 1536, 5120, 24, 8, 16384), '1B': (22, 2048, 5632, 32, 4, 32000)}


def _text(s):
    raw = s.encode()
    return struct.pack('<Q', len(raw)) + raw


def _key(name, value):
    if isinstance(value, str):
        return _text(name) + struct.pack('<I', 8) + _text(value)
    if isinstance(value, float):
        return _text(name) + struct.pack('<If', 6, value)
    return _text(name) + struct.pack('<II', 4, value)


def _blocks(kind, rnd, count=4096):
    def half(x):
        return struct.pack('<e', x)
    one = {'F32': lambda: struct.pack('<f', rnd.uniform(0.9, 1.1)),
           'Q4_0': lambda: half(0.01) + rnd.randbytes(16),
           'Q8_0': lambda: half(0.0005) + rnd.randbytes(32),
           'Q4_K': lambda: half(0.0002) + half(0.0008) + rnd.randbytes(140)}[kind]
    return b''.join(one() for _ in range(count))


def _tensors(kind, layers, width, ff, heads, heads_kv, vocab):
    cache = width // heads * heads_kv
    yield 'token_embd.weight', (width, vocab), kind
    for i in range(layers):
        yield f'blk.{i}.attn_norm.weight', (width,), 'F32'
        yield f'blk.{i}.attn_q.weight', (width, width), kind
        yield f'blk.{i}.attn_k.weight', (width, cache), kind
        yield f'blk.{i}.attn_v.weight', (width, cache), kind
        yield f'blk.{i}.attn_output.weight', (width, width), kind
        yield f'blk.{i}.ffn_norm.weight', (width,), 'F32'
        yield f'blk.{i}.ffn_gate.weight', (width, ff), kind
        yield f'blk.{i}.ffn_up.weight', (width, ff), kind
        yield f'blk.{i}.ffn_down.weight', (ff, width), kind
    yield 'output_norm.weight', (width,), 'F32'
    yield 'output.weight', (width, vocab), kind


def write(path, size, kind):
    layers, width, ff, heads, heads_kv, vocab = SIZES[size]
    tensors = list(_tensors(kind, *SIZES[size]))
    keys = {'general.architecture': 'llama', 'general.name': f'random {size} {kind}',
            'general.file_type': FILE_TYPES[kind], 'llama.block_count': layers, 'llama.context_length': 8192,
            'llama.embedding_length': width, 'llama.feed_forward_length': ff, 'llama.attention.head_count': heads,
            'llama.attention.head_count_kv': heads_kv, 'llama.attention.layer_norm_rms_epsilon': 1e-5,
            'llama.vocab_size': vocab, 'tokenizer.ggml.model': 'no_vocab'}
    infos, sizes, offset = b'', [], 0
    for name, dims, kind_of in tensors:
        number, values, per_block = TYPES[kind_of]
        count = 1
        for d in dims:
            count *= d
        n = count // values * per_block
        infos += (_text(name) + struct.pack('<I', len(dims)) + b''.join(struct.pack('<Q', d) for d in dims) +
                  struct.pack('<IQ', number, offset))
        sizes.append((kind_of, n))
        offset += (n + 31) // 32 * 32
    rnd = random.Random(7)
    blocks = {k: _blocks(k, rnd) for k in {k for k, _ in sizes}}
    part = path + '.part'
    with open(part, 'wb') as f:
        f.write(b'GGUF' + struct.pack('<IQQ', 3, len(tensors), len(keys)) +
                b''.join(_key(k, v) for k, v in keys.items()) + infos)
        f.write(bytes(-f.tell() % 32))
        for kind_of, n in sizes:
            chunk, left = blocks[kind_of], n
            while left:
                f.write(chunk[:left])
                left -= min(left, len(chunk))
            f.write(bytes(-n % 32))
    os.replace(part, path)
