#!/usr/bin/env python3
"""Writes the corpus of fuzz_rpc: answers of workers as llama.cpp's are, and broken ones. usage: make_rpc_corpus.py DIR"""
import struct
import sys


def answer(body):
    return struct.pack('<Q', len(body)) + body


HELLO = answer(bytes([4, 0, 1]) + bytes(25))
OLD_HELLO = answer(bytes([3, 0, 0]))
GIB = 1 << 30


def devices(n):
    return answer(struct.pack('<I', n))


def memory(free, total):
    return answer(struct.pack('<QQ', free, total))


SEEDS = {
    'one': HELLO + devices(1) + memory(20 * GIB, 24 * GIB),
    'old': OLD_HELLO + devices(1) + memory(7 * GIB, 8 * GIB),
    'four': HELLO + devices(4) + memory(GIB, 2 * GIB) * 4,
    'more_free_than_there_is': HELLO + devices(1) + memory(9 * GIB, 8 * GIB),
    'no_devices': HELLO + devices(0),
    'too_many_devices': HELLO + devices(0xffffffff),
    'device_missing': HELLO + devices(2) + memory(GIB, GIB),
    'cut': (HELLO + devices(1) + memory(GIB, GIB))[:-3],
    'long_answer': struct.pack('<Q', 1 << 63) + b'x' * 64,
    'short_memory': HELLO + devices(1) + answer(bytes(8)),
    'refused': b'',
    'http': b'HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n',
}

if __name__ == '__main__':
    for name, data in SEEDS.items():
        with open('%s/%s' % (sys.argv[1], name), 'wb') as f:
            f.write(data)
