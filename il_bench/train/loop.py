"""One training loop for every policy on keypoints and every head on an eye, from windows held in memory.

A run's folder has LeRobot's layout. ``checkpoints/last/pretrained_model`` holds the averaged policy, with
``training.json``, which says what made it. ``training_state`` beside it is enough to resume exactly.
"""

import copy
import io
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.optim.optimizers import load_optimizer_state, save_optimizer_state
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION, OBS_STATE
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor

from il_bench import protocol
from il_bench.data import Windows, open_dataset, statistics
from il_bench.errors import IlBenchError
from il_bench.machine import differences, one_thread
from il_bench.train import batches, checkpoints
from il_bench.train.batches import BATCH_KEYS
from il_bench.train.checkpoints import PRETRAINED, RAW_WEIGHTS, STATE, Extension, SavedProgress
from il_bench.train.log import Progress
from il_bench.train.recipes import Recipe

LOG_EVERY = 50


class AveragedPolicy:
    """A copy of a policy whose parameters are the exponential moving average of the trained one's.

    Buffers (codebooks, cluster centres, counters) are copied instead, since the average of two codebooks is
    not a codebook. The decay rises as (1 + t) / (10 + t) up to ``decay``, to forget the first weights soon.
    """

    def __init__(self, policy: PreTrainedPolicy, decay: float) -> None:
        self.decay = decay
        self.policy = copy.deepcopy(policy).eval().requires_grad_(False)
        self.n_updates = 0

    def restart(self, policy: PreTrainedPolicy) -> None:
        """Forget the average, and begin again from the current weights."""
        self.policy.load_state_dict(policy.state_dict())
        self.n_updates = 0

    @torch.no_grad()
    def update(self, policy: PreTrainedPolicy) -> None:
        """Move the average one step towards ``policy``."""
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        averaged, current = list(self.policy.parameters()), list(policy.parameters())
        torch._foreach_lerp_(averaged, [p.detach() for p in current], 1 - decay)
        for mine, theirs in zip(self.policy.buffers(), policy.buffers(), strict=True):
            mine.copy_(theirs)
        self.n_updates += 1


class Trainer:
    """A run: policy, data, optimizer and average, at some step.

    All random numbers of a step come from ``seed`` and the step's number, so that a resumed run continues as
    if it had never stopped. A recipe that LeRobot refuses, or data that do not fit, are an IlBenchError.

    Args:
        source: demonstrations, as ``open_dataset`` takes them.
        seed: of initialisation, order and noise.
        output: folder of the run.
        data_name: name of the data in reports; default: the source's.
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
        #: The features whose statistics the data lack; they were computed from the data.
        self.computed_statistics = statistics.prepare(source, dataset, batches.READ)
        batches.check_spread(dataset, source)
        config = self._config()
        torch.manual_seed(seed)
        with without_prints():
            self.policy: PreTrainedPolicy = self._network(config, dataset)
        self.windows = self._cut_windows(dataset, config)
        self.data = self._describe_data(dataset, data_name or protocol.data_name(source))
        if recipe.processing.relative_actions:
            self.windows.make_relative(ACTION, to=OBS_STATE)
        self.preprocessor, self.postprocessor = batches.processors(recipe, config, self.windows)
        self.frames = batches.usable_frames(self.windows, getattr(config, "drop_n_last_frames", 0))
        if hasattr(self.policy, "fit_tokenizer"):
            self.policy.fit_tokenizer(self._batch(self.frames), seed=seed)
        options = self.settings.model_dump(include={"lr", "betas", "weight_decay"})
        self.optimizer = torch.optim.AdamW(self.policy.get_optim_params(), **options)
        self._base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.average = AveragedPolicy(self.policy, self.settings.ema_decay)
        self.step, self.seconds, self.data_seconds, self.core_seconds = 0, 0.0, 0.0, 0.0
        self._saved: tuple[Path, int] | None = None  # the newest checkpoint and its step
        #: Earlier plans of this run, if it was extended.
        self.extended: list[Extension] = []

    # What a subclass changes that trains a part of a policy.

    def _config(self) -> PreTrainedConfig:
        return batches.policy_config(self.recipe, self.device)

    def _network(self, config: PreTrainedConfig, dataset: LeRobotDataset) -> PreTrainedPolicy:
        return batches.make_network(self.recipe, config, dataset)

    def _cut_windows(self, dataset: LeRobotDataset, config: PreTrainedConfig) -> Windows:
        return Windows(dataset, batches.delta_timestamps(config, dataset.fps))

    def _describe_data(self, dataset: LeRobotDataset, name: str) -> dict[str, Any]:
        return batches.describe_data(dataset, name, self.windows)

    def _load_average(self, path: Path) -> None:
        load_model(self.average.policy, str(path))

    @property
    def whole_policy(self) -> PreTrainedPolicy:
        """The averaged policy, as it is saved and evaluated."""
        return self.average.policy

    def run(
        self,
        *,
        save_every: int,
        on_progress: Callable[[Progress], None],
        eval_every: int = 0,
        on_evaluate: Callable[[], object] | None = None,
    ) -> bool:
        """Train to the end. On Ctrl-C or SIGTERM, finish the step, save, and return False."""
        losses: list[Tensor] = []
        with asked_to_stop() as interrupted, one_thread() if self.device == "cpu" else nullcontext():
            while self.step < self.settings.steps and not interrupted():
                losses.append(self.train_step())
                if self.step % LOG_EVERY == 0 or self.step in (self.settings.steps, self.residual_vq_steps):
                    on_progress(self._progress(losses))
                    losses = []
                if self.step % save_every == 0:
                    self.save()
                if on_evaluate and eval_every and self.step % eval_every == 0:
                    on_evaluate()
        self.save()
        return self.step == self.settings.steps

    def train_step(self) -> Tensor:
        """Take one optimizer step; return its loss, detached."""
        started, core_started = time.perf_counter(), time.process_time()
        batch = self._batch(self.frames[self._batch_rows()])
        self.data_seconds += time.perf_counter() - started
        torch.manual_seed(_mix(self.seed, self.step))
        self.policy.train()
        was_residual_vq = self._trains_residual_vq()
        self._phase = "residual VQ" if was_residual_vq else "policy"
        factor = self._lr_factor()
        for group, lr in zip(self.optimizer.param_groups, self._base_lrs, strict=True):
            group["lr"] = lr * factor
        bf16 = self.settings.autocast == "bfloat16"
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=bf16), without_prints():
            loss, _ = self.policy.forward(batch)
        if not torch.isfinite(loss):
            raise self._diverged(f"the loss is {loss.item()}")
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.settings.grad_clip_norm)
        if not torch.isfinite(norm):
            raise self._diverged(f"the gradient's norm is {norm.item()}")
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

    def save(self) -> Path:
        """Write ``checkpoints/<step>`` and point ``last`` at it; keep the one before, see ``checkpoints``.

        Raises IlBenchError if weights are not finite, or if it cannot be written.
        """
        if self._saved is not None and self._saved[1] == self.step:
            return self._saved[0]
        for policy in (self.policy, self.average.policy):
            for name, weight in policy.state_dict().items():
                if not torch.isfinite(weight).all():
                    raise self._diverged(f"{name} holds NaN or infinity")
        seconds = {name: getattr(self, name) for name in ("seconds", "core_seconds", "data_seconds")}
        at = {"step": self.step, **seconds, "ema_updates": self.average.n_updates}
        progress = SavedProgress.model_validate({**self._made_by(), **at, "extended": self.extended})
        self._saved = checkpoints.write(self.output, progress, self._fill), self.step
        return self._saved[0]

    def _fill(self, folder: Path) -> None:
        self.save_pretrained(folder / PRETRAINED)
        state = folder / STATE
        state.mkdir()
        save_model(self.policy, str(state / RAW_WEIGHTS))
        save_optimizer_state(self.optimizer, state)

    def save_pretrained(self, folder: Path) -> None:
        """Write the averaged policy as a LeRobot ``pretrained_model`` folder, with ``training.json``."""
        for part in (self.whole_policy, self.preprocessor, self.postprocessor):
            part.save_pretrained(folder)
        extended = {"extended": [each.model_dump() for each in self.extended]} if self.extended else {}
        core = {"core_seconds": round(self.core_seconds, 1)}
        facts = {**self._made_by(), "step": self.step, **extended, **core}
        (folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n")

    def restore(self) -> None:
        """Continue from the output folder's last checkpoint, with more steps if this run has more.

        Raises IlBenchError if that run had another recipe, seed or data, or more steps, or if its files are
        damaged.
        """
        last = checkpoints.newest(self.output)
        if last is None:
            raise IlBenchError(f"{self.output}: holds no checkpoint to resume; leave --resume out to start.")
        progress, now = checkpoints.read(self.output, last), self._made_by()
        was = {name: getattr(progress, name) for name in now}
        if changed := differences(self._extend(was, progress), now):
            raise IlBenchError(
                f"{self.output}: was trained with other settings ({'; '.join(changed)}). "
                "Give another --output, or the same settings again."
            )
        try:
            load_model(self.policy, str(last / STATE / RAW_WEIGHTS))
            self._load_average(last / PRETRAINED / "model.safetensors")
            load_optimizer_state(self.optimizer, last / STATE)
        except (OSError, SafetensorError, RuntimeError, ValueError, LookupError, TypeError) as error:
            way_out = checkpoints.instead_of(self.output, last)
            raise IlBenchError(f"{last}: the checkpoint is damaged ({error}); {way_out}") from None
        for name in ("step", "seconds", "core_seconds", "data_seconds"):
            setattr(self, name, getattr(progress, name))
        self.average.n_updates = progress.ema_updates
        self._saved = last, self.step

    def _extend(self, was: dict[str, Any], progress: SavedProgress) -> dict[str, Any]:
        """Take over earlier plans of a run; return what it was trained with, its length replaced by ours.

        Raises IlBenchError if it is longer than this one.
        """
        plan, now = was["recipe"].get("training"), self.settings
        steps = plan.get("steps") if isinstance(plan, dict) else None
        self.extended = list(progress.extended)
        if not isinstance(steps, int) or steps == now.steps:
            return was
        if steps > now.steps:
            raise IlBenchError(
                f"{self.output}: the run has {steps} steps, and a run cannot be shortened to {now.steps}; "
                f"give --steps {steps}, or more to extend it"
            )
        found = Extension(at=progress.step, steps=steps, cosine_steps=plan.get("cosine_steps"))
        self.extended.append(found)
        plan = {**plan, "steps": now.steps, "cosine_steps": now.cosine_steps}
        return {**was, "recipe": {**was["recipe"], "training": plan}}

    def _lr_factor(self) -> float:
        """Share of lr at this step. An extended run goes over to its new schedule in a straight line.

        That takes as long as the warm-up, so that lr, which may have fallen to 0, does not jump.
        """
        plans = [{"steps": each.steps, "cosine_steps": each.cosine_steps} for each in self.extended]
        schedules = [self.settings.model_copy(update=plan) for plan in plans] + [self.settings]
        factor, *later = (each.lr_factor(self.step, self.residual_vq_steps) for each in schedules)
        for each, new in zip(self.extended, later, strict=True):
            share = (self.step - each.at + 1) / max(1, self.settings.warmup_steps)
            factor += min(1.0, share) * (new - factor)
        return factor

    def _diverged(self, what: str) -> IlBenchError:
        last = checkpoints.newest(self.output)
        kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        way_out = f"lower lr in the recipe, or look for outliers in {self.source}"
        return IlBenchError(f"step {self.step}: {what}; {way_out}; {kept}.")

    def _made_by(self) -> dict[str, Any]:
        return {"recipe": self.recipe.model_dump(mode="json"), "data": self.data, "seed": self.seed}

    def _batch(self, frames: Tensor) -> dict[str, Tensor]:
        raw = self.windows.batch(frames)
        processed = self.preprocessor({key: raw[key] for key in BATCH_KEYS})
        return {key: processed[key] for key in BATCH_KEYS}

    def _batch_rows(self) -> Tensor:
        """Rows of ``self.frames`` for the current step. An epoch is a permutation, cut to whole batches."""
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
        """How many steps train VQ-BeT's residual VQ only; 0 for other policies."""
        return int(getattr(self.policy.config, "n_vqvae_training_steps", 0))

    def _trains_residual_vq(self) -> bool:
        return bool(getattr(self.policy, "trains_residual_vq_only", False))

    def _progress(self, losses: list[Tensor]) -> Progress:
        return Progress(
            step=self.step,
            phase=self._phase,
            loss=float(torch.stack(losses).mean()),
            lr=self.optimizer.param_groups[0]["lr"],
            seconds=self.seconds,
            data_share=self.data_seconds / self.seconds,
            steps_per_second=self.step / self.seconds,
        )


def without_prints() -> AbstractContextManager[object]:
    """Keep to itself what LeRobot's policies print."""
    return redirect_stdout(io.StringIO())


def _mix(seed: int, number: int) -> int:
    """A 62-bit seed from two numbers. With their sum, run 1's step 2 would draw what run 2's step 1 does."""
    return ((seed + 1) * 0x9E3779B97F4A7C15 + number * 0xC2B2AE3D27D4EB4F) % (1 << 62)


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Keep Ctrl-C and SIGTERM from ending the process; yield whether one came. For the main thread only."""
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
