"""One training loop for every policy on keypoints, out of windows held in memory."""

import io
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path

import torch
from lerobot.policies.factory import make_policy
from lerobot.policies.pretrained import PreTrainedPolicy
from torch import Tensor

from il_bench import protocol
from il_bench.data import Windows, open_dataset
from il_bench.errors import IlBenchError
from il_bench.machine import one_thread
from il_bench.train import batches, checkpoint
from il_bench.train.batches import BATCH_KEYS
from il_bench.train.log import Progress
from il_bench.train.optimization import AveragedPolicy, lr_factor
from il_bench.train.recipes import Recipe

LOG_EVERY = 50


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
        batches.check_keypoints(dataset, source)
        config = batches.policy_config(recipe, device)
        torch.manual_seed(seed)
        with redirect_stdout(io.StringIO()):  # LeRobot prints what it does
            self.policy: PreTrainedPolicy = make_policy(config, ds_meta=dataset.meta)
        self.windows = Windows(dataset, batches.delta_timestamps(config, dataset.fps))
        self.preprocessor, self.postprocessor = batches.processors(recipe, config, self.windows)
        self.frames = batches.usable_frames(self.windows, getattr(config, "drop_n_last_frames", 0))
        self.data = batches.describe_data(dataset, data_name or protocol.data_name(source), self.windows)
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
        on_evaluate: Callable[[], object] | None = None,
    ) -> bool:
        """Train to the end. Ctrl-C (or SIGTERM) finishes the step, saves, and returns False."""
        losses: list[Tensor] = []
        with _asked_to_stop() as interrupted, one_thread() if self.device == "cpu" else nullcontext():
            while self.step < self.settings.steps and not interrupted():
                losses.append(self.train_step())
                if self.step % LOG_EVERY == 0 or self.step == self.settings.steps:
                    on_progress(self._progress(losses))
                    losses = []
                if self.step % save_every == 0:
                    checkpoint.save(self)
                if on_evaluate and eval_every and self.step % eval_every == 0:
                    on_evaluate()
        checkpoint.save(self)
        return self.step == self.settings.steps

    def train_step(self) -> Tensor:
        """One optimizer step; returns its loss, detached."""
        started, core_started = time.perf_counter(), time.process_time()
        batch = self._batch(self.frames[self._batch_rows()])
        self.data_seconds += time.perf_counter() - started
        torch.manual_seed(_mix(self.seed, self.step))
        self.policy.train()
        was_residual_vq = self._trains_residual_vq()
        factor = lr_factor(self.settings, self.step, self.residual_vq_steps)
        for group, lr in zip(self.optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = lr * factor
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
        if was_residual_vq and not self._trains_residual_vq():
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
    def residual_vq_steps(self) -> int:
        """Steps of VQ-BeT that train only its residual VQ; 0 of other policies."""
        return int(getattr(self.policy.config, "n_vqvae_training_steps", 0))

    def _trains_residual_vq(self) -> bool:
        return bool(getattr(self.policy, "in_first_phase", False))

    def _progress(self, losses: list[Tensor]) -> Progress:
        return Progress(
            step=self.step,
            phase="residual VQ" if self._trains_residual_vq() else "policy",
            loss=float(torch.stack(losses).mean()),
            lr=self.optimizer.param_groups[0]["lr"],
            seconds=self.seconds,
            data_share=self.data_seconds / self.seconds,
            steps_per_second=self.step / self.seconds,
        )


def _mix(seed: int, number: int) -> int:
    """One 62-bit seed out of two numbers; plain sums would make run 1's step 2 run 2's step 1."""
    return ((seed + 1) * 0x9E3779B97F4A7C15 + number * 0xC2B2AE3D27D4EB4F) % (1 << 62)


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Yield whether Ctrl-C or SIGTERM came; within, neither ends this process. For the main thread only."""
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
