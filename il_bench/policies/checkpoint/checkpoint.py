"""One checkpoint: where it was found, and what its files say. Each is read once, on first use."""

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from safetensors import SafetensorError, safe_open
from torch import nn

from il_bench import machine
from il_bench.errors import IlBenchError
from il_bench.files import read_json, reading
from il_bench.policies.checkpoint import old_format, weights
from il_bench.policies.checkpoint.configuration import read_config
from il_bench.policies.checkpoint.processors import MAKE_PROCESSORS, PROCESSORS, load_processors
from il_bench.protocol import PIXELS
from il_bench.zoo import CONFIG, PICKLES, WEIGHTS, ZOO, checkpoint_in, is_pickle, pixels, resolve

TRAINING = "training.json"
#: What is fetched of a repository: from its root alone, since training runs push all checkpoints below it.
FETCHED = (CONFIG, WEIGHTS, "policy_*.json", "policy_*.safetensors", TRAINING)
#: Files beside a policy that nothing loads.
_NOTES = (TRAINING, "train_log.csv", "measured.json", "train_config.json", "README.md", ".gitattributes")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A `pretrained_model` folder, of today's LeRobot or of an older one.

    No code of a checkpoint is run: its weights are safetensors; its configuration and its processors only
    name classes that are installed.
    """

    folder: Path
    label: str  # in reports: zoo/NAME, a Hub id with its commit, or the path as given
    is_shipped: bool = False
    device: str = "cpu"  # where its policy is to run

    @classmethod
    def find(
        cls,
        spec: str | Path,
        device: str = "cpu",
        offered: Sequence[str] | None = None,
        track: str | None = None,
    ) -> "Checkpoint":
        """The checkpoint of a shipped policy, in a folder, or on the Hub, which is asked for it.

        spec: as `load_policy` takes it. offered, track: as `il_bench.zoo.resolve` takes them. Raises
        IlBenchError where there is no checkpoint: nothing, a file, a pickle, or the planner; and where there
        is no device.
        """
        machine.check_device(device, "device")
        source = resolve(str(spec), offered=offered, track=track)
        if source.is_shipped:
            folder = pixels.cached(source) if source.track == PIXELS else ZOO / source.name
            return cls(folder, f"zoo/{source.spec}", True, device)
        if source.path is not None:
            return cls(checkpoint_in(source.path), str(spec), device=device)
        if source.repository is None:
            raise IlBenchError(f"{spec}: the planner has no checkpoint; give a policy that was trained.")
        folder = _download(source.repository, source.revision)
        return cls(folder, f"{source.repository}@{folder.name}", device=device)

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The policy's configuration, of any type, on `device`; IlBenchError names the field at fault."""
        return read_config(self.folder, self.device)

    @cached_property
    def processors(self) -> tuple[Any, Any]:
        """The pre- and the post-processor, on `device`; an old checkpoint's come from its weights.

        IlBenchError names the file or step that is missing, damaged or not to be trusted.
        """
        if any((self.folder / name).exists() for name in PROCESSORS):
            return load_processors(self.folder, self.config, self.device)
        if self._old_weights is None:
            raise IlBenchError(
                f"{self.folder / PROCESSORS[0]}: missing, and {WEIGHTS} holds no normalisation either, as an "
                "older LeRobot kept it there. Make both processors from the data set the policy was trained "
                "on, its id in place of DATASET: "
                f'python -c "{MAKE_PROCESSORS.format(folder=str(self.folder))}"'
            )
        pre, post = make_pre_post_processors(self.config, dataset_stats=self._old_weights.stats)
        return pre, post

    @cached_property
    def _old_weights(self) -> old_format.OldWeights | None:
        """Weights and statistics of a policy that normalises by itself; None for any other."""
        with self._readable_weights() as path:
            return old_format.read_weights(path, self.config)

    @contextmanager
    def _readable_weights(self) -> Iterator[Path]:
        """The file of the weights; IlBenchError if it is missing, a pickle, or damaged."""
        path = self.folder / WEIGHTS
        if not path.is_file():
            if pickles := sorted(each for each in self.folder.iterdir() if each.suffix in PICKLES):
                raise is_pickle(pickles[0])
            raise IlBenchError(
                f"{path}: {'not a file' if path.exists() else 'missing'}; a pretrained_model folder holds "
                "its weights there, and weights in any other form, such as a pickle, are not loaded."
            )
        with weights.readable(path):
            yield path

    def make_policy(self) -> PreTrainedPolicy:
        """The policy without its processors, in evaluation mode.

        Raises IlBenchError if the weights are missing or do not fit, or if the policy cannot be made here.
        """
        old, config, path = self._old_weights, self.config, self.folder / CONFIG
        try:
            policy_class = get_policy_class(config.type)
            with (
                self._readable_weights() as file,
                redirect_stdout(io.StringIO()),
            ):  # LeRobot prints what it does
                stored = weights.table(file)
                weights.check_size(lambda: policy_class(config), stored, str(path))
                with weights.bounded(stored, str(path)):
                    if old is None:
                        policy = policy_class.from_pretrained(self.folder, config=config, strict=True)
                    else:
                        policy = policy_class(config)
                        policy.load_state_dict(old.network)
            weights.check_taken(policy, file)
            return policy.to(self.device).eval()
        except IlBenchError:
            raise
        except (SafetensorError, RuntimeError) as error:
            raise self._unfitting(error) from None
        except Exception as error:  # a missing package, a wrong setting, a plugin's own error
            raise IlBenchError(
                f"{path}: a policy of type {config.type} cannot be built from it: {error}"
            ) from None

    def load_into(self, module: nn.Module, prefix: str) -> None:
        """Load the weights whose names begin with ``prefix`` into a module of the policy; no others are read.

        Raises IlBenchError if the file is missing or damaged, or if weights do not fit or are not finite.
        """
        with self._readable_weights() as path, safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (no dict)
            found = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
        try:
            module.load_state_dict(found)
        except RuntimeError as error:
            raise self._unfitting(error) from None
        weights.check_taken(module, path, prefix)

    def _unfitting(self, error: Exception) -> IlBenchError:
        return IlBenchError(
            f"{self.folder / WEIGHTS}: the weights do not fit {self.config.type} as {CONFIG} describes it: "
            f"{error}"
        )

    @cached_property
    def sha256(self) -> str:
        """One hash of every file that changes what the policy does."""
        digest = hashlib.sha256()
        for path in [self.folder / CONFIG, *self._loaded()]:
            with reading(path, "fetch it again."), path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            digest.update(os.fsencode(path.relative_to(self.folder).as_posix()) + b"\0" + content)
        return digest.hexdigest()

    def _loaded(self) -> list[Path]:
        """The files beside the configuration: of a policy or a step of somebody's own, all it could read."""
        if self._is_known:
            there = [path for path in self.folder.iterdir() if path.name.endswith(".safetensors")]
            there += [self.folder / name for name in PROCESSORS]
        else:
            there = [path for path in self.folder.rglob("*") if path.name not in (CONFIG, *_NOTES)]
        return sorted(path for path in there if path.is_file())

    @property
    def _is_known(self) -> bool:
        """Whether the policy and all its steps are LeRobot's or ours, of which we know what they read."""
        try:
            parts = [self.config, *(step for pipeline in self.processors for step in pipeline.steps)]
        except IlBenchError:
            return False
        return all(type(part).__module__.startswith(("lerobot.", "il_bench.")) for part in parts)

    @cached_property
    def data(self) -> str:
        """The data that the weights were trained on, as `il-bench train` notes them; else "unknown".

        Raises IlBenchError for a record that is damaged.
        """
        path = self.folder / TRAINING
        if not path.exists():
            return "unknown"
        way_out = "fetch it again, or remove it to do without."
        data = read_json(path, way_out).get("data")
        name = data.get("name", "unknown") if isinstance(data, dict) else "unknown"
        if not isinstance(name, str):
            raise IlBenchError(
                f"{path}: data.name = {name!r:.60}; that is not the name of a data set; {way_out}"
            )
        return name


def _download(repository: str, revision: str | None) -> Path:
    """Fetch a repository's root into the Hub's cache: a folder named after its commit."""
    fetch = partial(snapshot_download, repository, revision=revision, allow_patterns=list(FETCHED))
    folder = None
    try:
        folder = Path(fetch())
    except Exception as error:  # the Hub's client raises a dozen kinds: offline, gated, absent, proxy
        if revision is not None:  # without one it has looked into the cache already
            with suppress(Exception):
                folder = Path(fetch(local_files_only=True))
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        if folder is None:
            raise IlBenchError(
                f"{repository}: not a local folder, and it could not be fetched from the Hub ({first_line}). "
                "Check the name, or download it where there is a network and give the folder."
            ) from None
    if not (folder / CONFIG).exists():
        raise IlBenchError(
            f"{repository}@{folder.name}: holds no {CONFIG} at its root; a LeRobot policy does. Download the "
            "checkpoint you mean and give its folder."
        )
    return folder
