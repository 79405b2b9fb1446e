from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from il_bench.errors import IlBenchError
from il_bench.machine import AS_SAVED, Numerics
from il_bench.plugin.options import Invocation
from il_bench.plugin.settings import OPTIONS, Settings, read
from il_bench.report import schema

DEFAULTS: dict[str, Any] = {each.dest: each.parser["default"] for each in OPTIONS.values()}


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of act and vqbet on keypoints, and cam on pixels."""
    folder, on_pixels = tmp_path / "zoo", tmp_path / "pixels"
    for path in (
        folder / "vqbet" / "model.safetensors",
        folder / "act" / "model.safetensors",
        on_pixels / "cam" / "head.safetensors",
    ):
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.setattr("il_bench.zoo.ZOO", folder)
    monkeypatch.setattr("il_bench.zoo.pixels_folder", lambda: on_pixels)
    return folder


def given(folder: Path, *, one_of_many: bool = False, project_policies: Any = (), **values: Any) -> Settings:
    assert set(values) <= set(DEFAULTS)
    return read(Invocation({**DEFAULTS, **values}.__getitem__, folder, one_of_many, dict(project_policies)))


def test_defaults_are_every_shipped_policy_of_the_track_until_its_gates_are_decided(
    zoo: Path, tmp_path: Path
) -> None:
    found = given(tmp_path)
    assert [choice.label for choice in found.policies] == ["act", "vqbet"]
    assert found.episodes is None
    assert found.seed_range == range(200_000, 200_200), "of a policy without a gate"
    assert found.report == tmp_path / "il-bench-report"
    assert not found.benchmark and found.workers >= 1
    assert (found.latency, found.samplers) == ("short", ())
    assert [choice.label for choice in given(tmp_path, il_track="pixels").policies] == ["cam"]


UPDATE = {"il_update_baselines": True, "il_benchmark": True}


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        ({"il_seeds": "validation", "il_episodes": 7}, "seed_range", range(100_000, 100_007)),
        ({"il_episodes": 100_000}, "seed_range", range(200_000, 300_000)),
        (UPDATE, "episodes", 1000),
        ({**UPDATE, "il_episodes": 50}, "episodes", 50),
        ({"one_of_many": True}, "workers", 1),
        ({"one_of_many": True, "il_workers": 3}, "workers", 3),
        ({"il_target": ["mean_max_reward=0.9"]}, "target", ("mean_max_reward", 0.9)),
        ({"il_latency": "full"}, "latency", "full"),
        ({"il_autocast": "bfloat16"}, "numerics", Numerics("bfloat16")),
        ({}, "numerics", AS_SAVED),
        ({"il_sampler": ["DDIM-16", "DDPM-50", "DDIM-16"]}, "samplers", ("DDIM-16", "DDPM-50")),
    ],
)
def test_what_is_made_of_a_value(
    zoo: Path, tmp_path: Path, values: dict[str, Any], name: str, expected: Any
) -> None:
    assert getattr(given(tmp_path, **values), name) == expected


def test_a_policy_meets_the_gates_of_its_own_name_only(zoo: Path, tmp_path: Path) -> None:
    mine = tmp_path / "runs" / "act"
    mine.mkdir(parents=True)
    equals = tmp_path / "lr=0.1"  # a folder
    equals.mkdir()
    chosen = ["vqbet", "runs/act", "act=runs/act", "best=vqbet", "someone/act", "vqbet", "expert", "lr=0.1"]
    expected = {
        "vqbet": "vqbet",
        "runs/act": str(mine),
        "act": str(mine),
        "best": "vqbet",
        "someone/act": "someone/act",
        "expert": "expert",
        "lr=0.1": str(equals),
    }
    found = given(tmp_path, il_policy=chosen).policies
    assert [(choice.gate_name, choice.source) for choice in found] == list(expected.items())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"il_episodes": 0}, r"--il-episodes: 0 .* 1 to 100000$"),
        ({"il_episodes": 100_001}, r"--il-episodes: 100001 .* 1 to 100000$"),
        ({"il_episodes": 1001, "il_seeds": "validation"}, r"1001 .* 1 to 1000 with --il-seeds validation"),
        ({**UPDATE, "il_episodes": 1001}, r"--il-episodes: a baseline takes 1000 test seeds, not 1001"),
        ({"il_history": "."}, r"--il-history: .* is a folder"),
        ({"il_workers": 0}, r"--il-workers: 0 .* 1 or more"),
        ({"il_address": "10.0.0.1:6379"}, r"--il-address: only Ray has one; add --il-executor ray, or leave"),
        ({"il_shard": "1/2", "il_stress": True}, r"--il-shard: a shard measures success alone, not --il-st"),
        ({"il_device": "gpu"}, r"--il-device: unknown device 'gpu'; use cpu, cuda"),
        ({"il_device": "cuda:99"}, r"--il-device: torch finds no cuda:99 here"),
        ({"il_target": ["success_rate"]}, r"--il-target: 'success_rate' is not METRIC=VALUE"),
        ({"il_target": ["pc_success=80"]}, r"--il-target: .* success_rate or mean_max_reward"),
        ({"il_target": ["success_rate=80"]}, r"--il-target: .* between 0.05 and 1"),
        ({"il_target": ["success_rate=nan"]}, r"--il-target: .* between 0.05 and 1"),
        ({"il_target": ["success_rate=0.8", "success_rate=0.9"]}, r"--il-target: give one target, not 2"),
        (
            {"il_policy": ["atc"]},
            r"--il-policy: atc: no such policy\. Give one of act, vqbet, expert, a pretrained_model folder",
        ),
        ({"il_policy": ["cam"]}, r"--il-policy: cam: no such policy\. Give one of act, vqbet, expert"),
        ({"il_policy": ["expert=act"]}, r"--il-policy: 'expert=act': expert is one of il_bench's own rows"),
        ({"il_policy": ["untrained"]}, r"--il-policy: 'untrained': untrained is one of il_bench's own rows"),
        ({"il_policy": ["act", "act=vqbet"]}, r"--il-policy: act and act=vqbet would both be called act"),
        ({"il_policy": ["=runs/act"]}, r"--il-policy: '=runs/act': there is no usable name before '='"),
        *(
            ({"il_sampler": [wrong]}, f"--il-sampler: '{wrong}' is unknown; use DDPM-N or DDIM-N")
            for wrong in ("DDIM", "DDIM-0", "euler-10", "DDIM-10 ")
        ),
        ({"il_compare": "a_file"}, "--il-compare: nothing is timed without --benchmark; add it"),
        (
            {"il_compare": "gone.json", "il_benchmark": True},
            r"--il-compare: no such file: .*gone.json; give the report.json",
        ),
        ({"il_compare": "a_file", "il_benchmark": True}, r"a_file: .*; make the report again"),
        ({"il_baselines": "gone.json"}, r"--il-baselines: no such file: .*gone.json"),
        ({"il_report": "a_file"}, r"--il-report: .*a_file is a file"),
        ({"il_update_baselines": True}, r"--il-update-baselines: nothing is measured without --benchmark"),
        (
            {"il_update_baselines": True, "il_benchmark": True, "il_seeds": "validation"},
            r"--il-update-baselines: baselines are measured on test seeds, not on --il-seeds validation",
        ),
        (
            {"il_update_baselines": True, "il_benchmark": True, "il_policy": ["someone/act"]},
            r"--il-update-baselines: .* not someone/act; keep yours in a file of your own with",
        ),
    ],
)
def test_bad_values_name_the_option_and_the_way_out(
    zoo: Path, tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    (tmp_path / "a_file").touch()
    with pytest.raises(IlBenchError, match=said):
        given(tmp_path, **values)


def test_a_benchmark_without_any_policy_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("il_bench.zoo.ZOO", tmp_path / "nothing")
    assert given(tmp_path).policies == ()
    with pytest.raises(IlBenchError, match="--il-track keypoints: il_bench ships no policy"):
        given(tmp_path, il_benchmark=True)


def test_a_stored_run_is_a_file(zoo: Path, tmp_path: Path) -> None:
    report = schema.Report(created=datetime.now(UTC), environment={})
    (tmp_path / "old.json").write_text(report.model_dump_json())
    assert given(tmp_path, il_compare="old.json", il_benchmark=True).compare == tmp_path / "old.json"
