"""The commands: exit statuses, the JSON contract, and that they work without a daemon where they should."""
import json
import pathlib

import pytest


@pytest.fixture
def offline(make_daemon):
    """A world without a daemon."""
    return make_daemon([])


def test_version_and_help(offline):
    assert offline.cli("--version", check=0).stdout.strip()
    assert "serve" in offline.cli("help", check=0).stdout
    for command in ("serve", "models", "gpus", "estimate", "plan", "ps", "status", "load", "unload", "why", "logs"):
        assert command in offline.cli("help", check=0).stdout
        assert offline.cli("help", command, check=0).stdout.strip()
        assert offline.cli(command, "--help", check=0).stdout.strip()


def test_usage_errors_are_2(offline):
    for args in (["no-such-command"], ["models", "--no-such-option"], ["estimate"], ["plan"], ["estimate", "x", "--ctx", "many"]):
        r = offline.cli(*args)
        assert r.returncode == 2, args
        assert r.stderr.strip()


def test_a_misspelt_command_gets_the_nearest(offline):
    assert "models" in offline.cli("modles").stderr


def test_models_json(offline, folder, tiny, tiny_b):
    found = offline.cli_json("models", str(folder(tiny, tiny_b)))
    models = found["models"] if isinstance(found, dict) else found
    by_id = {m["id"]: m for m in models}
    assert {"tiny-a", "tiny-b"} <= set(by_id)
    m = by_id["tiny-a"]
    text = json.dumps(m)
    assert "llama" in text and "F32" in text and "2048" in text
    assert str(tiny.stat().st_size) in text
    assert m["path"].endswith("/tiny-a.gguf")
    plain = offline.cli("models", str(folder(tiny)), check=0).stdout
    assert "tiny-a" in plain and "llama" in plain


def test_models_of_the_configured_folders(offline, folder, tiny):
    """What the daemon would serve without a --models is what the commands know by name."""
    config = pathlib.Path(offline.env["XDG_CONFIG_HOME"]) / "arriero"
    config.mkdir(parents=True)
    (config / "config.yaml").write_text(json.dumps({"models_dirs": [str(folder(tiny))], "usual_caches": False}))
    assert [m["id"] for m in offline.cli_json("models")["models"]] == ["tiny-a"]
    assert offline.cli_json("plan", "tiny-a")["model"]["name"] == "Tiny A"
    (config / "config.yaml").write_text("nonsense: [")
    assert offline.cli_json("models")["models"] == []


def test_gpus_json_without_a_gpu(offline):
    found = offline.cli_json("gpus")
    assert isinstance(found, dict)
    assert "no gpu" in offline.cli("gpus", check=0).stdout.lower() or found.get("gpus") or found.get("devices")


def test_estimate_json_contract(offline, folder, tiny):
    path = str(folder(tiny) / "tiny-a.gguf")
    e = offline.cli_json("estimate", path, "--ctx", "1024")
    assert {"architecture", "name", "quantization", "parameters", "layers", "context_train", "file_bytes"} <= set(e["model"])
    assert e["model"]["architecture"] == "llama" and e["model"]["layers"] == 2
    assert e["model"]["context_train"] == 2048 and e["model"]["name"] == "Tiny A"
    host = e["devices"][-1]
    assert host["name"] == "Host" and host["kind"] == "host"
    for key in ("total_bytes", "free_bytes", "model_bytes", "context_bytes", "compute_bytes", "overhead_bytes"):
        assert isinstance(host[key], int), key
    assert host["model_bytes"] > 500_000
    # llama-server's own figure: two layers of K and V in f16, 64 wide
    assert host["context_bytes"] == 2 * 2 * 64 * 2 * 1024
    assert e["params"]["ctx"] == 1024 or 1024 in e["params"].values()


def test_estimate_over_devices(offline, folder, tiny):
    path = str(folder(tiny) / "tiny-a.gguf")
    e = offline.cli_json("estimate", path, "--ctx", "1024", "--gpu-layers", "all", "--device", "CUDA0:8000", "--device", "RPC0:6000:5000")
    assert [d["name"] for d in e["devices"]] == ["CUDA0", "RPC0", "Host"]
    assert [d["kind"] for d in e["devices"]] == ["gpu", "rpc", "host"]
    assert e["devices"][1]["free_bytes"] == 5000 << 20


def test_estimate_refusals_print_no_figures(offline, folder, tiny, shelf, tmp_path):
    path = str(folder(tiny) / "tiny-a.gguf")
    odd = shelf.make("odd.gguf", name="Odd", arch="neverheardof")
    for args in ([str(odd), "--ctx", "512"], ["/nonexistent.gguf", "--ctx", "512"],
                 [path, "--ctx", "512", "--flash-attn", "off", "--cache-type-v", "q8_0"]):
        r = offline.cli("estimate", *args)
        assert r.returncode == 1, args
        assert r.stderr.strip() and not r.stdout.strip(), args
    assert "neverheardof" in offline.cli("estimate", str(odd), "--ctx", "512").stderr


def test_plan_json_contract(offline, folder, tiny, llama_server):
    path = str(folder(tiny) / "tiny-a.gguf")
    offline.extra_env["ARRIERO_LLAMA_SERVER"] = llama_server
    p = offline.cli_json("plan", path, "--ctx", "1024")
    for key in ("model", "devices", "params", "fits", "strategy", "layers", "kv_location", "argv", "env", "speed", "victims",
                "reasons", "alternatives"):
        assert key in p, key
    assert p["fits"] is True
    assert {"gpu", "cpu"} <= set(p["layers"])
    assert p["reasons"] and all(r["text"] for r in p["reasons"])
    assert p["argv"][0] == llama_server and path in p["argv"]
    assert "--fit" in p["argv"] and p["argv"][p["argv"].index("--fit") + 1] == "off"
    on_gpu = offline.cli_json("plan", path, "--ctx", "1024", "--device", "CUDA0:24000")
    assert on_gpu["layers"]["gpu"] >= 2
    nothing = offline.cli("plan", path, "--ctx", "1024", "--host-ram", "1", "--json")
    assert nothing.returncode in (0, 1)
    if nothing.returncode == 0:
        assert json.loads(nothing.stdout)["fits"] is False


def test_config_print_and_check(offline, tmp_path):
    assert offline.cli("config", "print", check=0).stdout.strip()
    good = tmp_path / "good.yaml"
    good.write_text("budget:\n  host: 600MiB\n")
    assert offline.cli("config", "check", str(good)).returncode == 0
    bad = tmp_path / "bad.yaml"
    bad.write_text("budget:\n  host: 600MiB\n  hots: 3\n")
    r = offline.cli("config", "check", str(bad))
    assert r.returncode == 1 and "bad.yaml:3" in r.stdout + r.stderr


def test_commands_against_a_daemon(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)]).start()
    assert d.cli("status", check=0).stdout.strip()
    assert d.cli_json("ps") == {"instances": [], "upstreams": []}
    d.cli("load", "tiny-a", check=0)
    i = d.instance("tiny-a")
    assert {"id", "model", "state", "pid", "port"} <= set(i)
    assert "tiny-a" in d.cli("ps", check=0).stdout
    d.cli("load", "tiny-a", check=0)  # again: nothing to do
    assert d.metric("arriero_loads_total") == 1
    assert d.cli("why", "tiny-a", check=0).stdout.strip()
    assert d.cli_json("why", "tiny-a")
    assert "llama" in d.cli("logs", "tiny-a", check=0).stdout.lower() or d.cli("logs", "tiny-a", check=0).stdout
    r = d.cli("load", "tiny-z")
    assert r.returncode == 1 and "tiny-a" in r.stderr, r.stderr
    d.cli("pin", "tiny-a", check=0)
    d.cli("unload", "tiny-a", check=0)
    assert not [x for x in d.instances("tiny-a") if x["state"] == "ready"]
    d.stop()


def test_ask(make_daemon, folder, tiny):
    d = make_daemon([folder(tiny)]).start()
    r = d.cli("ask", "--url", d.url, "--model", "tiny-a", "--max-tokens", "40", "hello there", timeout=120)
    assert r.returncode == 0 and r.stdout.strip(), r.stderr
    r = d.cli("ask", "--url", d.url, "--model", "nothing", "hello there")
    assert r.returncode == 1 and r.stderr.strip()
    r = d.cli("ask", "--url", "http://127.0.0.1:1", "--model", "tiny-a", "hello there")
    assert r.returncode == 1 and r.stderr.strip()
    d.stop()
