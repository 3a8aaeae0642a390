"""Who takes part in the benchmark of swaps: each serves the same two models, one at a time, by the same llama-server with
the same arguments. Who is not installed is left out."""
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path.insert(0, os.path.join(ROOT, 'tests', 'flow'))
sys.dont_write_bytecode = True
from lib.daemon import Daemon, free_port  # noqa: E402

# where the benchmark gives all the same; what arriero adds beside it names the model, its port and its place
COMMON = ['--ctx-size', '2048', '--parallel', '1', '--threads', '1', '--threads-batch', '2']
ASK = {'messages': [{'role': 'user', 'content': 'Say a word.'}], 'max_tokens': 1, 'stream': True, 'temperature': 0}


def environment():
    """Without settings of llama-server's own."""
    return {k: v for k, v in os.environ.items() if not k.startswith(('LLAMA_', 'ARRIERO_', 'XDG_'))}


def first_byte_ms(port, model):
    """From a request's sending to the first byte of its answer; the answer is read to its end."""
    c = http.client.HTTPConnection('127.0.0.1', port, timeout=120)
    body = json.dumps(dict(ASK, model=model))
    begin = time.monotonic()
    c.request('POST', '/v1/chat/completions', body, {'Content-Type': 'application/json'})
    c.sock.recv(1, socket.MSG_PEEK)
    took = (time.monotonic() - begin) * 1000
    answer = c.getresponse()
    text = answer.read()
    c.close()
    if answer.status != 200:
        raise SystemExit('%s answers %d: %s' % (model, answer.status, text[:400]))
    return took


class Server:
    """A process that serves models by name. pid: of the process."""

    def __init__(self, name, port, process, names):
        self.name, self.port, self.process, self.names = name, port, process, names

    def ask_ms(self, which):
        return first_byte_ms(self.port, self.names[which])


def started(stack, argv, log, env=None):
    with open(log, 'w') as out:
        # a group of its own, as arriero's children have, and no session: the scheduler may weigh by sessions
        proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env or environment(),
                                preexec_fn=os.setpgrp)

    def stop():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(proc.pid, signal.SIGTERM)
        try:
            proc.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(proc.pid, signal.SIGKILL)
            proc.wait()

    stack.callback(stop)
    return proc


def health(port):
    """The status of GET /health; 0 without an answer."""
    with contextlib.suppress(OSError, ValueError, IndexError), socket.create_connection(('127.0.0.1', port), 5) as s:
        s.sendall(b'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
        return int(s.recv(64).split()[1])
    return 0


def wait_healthy(name, proc, port, log, seconds=60, pause=0.002):
    """Not more often: what asks takes the processor from what loads."""
    end = time.monotonic() + seconds
    while health(port) != 200:
        if proc.poll() is not None or time.monotonic() > end:
            with open(log, errors='replace') as f:
                raise SystemExit('%s does not answer:\n%s' % (name, f.read()[-3000:]))
        time.sleep(pause)


# ---- arriero ----
def start_arriero(stack, binary, runtime, models):
    """A budget that holds one of the models and not both; all of their folder are known."""
    config = {'usual_caches': False, 'collect_plain': False,
              'defaults': {'ctx': 2048, 'parallel': 1, 'extra_args': COMMON[4:]}}
    d = Daemon(binary, [os.path.dirname(models[0])], runtime, config=config)
    stack.callback(d.destroy)
    d.start()
    names = [os.path.basename(m)[:-len('.gguf')] for m in models]
    needs = [d.control('POST', '/plan', {'model': n})[1] for n in names]
    bytes_of = [sum(p['model_bytes'] + p['context_bytes'] + p['compute_bytes'] + p['overhead_bytes']
                    for p in plan['devices']) for plan in needs]
    d.stop()
    config['budget'] = {'Host': max(bytes_of) + min(bytes_of) // 2}
    d.write_config(config)
    d.start()
    server = Server('arriero', d.port, d.process, names)
    server.daemon = d
    return server


# ---- llama-server's own router ----
def start_router(stack, runtime, models, folder):
    port, log = free_port(), folder + '/router.log'
    argv = [runtime, '--models-dir', os.path.dirname(models[0]), '--models-max', '1', '--host', '127.0.0.1', '--port',
            str(port)] + COMMON
    proc = started(stack, argv, log)
    wait_healthy('the router', proc, port, log)
    c = http.client.HTTPConnection('127.0.0.1', port, timeout=10)
    c.request('GET', '/v1/models')
    known = [m['id'] for m in json.load(c.getresponse())['data']]
    c.close()
    names = []
    for m in models:
        stem = os.path.basename(m)[:-len('.gguf')]
        found = [k for k in known if k in (stem, stem + '.gguf')]
        if not found:
            raise SystemExit('the router does not know %s; it knows %s' % (stem, ', '.join(known)))
        names.append(found[0])
    return Server('router', port, proc, names)


# ---- llama-swap ----
def find_llama_swap():
    return os.environ.get('LLAMA_SWAP') or shutil.which('llama-swap')


def start_llama_swap(stack, binary, runtime, models, folder):
    port, log, conf = free_port(), folder + '/llama-swap.log', folder + '/llama-swap.yaml'
    names = ['one', 'two']
    lines = ['logLevel: error', 'models:']
    for name, m in zip(names, models):
        lines += ['  %s:' % name, '    cmd: %s -m %s --host 127.0.0.1 --port ${PORT} %s' % (runtime, m, ' '.join(COMMON)),
                  '    proxy: http://127.0.0.1:${PORT}']
    with open(conf, 'w') as f:
        f.write('\n'.join(lines) + '\n')
    proc = started(stack, [binary, '-config', conf, '-listen', '127.0.0.1:%d' % port], log)
    wait_healthy('llama-swap', proc, port, log)
    return Server('llama-swap', port, proc, names)


# ---- the runtime alone ----
class Bare:
    """llama-server by itself, with the arguments that arriero gave it."""

    def __init__(self, argv, model, folder):
        self.argv, self.model, self.log = argv, model, folder + '/bare.log'

    def round_ms(self):
        """(start of the process to health, first request's first byte, SIGTERM to its end)."""
        port, argv = free_port(), list(self.argv)
        argv[argv.index('--port') + 1] = str(port)
        with open(self.log, 'w') as out:
            begin = time.monotonic()
            proc = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment())
            try:
                wait_healthy('llama-server', proc, port, self.log)
                load = (time.monotonic() - begin) * 1000
                answer = first_byte_ms(port, self.model)
                begin = time.monotonic()
                proc.terminate()
                proc.wait(30)
                return load, answer, (time.monotonic() - begin) * 1000
            finally:
                if proc.poll() is None:
                    proc.kill()
                    proc.wait()
