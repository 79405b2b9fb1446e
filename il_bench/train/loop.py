"""One training loop for every policy, out of memory-resident windows."""

import io
import math
import time
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import draccus
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies.factory import make_policy, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE
from torch import Tensor

import il_bench.policies  # noqa: F401  (registers il_bc, il_bet and il_vqbet)
from il_bench import protocol
from il_bench.data import Windows, open_dataset
from il_bench.errors import IlBenchError
from il_bench.machine import one_thread
from il_bench.policies import pusht_features
from il_bench.train import checkpoint
from il_bench.train.ema import AveragedPolicy
from il_bench.train.interrupts import asked_to_stop
from il_bench.train.recipes import Recipe

BATCH_KEYS = (OBS_STATE, OBS_ENV_STATE, ACTION, f"{ACTION}_is_pad")
LOG_EVERY = 50


@dataclass(frozen=True)
class Progress:
    """Where a run stands, told to the caller every ``LOG_EVERY`` steps.

    ``loss`` is the mean since the last report; ``seconds`` counts training time of all sittings;
    ``data_share`` is the share of it spent gathering and normalising batches.
    """

    step: int
    steps: int
    phase: str
    loss: float
    lr: float
    seconds: float
    data_share: float
    steps_per_second: float


class Trainer:
    """A run: policy, data, optimizer and average, at some step.

    Every random draw of a step comes from ``seed`` and the step's number, so that an interrupted run goes
    on as if it had never stopped.

    Args:
        recipe: what to train and how.
        source: demonstrations, as ``open_dataset`` takes them.
        seed: of initialisation, order and noise.
        output: folder of the run; ``checkpoints/last`` in it is LeRobot's layout.
        device: where to train.
        data_name: what reports call the data; default is the source's name.

    Raises:
        IlBenchError: for a recipe LeRobot does not accept, or data that do not fit.
    """

    def __init__(
        self,
        recipe: Recipe,
        source: str,
        *,
        seed: int,
        output: Path,
        device: str = "cpu",
        data_name: str | None = None,
    ) -> None:
        self.recipe, self.source, self.seed, self.output = recipe, source, seed, output
        self.device = device
        self.settings = recipe.training
        dataset = open_dataset(source)
        _check_keypoints(dataset, source)
        config = policy_config(recipe, device)
        torch.manual_seed(seed)
        with redirect_stdout(io.StringIO()):  # LeRobot prints what it does
            self.policy: PreTrainedPolicy = make_policy(config, ds_meta=dataset.meta)
        self.windows = Windows(dataset, delta_timestamps(config, dataset.fps))
        self.preprocessor, self.postprocessor = _processors(recipe, config, self.windows)
        self.frames = _usable_frames(self.windows, getattr(config, "drop_n_last_frames", 0))
        self.data = checkpoint.describe_data(dataset, data_name or protocol.data_name(source), self.windows)
        if hasattr(self.policy, "fit_tokenizer"):
            self.policy.fit_tokenizer(self._batch(self.frames), seed=seed)
        self.optimizer = torch.optim.AdamW(
            self.policy.get_optim_params(),
            lr=self.settings.lr,
            betas=self.settings.betas,
            weight_decay=self.settings.weight_decay,
        )
        self._base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.average = AveragedPolicy(self.policy, self.settings.ema_decay)
        self.step, self.seconds, self.data_seconds, self.core_seconds = 0, 0.0, 0.0, 0.0

    def run(
        self,
        *,
        save_every: int,
        on_progress: Callable[[Progress], None],
        eval_every: int = 0,
        on_evaluate: Callable[["Trainer"], None] | None = None,
    ) -> bool:
        """Train to the end. Ctrl-C (or SIGTERM) finishes the step, saves, and returns False."""
        losses: list[Tensor] = []
        with asked_to_stop() as interrupted, one_thread() if self.device == "cpu" else nullcontext():
            while self.step < self.settings.steps and not interrupted():
                losses.append(self.train_step())
                if self.step % LOG_EVERY == 0 or self.step == self.settings.steps:
                    on_progress(self._progress(losses))
                    losses = []
                if self.step % save_every == 0:
                    checkpoint.save(self)
                if on_evaluate and eval_every and self.step % eval_every == 0:
                    on_evaluate(self)
        checkpoint.save(self)
        return self.step == self.settings.steps

    def train_step(self) -> Tensor:
        """One optimizer step; returns its loss, detached."""
        started, core_started = time.perf_counter(), time.process_time()
        batch = self._batch(self.frames[self._batch_rows()])
        self.data_seconds += time.perf_counter() - started
        torch.manual_seed(_mix(self.seed, self.step))
        self.policy.train()
        first_phase = self._in_first_phase()
        for group, lr in zip(self.optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = lr * self._lr_factor()
        bf16 = self.settings.autocast == "bfloat16"
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=bf16):
            loss, _ = self.policy.forward(batch)
        if not torch.isfinite(loss):
            raise IlBenchError(
                f"step {self.step}: the loss is {loss.item()}. Lower lr in the recipe, or look for outliers "
                f"in {self.source}; the last checkpoint is in {self.output}."
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.settings.grad_clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if first_phase and not self._in_first_phase():
            self.average.restart(self.policy)
        else:
            self.average.update(self.policy)
        self.step += 1
        self.seconds += time.perf_counter() - started
        self.core_seconds += time.process_time() - core_started
        detached: Tensor = loss.detach()
        return detached

    def _batch(self, frames: Tensor) -> dict[str, Tensor]:
        raw = self.windows.batch(frames)
        processed = self.preprocessor({key: raw[key] for key in BATCH_KEYS})
        return {key: processed[key] for key in BATCH_KEYS}

    def _batch_rows(self) -> Tensor:
        """Rows of ``self.frames`` of the current step: each epoch is one permutation, its rest dropped."""
        size = min(self.settings.batch_size, len(self.frames))
        epoch, place = divmod(self.step, len(self.frames) // size)
        order = self._epoch_order(epoch)
        return order[place * size : (place + 1) * size]

    def _epoch_order(self, epoch: int) -> Tensor:
        if getattr(self, "_order_epoch", None) != epoch:
            generator = torch.Generator().manual_seed(_mix(self.seed, epoch) ^ 1)
            self._order = torch.randperm(len(self.frames), generator=generator)
            self._order_epoch = epoch
        return self._order

    @property
    def first_phase_steps(self) -> int:
        """Steps of VQ-BeT that train its residual VQ alone; 0 of other policies."""
        return int(getattr(self.policy.config, "n_vqvae_training_steps", 0))

    def _in_first_phase(self) -> bool:
        return bool(getattr(self.policy, "in_first_phase", False))

    def _lr_factor(self) -> float:
        """Constant in VQ-BeT's first phase; then linear warm-up and a cosine to the end."""
        start = self.first_phase_steps
        if self.step < start:
            return 1.0
        step, settings = self.step - start, self.settings
        warmup = min(1.0, (step + 1) / max(1, settings.warmup_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * step / ((settings.cosine_steps or settings.steps) - start)))
        final = settings.final_lr_fraction
        cooldown = min(1.0, (settings.steps - self.step) / max(1, settings.cooldown_steps))
        return warmup * cooldown * (final + (1 - final) * cosine)

    def _progress(self, losses: list[Tensor]) -> Progress:
        return Progress(
            step=self.step,
            steps=self.settings.steps,
            phase="residual VQ" if self._in_first_phase() else "policy",
            loss=float(torch.stack(losses).mean()),
            lr=self.optimizer.param_groups[0]["lr"],
            seconds=self.seconds,
            data_share=self.data_seconds / self.seconds,
            steps_per_second=self.step / self.seconds,
        )


def policy_config(recipe: Recipe, device: str) -> PreTrainedConfig:
    """LeRobot's configuration out of a recipe.

    Raises:
        IlBenchError: when LeRobot does not know the type or a field, or refuses a value.
    """
    fields = {**recipe.policy, "device": device, "push_to_hub": False}
    try:
        config: PreTrainedConfig = draccus.decode(PreTrainedConfig, fields)
    except Exception as error:  # draccus has its own errors around ValueError and KeyError
        cause = error.__cause__ or error
        raise IlBenchError(f"recipe, [policy] {recipe.policy.get('type')}: {cause}") from None
    if recipe.processing.pusht_features:
        config.input_features = pusht_features.input_features()
    return config


def _processors(recipe: Recipe, config: PreTrainedConfig, windows: Windows) -> tuple[Any, Any]:
    """LeRobot's processors of the policy, with the recipe's steps among them."""
    processing, stats = recipe.processing, windows.stats
    if processing.relative_actions:
        stats = {**stats, ACTION: _relative_stats(windows)}
    preprocessor, postprocessor = make_pre_post_processors(config, dataset_stats=stats)
    if processing.relative_actions:
        pusht_features.make_actions_relative(preprocessor, postprocessor)
    if processing.pusht_features:
        pusht_features.add_features(preprocessor)
    return preprocessor, postprocessor


def _relative_stats(windows: Windows) -> dict[str, Tensor]:
    """LeRobot's statistics of the windows' actions (2,), relative to where the agent is; padding left out."""
    batch = windows.batch(torch.arange(len(windows)))
    state = batch[OBS_STATE].flatten(1)[:, -2:]  # the last one, if there is a history
    relative = (batch[ACTION] - state[:, None])[~batch[f"{ACTION}_is_pad"]]
    low, high = relative.aminmax(dim=0)
    return {"mean": relative.mean(dim=0), "std": relative.std(dim=0), "min": low, "max": high}


def delta_timestamps(config: PreTrainedConfig, fps: int) -> dict[str, list[float]]:
    """LeRobot's ``delta_timestamps`` of the policy's windows, in seconds."""
    actions = config.action_delta_indices
    result = {ACTION: [i / fps for i in actions or [0]]}
    observations = config.observation_delta_indices
    if observations is not None:
        result |= {key: [i / fps for i in observations] for key in (OBS_STATE, OBS_ENV_STATE)}
    return result


def _usable_frames(windows: Windows, drop_n_last_frames: int) -> Tensor:
    """Frames a window may be centred on: all but the last few of each episode."""
    everything = torch.arange(len(windows))
    if drop_n_last_frames == 0:
        return everything
    episodes = windows.batch(everything)["episode_index"]
    _, lengths = torch.unique_consecutive(episodes, return_counts=True)
    last = (lengths.cumsum(0) - 1).repeat_interleave(lengths)
    usable = everything[last - everything >= drop_n_last_frames]
    if len(usable) == 0:
        raise IlBenchError(f"No episode is longer than drop_n_last_frames = {drop_n_last_frames} frames.")
    return usable


def _mix(seed: int, number: int) -> int:
    """One 62-bit seed out of two numbers; plain sums would make run 1's step 2 run 2's step 1."""
    return ((seed + 1) * 0x9E3779B97F4A7C15 + number * 0xC2B2AE3D27D4EB4F) % (1 << 62)


def _check_keypoints(dataset: LeRobotDataset, source: str | Path) -> None:
    if OBS_ENV_STATE not in dataset.meta.features:
        others = ", ".join(key for key in dataset.meta.features if key.startswith("observation."))
        raise IlBenchError(
            f"{source}: holds no keypoints ({OBS_ENV_STATE}), but {others}; to train on images, add "
            "--track pixels"
        )
