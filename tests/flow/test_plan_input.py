"""What bad input to `estimate` and `plan` gets: a named error, status 1 or 2, and never figures."""
import pytest

USAGE, FAILED = 2, 1
TWO = ["--device", "CUDA0:8000", "--device", "CUDA1:8000"]

ROWS = [
    (["--device", "CUDA0:0"], USAGE, "CUDA0:0"),
    (["--device", "CUDA0:nan"], USAGE, "CUDA0:nan"),
    (["--device", "CUDA0:-5"], USAGE, "CUDA0:-5"),
    (["--device", "CUDA0:99999999999999999999"], USAGE, "expected NAME:TOTAL_MIB"),
    (["--device", "CUDA0:1099511627777"], USAGE, "expected NAME:TOTAL_MIB"),
    (["--device", "CUDA0:8000:9000"], USAGE, "CUDA0:8000:9000"),
    (["--device", "8000"], USAGE, "expected NAME:TOTAL_MIB"),
    (["--fit", "--margin", "-256", "--device", "CUDA0:8000"], USAGE, "-256"),
    (["--tensor-split", "1,nan"] + TWO, USAGE, "nan"),
    (["--tensor-split", "1,-1"] + TWO, USAGE, "-1"),
    (["--tensor-split", "1,1,1"] + TWO, FAILED, "does not match 2 devices"),
    (["--tensor-split", "1,1"], FAILED, "does not match 0 devices"),
    (["--override-tensor", "blk.(=CPU"], FAILED, "is no regular expression"),
    (["--override-tensor", "((a{99}){99}){99}=CPU"], FAILED, "repeats too often"),
    (["--override-tensor", "(a)\\1=CPU"], FAILED, "refers back"),
    (["--override-tensor", "a"], USAGE, "PATTERN=BUFFER"),
    (["--override-tensor", "a=CUDA9"] + TWO, FAILED, "CUDA9"),
    (["--cache-type-v", "q8_0", "--flash-attn", "off"], FAILED, "flash attention"),
    (["--parallel", "1000"], FAILED, "1000 slots"),
    (["--gpu-layers", "-7"], USAGE, "-7"),
    (["--mmproj", "/nowhere/mmproj.gguf"], FAILED, "mmproj.gguf"),
    (["--lora-scaled", "x.gguf"], FAILED, "FILE:SCALE"),
    (["--model-draft", "/nowhere/draft.gguf"], FAILED, "draft.gguf"),
]


@pytest.fixture(scope="module")
def offline(request, arriero_bin):
    import subprocess

    def cli(*args):
        return subprocess.run([str(arriero_bin), *args], capture_output=True, text=True, timeout=60)
    return cli


@pytest.mark.parametrize("args,status,word", ROWS, ids=[" ".join(r[0]) for r in ROWS])
def test_estimate_refuses(offline, tiny, args, status, word):
    for json in ([], ["--json"]):
        r = offline("estimate", str(tiny), *args, *json)
        assert r.returncode == status, r.stdout + r.stderr
        assert word in r.stdout + r.stderr
        assert "model_bytes" not in r.stdout and "WEIGHTS" not in r.stdout


def test_a_model_as_projector_or_adapter(offline, tiny):
    r = offline("estimate", str(tiny), "--mmproj", str(tiny))
    assert r.returncode == 1 and "is no projector" in r.stderr
    r = offline("estimate", str(tiny), "--lora", str(tiny))
    assert r.returncode == 1 and "is no adapter" in r.stderr


def test_files_that_are_cut_or_incomplete(offline, tiny, tmp_path):
    data = tiny.read_bytes()
    for n in (0, 3, 24, 200, len(data) // 2):
        (tmp_path / "cut.gguf").write_bytes(data[:n])
        r = offline("estimate", str(tmp_path / "cut.gguf"))
        assert r.returncode == 1 and "cut.gguf" in r.stderr and "WEIGHTS" not in r.stdout
    for key in (b"llama.block_count", b"llama.embedding_length", b"llama.attention.head_count"):
        at = data.index(key + b"\x04\x00\x00\x00") + len(key) + 4
        (tmp_path / "zero.gguf").write_bytes(data[:at] + bytes(4) + data[at + 4:])
        r = offline("estimate", str(tmp_path / "zero.gguf"))
        assert r.returncode == 1 and r.stderr.strip() and "WEIGHTS" not in r.stdout
        (tmp_path / "gone.gguf").write_bytes(data.replace(key, key[:-1] + b"x", 1))
        r = offline("estimate", str(tmp_path / "gone.gguf"))
        assert r.returncode == 1 and r.stderr.strip() and "WEIGHTS" not in r.stdout


def test_a_draft_is_counted_beside_the_model(offline, tiny, tiny_b):
    import json
    plain = json.loads(offline("estimate", str(tiny), "--ctx", "512", "--json").stdout)["devices"][-1]
    both = json.loads(offline("estimate", str(tiny), "--ctx", "512", "--model-draft", str(tiny_b), "--json").stdout)["devices"][-1]
    assert both["draft_bytes"] > 0 and plain["draft_bytes"] == 0
    assert both["model_bytes"] > plain["model_bytes"] and both["context_bytes"] > plain["context_bytes"]
    assert both["output_bytes"] > plain["output_bytes"]
