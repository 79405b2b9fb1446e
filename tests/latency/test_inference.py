from unittest.mock import Mock

import pytest
import torch
from torch import nn

from il_bench.errors import IlBenchError
from il_bench.latency.calls import observations, policy_call
from il_bench.latency.device import device_for
from il_bench.latency.inference import Recorded, in_mode, sampler_of, with_sampler
from il_bench.policies.checkpoint import LoadedPolicy, load_policy, wrap_object
from il_bench.protocol import TimedCall
from tests.small_policies import save_diffusion

from .fakes import FakeClock, FakeDevice, PixelPolicy, made


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> LoadedPolicy:
    """One that was trained on 100 noise levels."""
    return load_policy(save_diffusion(tmp_path_factory.mktemp("diffusion") / "policy"))


def unet_calls(policy: LoadedPolicy, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often one new chunk calls the U-Net."""
    forward = Mock(side_effect=lambda sample, *_, **__: torch.zeros_like(sample))
    monkeypatch.setattr(policy.policy.diffusion.unet, "forward", forward)
    made(policy_call(policy, TimedCall.NEW_CHUNK, 1))
    return forward.call_count


@pytest.mark.parametrize("sampler", ["DDPM-100", "DDIM-10", "DDIM-3", "DDPM-7"])
def test_a_sampler_denoises_in_as_many_steps(
    diffusion: LoadedPolicy, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, trained = sampler_of(diffusion), diffusion.policy.diffusion.noise_scheduler
    other = with_sampler(diffusion, sampler)
    assert sampler_of(other) == sampler
    scheduler = other.policy.diffusion.noise_scheduler
    assert type(scheduler).__name__ == f"{sampler[:4]}Scheduler"
    assert torch.equal(trained.alphas_cumprod, scheduler.alphas_cumprod)
    assert trained.config.prediction_type == scheduler.config.prediction_type
    assert unet_calls(other, monkeypatch) == int(sampler[5:])
    assert sampler_of(diffusion) == own, "the given policy stays as it was"


@pytest.mark.parametrize("sampler", ["DDIM", "DDIM-0", "ddim-10", "PNDM-10", "DDIM-101"])
def test_an_impossible_sampler_is_named(diffusion: LoadedPolicy, sampler: str) -> None:
    with pytest.raises(IlBenchError, match=sampler):
        with_sampler(diffusion, sampler)


def test_no_sampler_has_more_steps_than_the_policy_was_trained_on() -> None:
    with pytest.raises(IlBenchError, match="DDIM-5 has more steps than diffusion was trained on: 4"):
        with_sampler(load_policy("diffusion"), "DDIM-5")


def test_only_diffusion_has_a_sampler(policy: LoadedPolicy) -> None:
    assert sampler_of(policy) is None and sampler_of(load_policy("expert")) is None
    with pytest.raises(IlBenchError, match="not a diffusion policy"):
        with_sampler(policy, "DDIM-10")


def test_networks_are_the_outermost_modules_that_predict(
    diffusion: LoadedPolicy, policy: LoadedPolicy
) -> None:
    assert diffusion.networks(observations(1)) == [diffusion.policy.diffusion.unet]
    assert policy.networks(observations(1)) == [policy.policy.model]
    assert not any(module._forward_pre_hooks for module in policy.policy.modules())


def test_a_policy_on_images_has_its_network_recorded() -> None:
    policy = wrap_object(PixelPolicy(), name="eye", checkpoint="memory")
    eager, recorded = (
        policy_call(policy, TimedCall.NEW_CHUNK, 2, mode=mode, device=FakeDevice(FakeClock()))
        for mode in ("eager", "cuda graph")
    )
    assert type(recorded.policy.policy.eye.forward) is Recorded
    assert torch.equal(eager.call(), recorded.call())


def test_the_planner_has_no_network_to_compile() -> None:
    with pytest.raises(IlBenchError, match="expert has no network"):
        in_mode(load_policy("expert"), "compile", device_for("cpu"), observations(1))


def test_recorded_networks_act_as_the_policy_does(policy: LoadedPolicy) -> None:
    """Inputs change between calls, and a chunk that waits in the queue is not written over."""
    device = FakeDevice(FakeClock())
    recorded = in_mode(policy, "cuda graph", device, observations(1))
    for batch in (1, 3):
        for seed in range(3):
            shown = {
                "observation.state": torch.rand(batch, 2, generator=torch.manual_seed(seed)) * 512,
                "observation.environment_state": torch.rand(batch, 16) * 512,
            }
            for each in (policy, recorded):
                each.reset()
            assert torch.equal(policy.select_action(shown), recorded.select_action(shown))
    assert device.captured == 2, "one a shape"
    assert type(policy.policy.model.forward) is not Recorded, "the given policy stays as it was"


def test_what_a_recording_returned_is_the_callers() -> None:
    device = FakeDevice(FakeClock())
    network = Recorded(lambda x, *, scale: {"y": x * scale, "n": 1}, device)
    first = network(torch.ones(2), scale=2.0)
    second = network(torch.full((2,), 5.0), scale=2.0)
    assert first["y"].tolist() == [2.0, 2.0] and second["y"].tolist() == [10.0, 10.0]
    assert network(torch.ones(2), scale=3.0)["y"].tolist() == [3.0, 3.0]
    assert device.captured == 2, "another plain value is another graph"


@pytest.mark.slow
def test_compiled_networks_act_as_the_policy_does(policy: LoadedPolicy) -> None:
    call = policy_call(policy, TimedCall.NEW_CHUNK, 2, mode="compile")
    eager = policy_call(policy, TimedCall.NEW_CHUNK, 2)
    assert torch.allclose(made(call), made(eager), atol=1e-2)
    assert isinstance(call.policy.policy.model, nn.Module)
    assert call.policy.policy.model._compiled_call_impl is not None
    assert policy.policy.model._compiled_call_impl is None
