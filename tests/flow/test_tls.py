"""TLS of the listener from outside: curl and the official client with a CA of the test's own, reload, refusals."""
import os
import signal
import socket
import ssl
import subprocess

import httpx
import openai
import pytest

from lib.authority import Authority
from lib.daemon import free_port
from lib.wire import wait_for

ASK = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(str(tmp_path_factory.mktemp("ca")))


class Secure:
    """A daemon with a plain port for the harness, and one with TLS."""

    def __init__(self, make_daemon, models, authority, tmp_path):
        self.cert, self.key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
        self.authority, self.port = authority, free_port()
        self.install(1)
        self.d = make_daemon(models, config={"tls": {"cert": self.cert, "key": self.key}})
        self.d.args = ["--listen", f"https://127.0.0.1:{self.port}"]
        argv = self.d.argv
        self.d.argv = lambda: [f"http://{a}" if a == f"127.0.0.1:{self.d.port}" else a for a in argv()]
        self.d.start()

    def install(self, serial):
        for to, at in zip((self.cert, self.key), self.authority.sign(serial)):
            with open(at, "rb") as f, open(to + ".new", "wb") as out:
                out.write(f.read())
            os.chmod(to + ".new", 0o600)
            os.replace(to + ".new", to)

    @property
    def context(self):
        return ssl.create_default_context(cafile=self.authority.cert)

    def serial(self):
        with socket.create_connection(("127.0.0.1", self.port)) as s, \
                self.context.wrap_socket(s, server_hostname="localhost") as t:
            return int(t.getpeercert()["serialNumber"], 16)


@pytest.fixture
def secure(make_daemon, folder, tiny, authority, tmp_path):
    s = Secure(make_daemon, [folder(tiny)], authority, tmp_path)
    yield s
    s.d.stop()


def test_the_official_client_and_curl(secure):
    with httpx.Client(verify=secure.context) as http:
        client = openai.OpenAI(base_url=f"https://localhost:{secure.port}/v1", api_key="none", http_client=http)
        assert client.chat.completions.create(model="tiny-a", **ASK).choices
        stream = client.chat.completions.create(model="tiny-a", stream=True, **ASK)
        assert len(list(stream)) > 1
    curl = ["curl", "-sS", "--cacert", secure.authority.cert, "--max-time", "60"]
    url = f"https://localhost:{secure.port}/health"
    run = subprocess.run([*curl, "-o", "/dev/null", "-w", "%{http_code} %{http_version}", url], capture_output=True, text=True)
    assert run.stdout == "200 1.1", run
    assert subprocess.run(["curl", "-sS", url], capture_output=True).returncode == 60  # an unknown CA
    old = subprocess.run([*curl, "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", url], capture_output=True)
    assert old.returncode == 35  # TLS 1.1 is not spoken
    plain = subprocess.run(["curl", "-sS", f"http://localhost:{secure.port}/health"], capture_output=True, text=True)
    assert "write https" in plain.stdout
    listed = secure.d.get_json("/status")[1]["listen"]
    assert listed == [f"127.0.0.1:{secure.d.port}", f"https://127.0.0.1:{secure.port}"]


def test_the_command_line(secure, authority, tmp_path):
    url, ca = f"https://localhost:{secure.port}", ["--cacert", authority.cert]
    ask = ["ask", "-q", "-n", "4", "-m", "tiny-a", "hello"]
    said = secure.d.cli(*ask, "--url", url + "/v1", *ca, check=0)
    assert said.stdout and said.stderr == ""
    by_number = secure.d.cli(*ask, "--url", f"https://127.0.0.1:{secure.port}", env={"ARRIERO_CACERT": authority.cert}, check=0)
    assert by_number.stdout and by_number.stderr == ""
    unknown = secure.d.cli(*ask, "--url", url, check=1)  # nobody of the system vouches for it
    assert "is not trusted: " in unknown.stderr and "--cacert FILE" in unknown.stderr and not unknown.stdout
    blind = secure.d.cli(*ask, "--url", url, "--insecure", check=0)
    assert blind.stdout and "is not checked" in blind.stderr
    assert "--insecure" in secure.d.cli(*ask, "--url", url, *ca, "--insecure", check=1).stderr
    os.mkdir(tmp_path / "other")
    other = Authority(str(tmp_path / "other"))
    assert "is not trusted: " in secure.d.cli(*ask, "--url", url, "--cacert", other.cert, check=1).stderr
    assert "cannot use the certificates of" in secure.d.cli(*ask, "--url", url, "--cacert", "/no/such", check=1).stderr
    plain = f"127.0.0.1:{secure.d.port}"
    assert "write http://" in secure.d.cli(*ask, "--url", "https://" + plain, *ca, check=1).stderr
    assert "has nothing to do there" in secure.d.cli(*ask, "--url", "http://" + plain, *ca, check=1).stderr
    answer = secure.d.cli("embed", "--json", "-m", "tiny-a", "a", "--url", url, *ca)  # its error comes over TLS, too
    assert answer.returncode in (0, 1) and "not trusted" not in answer.stdout + answer.stderr
    assert f"https://127.0.0.1:{secure.port}/v1" in secure.d.cli("status", check=0).stdout


def test_a_certificate_for_another_host(secure, authority):
    for at, to in zip(authority.sign(40, names="DNS:other.example"), (secure.cert, secure.key)):
        with open(at, "rb") as f, open(to, "wb") as out:
            out.write(f.read())
    secure.d.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "hostname mismatch" in secure.d.cli("ask", "hello", "--url", f"https://localhost:{secure.port}",
                                                         "--cacert", authority.cert).stderr, 60, 0.1, "the other name")


def test_a_new_certificate_comes_with_sighup(secure):
    assert secure.serial() == 1
    with socket.create_connection(("127.0.0.1", secure.port)) as s, \
            secure.context.wrap_socket(s, server_hostname="localhost") as old:
        old.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert old.recv(12) == b"HTTP/1.1 200"
        secure.install(2)
        secure.d.process.send_signal(signal.SIGHUP)
        wait_for(lambda: secure.serial() == 2, 30, 0.02, "the new certificate")
        old.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := old.recv(65536):
            answer += part
        assert answer.count(b"HTTP/1.1 200") == 1 and answer.endswith(b"}")  # what was open goes on
    with open(secure.cert, "w", encoding="utf-8") as f:
        f.write("no certificate\n")
    secure.d.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "cannot use the certificate" in secure.d.log(), 30, 0.02, "the refusal of the reload")
    assert secure.serial() == 2


def test_a_door_without_its_key_does_not_open(make_daemon, folder, tiny, authority):
    cert, key = authority.sign(7)
    os.chmod(key, 0o644)
    d = make_daemon([folder(tiny)], config={"tls": {"cert": cert, "key": key}})
    d.spawn()
    assert d.wait(30) == 1 and f"chmod 600 {key}" in d.log()
    d.process = None
    d = make_daemon([folder(tiny)], config={"tls": {"cert": cert}})
    d.spawn()
    assert d.wait(30) == 1 and "tls.cert is set, and tls.key is not" in d.log()
    d.process = None
