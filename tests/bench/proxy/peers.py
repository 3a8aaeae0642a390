"""Who takes part in the proxy benchmark: how each is found, started and stopped.

Every peer has the proxies' core for itself while it is measured (the others are idle); load and backend have the other
one. Who is not installed is left out, and the reason told.
"""
import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path.insert(0, os.path.join(ROOT, 'tests', 'flow'))
sys.dont_write_bytecode = True
from lib import tinygguf  # noqa: E402
from lib.daemon import Daemon, free_port  # noqa: E402

PROXY_CORE, OTHER_CORE = 0, 1
MANY = 1 << 30

NGINX = """
worker_processes 1; worker_rlimit_nofile %(files)d; daemon off; pid %(dir)s/nginx.pid; error_log stderr;
events { worker_connections %(files)d; }
http {
  access_log off; keepalive_requests 100000000; client_body_temp_path %(dir)s/b; proxy_temp_path %(dir)s/p;
  fastcgi_temp_path %(dir)s/f; uwsgi_temp_path %(dir)s/u; scgi_temp_path %(dir)s/s; client_max_body_size 64m;
  upstream back { server 127.0.0.1:%(back)d; keepalive 256; keepalive_requests 100000000; }
  server { listen 127.0.0.1:%(port)d backlog=4096; location / {
    proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_buffering off; proxy_request_buffering off; } }
}
"""
HAPROXY = """
global
  nbthread 1
  maxconn 9000
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
frontend f
  bind 127.0.0.1:%(port)d backlog 4096
  default_backend b
backend b
  http-reuse always
  server s 127.0.0.1:%(back)d
"""
# HAProxy holds small pieces back for up to 200 ms unless it is told not to: both ways are shown.
HAPROXY_NODELAY = HAPROXY.replace('  default_backend b\n', '  default_backend b\n  option http-no-delay\n')
LLAMA_SWAP = """
logLevel: error
models:
  m:
    cmd: sleep infinity
    proxy: http://127.0.0.1:%(back)d
    checkEndpoint: none
    concurrencyLimit: 20000
"""
LITELLM = """
model_list:
  - model_name: m
    litellm_params: {model: openai/m, api_base: "http://127.0.0.1:%(back)d/v1", api_key: none}
litellm_settings: {telemetry: false, drop_params: false}
"""


def pin(core):
    return lambda: os.sched_setaffinity(0, {core % os.cpu_count()})


class Peer:
    """Something to send requests to. pid: whose CPU and memory count; None for no process.

    most_streams bounds what it is asked for; quick is False for those whose requests take milliseconds of CPU.
    """

    def __init__(self, name, port, pid=None, model='m', most_streams=MANY, quick=True):
        self.name, self.port, self.pid, self.model = name, port, pid, model
        self.most_streams, self.quick = most_streams, quick

    def rss_kib(self):
        with open('/proc/%d/status' % self.pid) as f:
            return next(int(line.split()[1]) for line in f if line.startswith('VmRSS'))


def started(stack, argv, core, env=None, log=None):
    """The process; its output goes into a log, or is a pipe."""
    with contextlib.ExitStack() as files:
        out = files.enter_context(open(log, 'w')) if log else None
        proc = subprocess.Popen(argv, preexec_fn=pin(core), stdin=subprocess.DEVNULL, stdout=out or subprocess.PIPE,
                                stderr=out or subprocess.DEVNULL, env=env)

    def stop():
        proc.terminate()
        try:
            proc.wait(10)
        except subprocess.TimeoutExpired:
            proc.kill()
            proc.wait()

    stack.callback(stop)
    return proc


def wait_for_port(name, proc, port, seconds, log):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as s:
            if s.connect_ex(('127.0.0.1', port)) == 0:
                return
        if proc.poll() is not None:
            break
        time.sleep(0.05)
    with open(log, errors='replace') as f:
        raise SystemExit('%s does not listen:\n%s' % (name, f.read()[-2000:]))


def own_program(stack, tools, name, *args, core=PROXY_CORE):
    """A program of this folder, which prints its port."""
    proc = started(stack, [os.path.join(tools, 'bench_' + name), *map(str, args)], core)
    return int(proc.stdout.readline()), proc.pid


def ask_once(name, port):
    """The first request: some do most of their work of starting then."""
    c = http.client.HTTPConnection('127.0.0.1', port, timeout=120)
    body = {'model': 'm', 'messages': [{'role': 'user', 'content': 'Hello'}]}
    c.request('POST', '/v1/chat/completions', json.dumps(body), {'Content-Type': 'application/json'})
    answer = c.getresponse()
    text = answer.read().decode('utf-8', 'replace')
    c.close()
    if answer.status != 200:
        raise SystemExit('%s does not answer: %d %s' % (name, answer.status, text[:500]))


def worker_of(pid):
    with open('/proc/%d/task/%d/children' % (pid, pid)) as f:
        return int(f.read().split()[0])


class Foreign:
    """A program of others: its configuration, its arguments, where it is found."""

    def __init__(self, program, conf, args, variable=None, env=None, seconds=10, worker=False, **limits):
        self.program, self.conf, self.args, self.variable = program, conf, args, variable
        self.env, self.seconds, self.worker, self.limits = env or {}, seconds, worker, limits

    def find(self):
        given = self.variable and os.environ.get(self.variable)
        return given or shutil.which(self.program) or shutil.which(self.program, path='/usr/sbin:/usr/local/sbin')

    def missing(self):
        return 'not installed' + (' (set %s to its path)' % self.variable if self.variable else '')

    def start(self, stack, name, folder, back, files):
        port, conf = free_port(), '%s/%s.conf' % (folder, name)
        with open(conf, 'w') as f:
            f.write(self.conf % {'dir': folder, 'port': port, 'back': back, 'files': files})
        argv = [self.find()] + [a % {'dir': folder, 'conf': conf, 'port': port} for a in self.args]
        log = '%s/%s.log' % (folder, name)
        proc = started(stack, argv, PROXY_CORE, dict(os.environ, **self.env), log)
        wait_for_port(name, proc, port, self.seconds, log)
        ask_once(name, port)
        return Peer(name, port, worker_of(proc.pid) if self.worker else proc.pid, **self.limits)


FOREIGN = {
    'nginx': Foreign('nginx', NGINX, ['-p', '%(dir)s', '-c', '%(conf)s'], worker=True),
    'haproxy': Foreign('haproxy', HAPROXY, ['-f', '%(conf)s']),
    'haproxy-nodelay': Foreign('haproxy', HAPROXY_NODELAY, ['-f', '%(conf)s']),
    'llama-swap': Foreign('llama-swap', LLAMA_SWAP, ['-config', '%(conf)s', '-listen', '127.0.0.1:%(port)s'], 'LLAMA_SWAP'),
    'litellm': Foreign('litellm', LITELLM, ['--config', '%(conf)s', '--host', '127.0.0.1', '--port', '%(port)s'], 'LITELLM',
                       env={'LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY': 'true', 'LITELLM_LOCAL_MODEL_COST_MAP': 'True', 'LITELLM_MODE': 'PRODUCTION', 'LITELLM_LOG': 'ERROR'},
                       seconds=300, quick=False, most_streams=200),
}


# ---- the whole daemon ----
DAEMON_SLOTS = 256
RUNTIME = """#!/bin/sh
case "$*" in *--version*|*--help*|*--list-devices*) exec %(real)s "$@";; esac
exec taskset -c %(core)d %(backend)s "$@"
"""


def llama_server():
    """Answers what the daemon asks about its runtime; it serves nothing here. None where there is none."""
    with contextlib.suppress(subprocess.CalledProcessError, OSError):
        return os.environ.get('ARRIERO_LLAMA_SERVER') or subprocess.run(
            [ROOT + '/scripts/llama-bundle.sh'], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True).stdout.strip()
    return None


def start_daemon(stack, tools, folder, real):
    """arriero serve with all it has, keys apart: its instance is the benchmark's backend, which passes for llama-server."""
    runtime = folder + '/llama-server'
    with open(runtime, 'w') as f:
        f.write(RUNTIME % {'real': real, 'core': OTHER_CORE % os.cpu_count(), 'backend': tools + '/bench_backend'})
    os.chmod(runtime, 0o755)
    models = tempfile.mkdtemp(dir=folder)
    tinygguf.write(models + '/m.gguf', name='M', seed=1)
    binary = os.environ.get('ARRIERO_BIN', os.path.join(ROOT, 'build', 'arriero'))
    daemon = Daemon(binary, [models], runtime,
                    config={'usual_caches': False, 'collect_plain': False,
                            'defaults': {'parallel': DAEMON_SLOTS, 'ctx': 256, 'ctx_min': 256}})
    stack.callback(daemon.destroy)
    daemon.start()
    for tid in os.listdir('/proc/%d/task' % daemon.process.pid):
        os.sched_setaffinity(int(tid), {PROXY_CORE % os.cpu_count()})
    peer = Peer('daemon', daemon.port, daemon.process.pid, most_streams=DAEMON_SLOTS)
    peer.idle_kib = peer.rss_kib()
    ask_once('the daemon', daemon.port)
    return peer


# ---- all of them ----
def start_all(stack, tools, only, folder, files):
    """The peers by name, in the order of the tables; {name: reason} of those that are missing."""
    back, _ = own_program(stack, tools, 'backend', core=OTHER_CORE)
    peers, missing = {'direct': Peer('direct', back)}, {}

    def wanted(name):
        return not only or name in only

    if wanted('relay'):
        peers['relay'] = Peer('relay', *own_program(stack, tools, 'relay', back))
    for name, foreign in FOREIGN.items():
        if not wanted(name):
            continue
        if foreign.find():
            peers[name] = foreign.start(stack, name, folder, back, files)
        else:
            missing[name] = foreign.missing()
    if wanted('arriero'):
        peers['arriero'] = Peer('arriero', *own_program(stack, tools, 'proxy', back))
    if wanted('collect'):  # plain answers put together of 32 events a millisecond apart
        peers['collect'] = Peer('collect', *own_program(stack, tools, 'proxy', back, '"stream":true,"whole":32,'))
    if wanted('daemon'):
        real = llama_server()
        if real:
            peers['daemon'] = start_daemon(stack, tools, folder, real)
        else:
            missing['daemon'] = 'no llama-server to tell it about its runtime'
    for peer in peers.values():
        if peer.pid and not hasattr(peer, 'idle_kib'):
            peer.idle_kib = peer.rss_kib()
    return peers, missing
