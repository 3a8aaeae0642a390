"""Devices that are too hot, and limits on power: a processor's sensor and a toy GPU that the tests heat and cool."""
import json
import os
import pathlib
import subprocess
import threading

import pytest

from lib.wire import wait_for

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
QUICK = {"sampling": {"interval": "100ms"}, "thermal": {"dwell": "200ms"}, "defaults": {"extra_args": ["--threads", "1"]}}
CARD = "driver 550.54.15\ncuda 12040\ngpu\nname NVIDIA GeForce RTX 4090\nuuid GPU-toy-1\npci 0:1:0\nmemory 24000 0 100\n"


class Sensor:
    """A processor's temperature in a tree as the kernel's."""

    def __init__(self, root):
        self.root = root
        (root / "hwmon0").mkdir(parents=True)
        (root / "hwmon0/name").write_text("k10temp\n")
        self.path = root / "hwmon0/temp1_input"
        self.env = {"ARRIERO_HWMON": str(root)}
        self.set(50)

    def set(self, celsius):
        with open(self.path, "r+" if self.path.exists() else "w", encoding="ascii") as f:
            f.write(f"{celsius * 1000:06d}\n")  # in place, as the kernel's: no reading finds it empty


@pytest.fixture
def sensor(tmp_path):
    return Sensor(tmp_path / "hwmon")


class Card:
    """One toy GPU behind a management library of the tests."""

    def __init__(self, root, library):
        self.scenario, self.calls = root / "scenario", root / "calls"
        self.env = {"ARRIERO_NVML": str(library), "ARRIERO_TOY_NVML": str(self.scenario), "ARRIERO_TOY_NVML_CALLS": str(self.calls)}
        self.more = ""
        self.set(50)

    def set(self, celsius):
        part = self.scenario.with_suffix(".part")
        part.write_text(f"{CARD}temperature {celsius} 95\npower 90000 450000 450000\n{self.more}")
        os.rename(part, self.scenario)

    def called(self):
        return self.calls.read_text().split("\n")[:-1] if self.calls.exists() else []


@pytest.fixture(scope="module")
def toy_nvml(tmp_path_factory):
    path = tmp_path_factory.mktemp("nvml") / "libtoy-nvml.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", path, ROOT / "tests/toygpu/fake_nvml.c"], check=True)
    return path


@pytest.fixture
def card(tmp_path, toy_nvml):
    return Card(tmp_path, toy_nvml)


def deeds(d, subject):
    r = d.cli("why", subject, "-n", "100", "--json")
    if r.returncode:  # a device that was not read yet
        return []
    return [(x["kind"], x["reasons"][0]["text"]) for x in json.loads(r.stdout)["decisions"]]


def has(d, subject, kind):
    return [text for k, text in deeds(d, subject) if k == kind]


def test_a_hot_processor_gets_fewer_requests_at_a_time(make_daemon, folder, slow, sensor):
    d = make_daemon([folder(slow)], config=QUICK, env=sensor.env).start()
    assert d.chat("slow")[0] == 200
    slots = d.instance("slow")["slots"]
    assert slots > 1 and d.instance("slow")["heat"] is None
    sensor.set(86)
    wait_for(lambda: has(d, "Host", "thermal_warning"), message="the warning")
    assert d.instance("slow")["heat"] is None, "a warning changes nothing"
    sensor.set(91)
    wait_for(lambda: (d.instance("slow")["heat"] or {}).get("step") == 3, message="the last step")
    heat = d.instance("slow")["heat"]
    assert (heat["device"], heat["temperature_c"], heat["slots_at_once"]) == ("Host", 91, 1)
    assert "critical from 90" in has(d, "Host", "thermal_critical")[0]
    assert len(has(d, "slow", "heat")) == 3
    assert "Host is at 91 °C" in d.cli("why", "slow").stdout
    assert "Host is at 91 °C, critical from 90; step 3 of 3" in d.cli("status").stdout
    assert d.metric('arriero_heat_step{device="Host"}') == 3 and d.metric('arriero_thermal_level{device="Host"}') == 2

    answers = []  # nobody is refused: all are served, one after the other
    threads = [threading.Thread(target=lambda: answers.append(d.chat("slow", max_tokens=2)[0])) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert answers == [200] * 3

    sensor.set(60)
    wait_for(lambda: d.instance("slow")["heat"] is None, message="the way back up")
    assert len(has(d, "slow", "cool")) == 3
    assert "all its" in has(d, "slow", "cool")[0]
    wait_for(lambda: has(d, "Host", "thermal_normal"), message="the end of the heat")
    assert "heat" not in d.cli("status").stdout
    d.stop()


def test_the_reaction_can_be_switched_off(make_daemon, folder, tiny, sensor):
    d = make_daemon([folder(tiny)], config={**QUICK, "thermal": {"react": False, "dwell": "200ms"}}, env=sensor.env).start()
    assert d.chat("tiny-a")[0] == 200
    sensor.set(95)
    wait_for(lambda: has(d, "Host", "thermal_critical"), message="the event")
    assert d.instance("tiny-a")["heat"] is None
    machine = d.cli_json("status")["machine"]
    assert machine["host"]["thermal"]["level"] == "critical" and machine["host"]["thermal"]["step"] == 0
    d.stop()


def test_a_gpu_warns_is_critical_and_cools(make_daemon, folder, tiny, card):
    d = make_daemon([folder(tiny)], config=QUICK, env=card.env).start()
    card.set(86)
    wait_for(lambda: has(d, "CUDA0", "thermal_warning"), message="the warning")
    card.set(91)
    wait_for(lambda: has(d, "CUDA0", "thermal_critical"), message="the alarm")
    gpu = d.cli_json("status")["machine"]["gpus"][0]
    assert gpu["thermal"]["level"] == "critical" and gpu["thermal"]["critical_c"] == 90
    wait_for(lambda: d.metric('arriero_heat_step{device="CUDA0"}') == 3, message="the last step")
    card.set(50)
    wait_for(lambda: has(d, "CUDA0", "thermal_normal"), message="the end of the heat")
    wait_for(lambda: d.metric('arriero_heat_step{device="CUDA0"}') == 0, message="the way back up")
    assert d.chat("tiny-a")[0] == 200
    d.stop()


def test_a_card_that_slows_itself_down_is_too_warm(make_daemon, folder, tiny, card):
    d = make_daemon([folder(tiny)], config=QUICK, env=card.env).start()
    card.more = "throttle 20\n"
    card.set(70)
    text = wait_for(lambda: has(d, "CUDA0", "thermal_warning"), message="the warning")[0]
    assert "slows itself down (sw_thermal)" in text
    d.stop()


LIMITED = {**QUICK, "power": {"allow": True, "limit_w": {"CUDA0": 250}}}


def test_a_power_limit_is_set_and_set_back(make_daemon, folder, tiny, card):
    card.more = "power_range 100000 450000\n"
    card.set(50)
    d = make_daemon([folder(tiny)], config=LIMITED, env=card.env).start()
    assert card.called() == ["set 0 250000"]
    assert "limited to 250 W" in has(d, "CUDA0", "power_limit")[0]
    assert os.path.exists(d.state_dir + "/power-limits.json")
    d.stop()
    assert card.called() == ["set 0 250000", "set 0 450000"]
    assert not os.path.exists(d.state_dir + "/power-limits.json")


def test_a_killed_daemons_limit_is_set_back_by_the_next(make_daemon, folder, tiny, card):
    card.more = "power_range 100000 450000\n"
    card.set(50)
    d = make_daemon([folder(tiny)], config=LIMITED, env=card.env).start()
    d.process.kill()
    d.process.wait(20)
    assert card.called() == ["set 0 250000"]
    d.write_config(QUICK)  # and it limits nothing itself
    d.start()
    assert card.called()[:2] == ["set 0 250000", "set 0 450000"]
    d.stop()
    assert card.called()[-1] == "set 0 450000"


def test_without_the_right_to_it_the_daemon_says_so(make_daemon, folder, tiny, card):
    card.more = "power_range 100000 450000\nfail nvmlDeviceSetPowerManagementLimit 4\n"
    card.set(50)
    d = make_daemon([folder(tiny)], config=LIMITED, env=card.env).start()
    text = has(d, "CUDA0", "power_refused")[0]
    assert "only root may" in text and "250 W" in text and "nvidia-smi" in text
    assert d.chat("tiny-a")[0] == 200
    assert "only root may" in d.cli("status").stdout
    d.stop()


def test_without_permission_nothing_is_set(make_daemon, folder, tiny, card):
    card.more = "power_range 100000 450000\n"
    card.set(50)
    d = make_daemon([folder(tiny)], config={**QUICK, "power": {"limit_w": {"CUDA0": 250}}}, env=card.env).start()
    assert card.called() == []
    assert "add power.allow: true" in d.log()
    d.stop()
