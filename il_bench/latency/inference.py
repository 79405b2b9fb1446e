"""Other ways to run a policy: compiled, as CUDA graphs, or with another diffusion sampler."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn
from torch.utils import _pytree

from il_bench.errors import IlBenchError
from il_bench.latency.device import Device, Replay
from il_bench.policies.checkpoint import LoadedPolicy
from il_bench.protocol import Mode, check_sampler

_SCHEDULERS = {"DDPM": DDPMScheduler, "DDIM": DDIMScheduler}


def sampler_of(policy: LoadedPolicy) -> str | None:
    """A diffusion policy's sampler and steps, such as ``DDIM-10``; None for other policies."""
    model: Any = getattr(policy.policy, "diffusion", None)
    for name, kind in _SCHEDULERS.items():
        if isinstance(getattr(model, "noise_scheduler", None), kind):
            return f"{name}-{model.num_inference_steps}"
    return None


def noise_levels(policy: LoadedPolicy) -> int:
    """How many noise levels a diffusion policy was trained on: no sampler of it has more steps."""
    model: Any = policy.policy.diffusion
    return int(model.noise_scheduler.config.num_train_timesteps)


def with_sampler(policy: LoadedPolicy, sampler: str) -> LoadedPolicy:
    """A copy of a diffusion policy with another `sampler`, ``DDPM-N`` or ``DDIM-N``, with N steps.

    Weights and noise schedule stay. In config.json, ``noise_scheduler_type`` and ``num_inference_steps`` do
    the same.
    """
    kind, steps = check_sampler(sampler)
    if sampler_of(policy) is None:
        raise IlBenchError(f"sampler: {policy.name} is not a diffusion policy; leave {sampler} out")
    if steps > (most := noise_levels(policy)):
        raise IlBenchError(f"sampler: {sampler} has more steps than {policy.name} was trained on: {most}")
    other: Any = copy.deepcopy(policy.policy)
    other.diffusion.noise_scheduler = _SCHEDULERS[kind].from_config(other.diffusion.noise_scheduler.config)
    other.diffusion.num_inference_steps = steps
    return replace(policy, policy=other)


def in_mode(policy: LoadedPolicy, mode: str, device: Device, seen: dict[str, Tensor]) -> LoadedPolicy:
    """Return the policy itself for ``eager``, else a copy whose networks are compiled or recorded.

    ``compile``: torch.compile's defaults, with fixed shapes. ``cuda graph``: eager's kernels, launched at
    once as one graph for each network and shape of its inputs. The processing and the code between networks
    stay as they are: of diffusion's denoising, only the U-Net changes. Both modes work in the first call.

    seen: raw observations that the policy can act on.
    """
    if mode not in Mode:
        raise IlBenchError(f"latency: unknown mode {mode!r}; use one of {', '.join(Mode)}")
    if mode == Mode.EAGER:
        return policy
    if mode == Mode.CUDA_GRAPH and not device.has_graphs:
        raise IlBenchError(f"cuda graph: {device.name} has no graphs; use --il-device cuda or another mode")
    if not isinstance(policy.policy, nn.Module):
        raise IlBenchError(f"{mode}: {policy.name} has no network; leave it out")
    other = replace(policy, policy=copy.deepcopy(policy.policy))
    if mode == Mode.COMPILE:
        other.compile(seen)
    else:
        for network in other.networks(seen):
            network.forward = Recorded(network.forward, device)
    return other


class Recorded:
    """A network's forward, recorded once for each shape of its inputs, and replayed from then on.

    Inputs may be any nesting of tensors and plain values. The result is a copy, since the next replay writes
    into the same memory.
    """

    def __init__(self, forward: Callable[..., Any], device: Device) -> None:
        self._forward, self._device = forward, device
        self._graphs: dict[Any, tuple[list[Tensor], Any, Replay]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Replay with these inputs."""
        leaves, structure = _pytree.tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        plain = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        key = (str(structure), plain, tuple((tuple(each.shape), each.dtype) for each in tensors))
        if key not in self._graphs:
            own = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            args, kwargs = _pytree.tree_unflatten(own, structure)
            recorded = self._device.capture(lambda: self._forward(*args, **kwargs))
            self._graphs[key] = ([leaf for leaf in own if isinstance(leaf, Tensor)], *recorded)
        inputs, result, replay = self._graphs[key]
        for static, given in zip(inputs, tensors, strict=True):
            static.copy_(given)
        replay()
        return _pytree.tree_map_only(Tensor, Tensor.clone, result)
