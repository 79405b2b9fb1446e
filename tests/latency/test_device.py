import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

from il_bench import machine
from il_bench.errors import IlBenchError
from il_bench.latency.device import (
    CudaDevice,
    MpsDevice,
    device_for,
    inference_on_one_thread,
    process_memory_mb,
    slowed_by,
)


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1", "mps"])
def test_every_device_of_torch_that_policies_run_on_is_known(name: str) -> None:
    found = device_for(name)
    assert (found.name, found.kind) == (name, name.partition(":")[0])


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cuda:x"])
def test_other_devices_are_refused_by_name(name: str) -> None:
    with pytest.raises(IlBenchError, match="use cpu, cuda"):
        device_for(name)


def test_the_cpu_says_what_its_times_depend_on() -> None:
    with inference_on_one_thread():
        found = device_for("cpu").identity()
    assert (found["device"], found["threads"], found["autocast"]) == ("cpu", 1, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert device_for("cpu").identity()["autocast"] == "torch.bfloat16"
    assert device_for("cpu").state()["load"] >= 0
    assert device_for("cpu").event() is None


def test_what_slows_a_gpu_down_is_said_in_words() -> None:
    assert slowed_by(0x1) == "nothing", "idle is no slowdown"
    assert slowed_by(0x4 | 0x40) == "software power cap, hardware thermal slowdown"


def test_what_nvidia_smi_does_not_tell_is_left_out() -> None:
    found = machine.parse_smi("570.86.10, 1980, 2619, 1980, 41, [N/A], 0x0000000000000004\n")
    fields = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "temperature.gpu", "reasons")
    values = ("570.86.10", "1980", "2619", "1980", "41", "0x0000000000000004")
    assert found == dict(zip(fields, values, strict=True))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> CudaDevice:
    """A GPU as torch and nvidia-smi describe one; nothing is run on it."""
    properties = SimpleNamespace(name="GPU X", total_memory=80e9, major=9, minor=0, uuid="abc")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "GPU X")

    def smi(*command: str) -> str | None:
        if "clocks_event_reasons" in command[-1]:
            return None  # an older driver refuses the whole query
        assert command[:3] == ("nvidia-smi", "-i", "GPU-abc")
        return "470.1, 1200, 2619, 1980, 84, 690.5, 0x0000000000000028"

    monkeypatch.setattr(machine, "_run", smi)
    return CudaDevice("cuda:0")


def test_a_gpu_is_told_apart_by_name_driver_and_capability(gpu: CudaDevice) -> None:
    identity = gpu.identity()
    for found in (identity, machine.fingerprint("cuda")):
        assert (found["gpu"], found["driver"], found["compute_capability"]) == ("GPU X", "470.1", "9.0")
    assert identity["tf32"] in (True, False) and identity["cudnn_tf32"] in (True, False)
    assert "driver" not in machine.fingerprint("cpu")


def test_a_gpus_clocks_and_throttling_are_recorded(gpu: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nvidia-smi there are gaps."""
    found = gpu.state()
    assert (found["clock_mhz"], found["max_clock_mhz"], found["temperature_c"]) == (1200, 1980, 84)
    assert found["slowed_by"] == "hardware slowdown, software thermal slowdown"
    monkeypatch.setattr(machine, "_run", lambda *command: None)
    assert gpu.identity()["driver"] is None
    assert gpu.state()["slowed_by"] is None and gpu.state()["clock_mhz"] is None


def test_synchronising_asks_torch_for_the_right_device(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", asked.append)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: asked.append("mps"))
    device_for("cuda:1").synchronize()
    MpsDevice("mps").synchronize()
    assert asked == [1, "mps"]


def test_one_thread_is_restored() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), inference_on_one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_a_calls_memory_is_what_it_holds_at_once() -> None:
    kept = torch.ones(1000, 1000)  # 4 MB that were there before

    def call() -> object:
        one = torch.ones(1000, 1000)
        two = one + kept
        del one
        return two + 1  # two arrays at once, never three

    assert device_for("cpu").call_memory_mb(call) == pytest.approx(8.0, rel=0.01)
    assert device_for("mps").call_memory_mb(call) is None


def test_a_processes_memory_is_what_the_system_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux says it in a file, other systems by `resource`, and Windows not at all."""
    found = process_memory_mb()
    monkeypatch.setattr(Path, "read_text", Mock(side_effect=FileNotFoundError))
    assert found == pytest.approx(process_memory_mb(), rel=0.05)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert process_memory_mb() is None
