#!/usr/bin/env python3
"""The cancellation benchmark: how long a slot stays busy for a client that left while its prompt was read.

usage: cancel.py [--rounds N]

Through the daemon, and at the same llama-server without it, in the same rounds. The backend's own log tells when the
slot is free. Prints a table and writes $BENCH_OUT (default build/bench/cancel.json).
"""
import argparse
import json
import os
import re
import shutil
import statistics
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


def backend_log(path):
    with open(path, 'rb') as f:
        return f.read().decode('utf-8', 'replace')


def leave(where, model, stream, log, salt):
    """One request and its end; milliseconds until the slot is free, tokens that were read."""
    at = len(backend_log(log))
    w = Wire(where, 60)
    w.request('POST', '/v1/completions', {'model': model, 'prompt': salt + PROMPT, 'max_tokens': 4, 'stream': stream,
                                          'cache_prompt': False})
    wait_for(lambda: re.search('launch_slot', backend_log(log)[at:]), 20, 0.001, 'the prompt being taken up')
    time.sleep(INTO_PREFILL_S)
    start = time.monotonic()
    w.close()
    found = wait_for(lambda: re.search(r'slot +release:.*stop processing: n_tokens = (\d+)', backend_log(log)[at:]), 60, 0.001,
                     'the slot being free')
    done = int(found.group(1))
    if done >= len(PROMPT):
        sys.exit('the prompt was read to its end before the client left: this machine needs a longer one')
    return (time.monotonic() - start) * 1000


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--rounds', type=int, default=7)
    rounds = ap.parse_args().rounds
    out = os.environ.get('BENCH_OUT', os.path.join(ROOT, 'build', 'bench', 'cancel.json'))
    binary = os.environ.get('ARRIERO_BIN', os.path.join(ROOT, 'build', 'arriero'))
    server = subprocess.run([os.path.join(ROOT, 'scripts', 'llama-bundle.sh')], stdout=subprocess.PIPE, check=True,
                            text=True).stdout.strip()
    folder = tempfile.mkdtemp(prefix='arr-cancel-', dir='/tmp')
    rows = {}
    try:
        tinygguf.write(folder + '/long.gguf', name='Long', embd=64, layers=1, heads=1, ff=64, ctx=131072, seed=4)
        d = Daemon(binary, [folder], runtime=server, config={'models': {'long': {'ctx': 65536}}})
        with d:
            d.post_json('/v1/completions', {'model': 'long', 'prompt': 'a', 'max_tokens': 1})
            mine = next(i for i in d.control('GET', '/instances')[1]['instances'] if i['model'] == 'long')
            log, direct = mine['log_path'], ('127.0.0.1', mine['port'])
            for i in range(rounds):
                for name, where, stream in (('arriero, streamed', d.where, True), ('direct, streamed', direct, True),
                                            ('arriero, plain', d.where, False), ('direct, plain', direct, False)):
                    rows.setdefault(name, []).append(leave(where, 'long', stream, log, '%d %s ' % (i, name)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print('client gone %.1f s into its prompt: milliseconds until the slot is free' % INTO_PREFILL_S)
    print('  %-20s %8s %8s %8s %10s' % ('', 'median', 'least', 'most', '/direct'))
    result = {'rounds': rounds}
    for name, ms in rows.items():
        base = statistics.median(rows['direct, ' + name.split(', ')[1]])
        result[name] = {'median_ms': statistics.median(ms), 'min_ms': min(ms), 'max_ms': max(ms)}
        print('  %-20s %8.0f %8.0f %8.0f %10.3f' % (name, statistics.median(ms), min(ms), max(ms), statistics.median(ms) / base))
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with open(out, 'w', encoding='utf-8') as f:
        json.dump(result, f, indent=1)


if __name__ == '__main__':
    main()
