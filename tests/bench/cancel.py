#!/usr/bin/env python3
"""The cancellation benchmark: how long a slot stays busy for a client that left while its prompt was read.

usage: cancel.py [--rounds N]

Through the daemon, and at the same llama-server without it, in the same rounds. The backend's own log tells when the
slot is free; the kernel tells when its socket was closed under it, which is all that a proxy can
do; and one batch of the prompt is measured, since llama-server looks up between batches only. Prints a table and writes $BENCH_OUT (default build/bench/cancel.json).
"""
import argparse
import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, 'tests', 'flow'))
sys.dont_write_bytecode = True
from lib import tinygguf  # noqa: E402
from lib.daemon import Daemon  # noqa: E402
from lib.wire import Wire, wait_for  # noqa: E402

PROMPT = 'hello world ' * 4000  # one token a letter
INTO_PREFILL_S = 0.3            # the client leaves so long after its request
RELEASED = re.compile(r'slot +release:.*stop processing: n_tokens = (\d+)')


def backend_log(path):
    with open(path, 'rb') as f:
        return f.read().decode('utf-8', 'replace')


def connected(port):
    """The sockets of the server on this port whose peer has not closed: numbers of inodes. Asked by sock_diag(7): the
    table in /proc also lists every connection that is long gone."""
    established, dump, by_family = 1 << 1, 0x301, 20
    ask = struct.pack('=BBBxI', socket.AF_INET, socket.IPPROTO_TCP, 0, established)
    ask += struct.pack('!HH', port, 0) + bytes(44)
    found = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as s:  # NETLINK_SOCK_DIAG
        s.send(struct.pack('=IHHII', 16 + len(ask), by_family, dump, 1, 0) + ask)
        while True:
            data = s.recv(65536)
            while len(data) >= 16:
                length, kind = struct.unpack_from('=IH', data)
                if kind != by_family:  # the end, or an error
                    return found
                found.add(struct.unpack_from('=I', data, 16 + 68)[0])
                data = data[(length + 3) & ~3:]


def batch_ms(where, model, log, salt):
    """What llama-server takes for one batch of such a prompt now."""
    at = len(backend_log(log))
    body = {'model': model, 'prompt': salt + PROMPT, 'max_tokens': 4, 'stream': True, 'cache_prompt': False,
            'return_progress': True}
    seen = []
    c = http.client.HTTPConnection(*where, timeout=60)
    c.request('POST', '/v1/completions', json.dumps(body), {'Content-Type': 'application/json'})
    answer = c.getresponse()
    while len(seen) < 6:
        line = answer.readline()
        if not line:
            sys.exit('the prompt was read before a batch could be measured')
        if line.startswith(b'data: {'):
            seen.append(json.loads(line[6:])['prompt_progress'])
    answer.close()
    c.close()
    wait_for(lambda: RELEASED.search(backend_log(log)[at:]), 60, 0.001, 'the slot being free')
    steps = [b['time_ms'] - a['time_ms'] for a, b in zip(seen[1:], seen[2:]) if b['processed'] > a['processed']]
    return statistics.median(steps)


def leave(where, model, stream, log, salt, port):
    """One request and its end; milliseconds until the backend's socket is closed, and until the slot is free."""
    at = len(backend_log(log))
    w = Wire(where, 60)
    w.request('POST', '/v1/completions', {'model': model, 'prompt': salt + PROMPT, 'max_tokens': 4, 'stream': stream,
                                          'cache_prompt': False})
    wait_for(lambda: re.search('launch_slot', backend_log(log)[at:]), 20, 0.001, 'the prompt being taken up')
    time.sleep(INTO_PREFILL_S)
    there = connected(port)
    start = time.monotonic()
    w.close()
    wait_for(lambda: there - connected(port), 60, 0.0005, "the backend's socket being closed")
    closed = (time.monotonic() - start) * 1000
    found = wait_for(lambda: RELEASED.search(backend_log(log)[at:]), 60, 0.001, 'the slot being free')
    done = int(found.group(1))
    if done >= len(PROMPT):
        sys.exit('the prompt was read to its end before the client left: this machine needs a longer one')
    return closed, (time.monotonic() - start) * 1000


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--rounds', type=int, default=7)
    rounds = ap.parse_args().rounds
    out = os.environ.get('BENCH_OUT', os.path.join(ROOT, 'build', 'bench', 'cancel.json'))
    binary = os.environ.get('ARRIERO_BIN', os.path.join(ROOT, 'build', 'arriero'))
    server = subprocess.run([os.path.join(ROOT, 'scripts', 'llama-bundle.sh')], stdout=subprocess.PIPE, check=True,
                            text=True).stdout.strip()
    folder = tempfile.mkdtemp(prefix='arr-cancel-', dir='/tmp')
    rows, batches = {}, []
    try:
        tinygguf.write(folder + '/long.gguf', name='Long', embd=64, layers=1, heads=1, ff=64, ctx=131072, seed=4)
        d = Daemon(binary, [folder], runtime=server, config={'models': {'long': {'ctx': 65536}}})
        with d:
            d.post_json('/v1/completions', {'model': 'long', 'prompt': 'a', 'max_tokens': 1})
            mine = next(i for i in d.control('GET', '/instances')[1]['instances'] if i['model'] == 'long')
            log, direct = mine['log_path'], ('127.0.0.1', mine['port'])
            with contextlib.suppress(OSError):
                os.nice(-15)  # the witness must not wait for a core
            for i in range(rounds):
                batches.append(batch_ms(direct, 'long', log, '%d batch ' % i))
                for name, where, stream in (('arriero, streamed', d.where, True), ('direct, streamed', direct, True),
                                            ('arriero, plain', d.where, False), ('direct, plain', direct, False)):
                    rows.setdefault(name, []).append(leave(where, 'long', stream, log, '%d %s ' % (i, name), mine['port']))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print('client gone %.1f s into its prompt; milliseconds, medians of %d rounds' % (INTO_PREFILL_S, rounds))
    print('one batch of the prompt takes %.0f (%.0f to %.0f)' % (statistics.median(batches), min(batches), max(batches)))
    columns = ('socket closed', 'most', 'slot free', 'least', 'most', '/direct')
    print('  %-20s' % '' + ' %13s' * len(columns) % columns)
    result = {'rounds': rounds, 'batch_ms': statistics.median(batches)}
    for name, pairs in rows.items():
        closed, free = zip(*pairs)
        base = statistics.median(ms for _, ms in rows['direct, ' + name.split(', ')[1]])
        result[name] = {'closed_median_ms': statistics.median(closed), 'closed_max_ms': max(closed),
                        'median_ms': statistics.median(free), 'min_ms': min(free), 'max_ms': max(free)}
        print('  %-20s %13.1f %13.1f %13.0f %13.0f %13.0f %13.3f' % (
            name, statistics.median(closed), max(closed), statistics.median(free), min(free), max(free),
            statistics.median(free) / base))
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with open(out, 'w', encoding='utf-8') as f:
        json.dump(result, f, indent=1)


if __name__ == '__main__':
    main()
