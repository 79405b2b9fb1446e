"""The data set of a run of ``lerobot-train``: there, and with what the policy has to see."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.utils.constants import ACTION, OBS_ENV_STATE, OBS_STATE

from il_bench.data import open_dataset
from il_bench.errors import IlBenchError

BUILD = "il-bench demos build --track pixels"


def flags_of(source: str) -> dict[str, str]:
    """Flags that say to ``lerobot-train`` where the images of ``source`` are, checked.

    Args:
        source: a folder with a LeRobotDataset, or a Hub id.

    Raises:
        IlBenchError: no such data, damaged data, or no images of PushT in them.
    """
    dataset = open_dataset(source)
    check_images(source, dataset.meta.features)
    if not (Path(source).expanduser() / "meta" / "info.json").exists():
        return {"dataset.repo_id": source}
    root = Path(source).expanduser()
    return {"dataset.repo_id": f"local/{root.resolve().name}", "dataset.root": str(root)}


def check(flags: Mapping[str, str]) -> None:
    """Check that the data of a command line are there, before anything is trained.

    Raises:
        IlBenchError: one line that names the data set and the way out.
    """
    repo_id, root = flags["dataset.repo_id"], flags.get("dataset.root")
    if root is not None and not (Path(root) / "meta" / "info.json").exists():
        raise IlBenchError(f"--dataset.root={root}: no LeRobotDataset (it would hold meta/info.json).")
    try:
        meta = LeRobotDatasetMetadata(repo_id, root=root)
    except Exception as error:  # offline, no such repository, old format: many types, one answer
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise IlBenchError(
            f"--dataset.repo_id={repo_id}: not on this machine, and the Hugging Face Hub did not give it "
            f"({first}). Without a network, build it with `{BUILD}` and give --data DIR before the line."
        ) from None
    if flags.get("policy.type") == "vqbet":
        check_images(root or repo_id, meta.features)


def check_images(where: str, features: Mapping[str, Any]) -> None:
    """Raise IlBenchError unless ``features`` are the agent's place, one image and an action."""
    images = [key for key, feature in features.items() if feature["dtype"] in ("image", "video")]
    if not images:
        raise IlBenchError(
            f"{where}: holds no images (its features: {', '.join(sorted(features))}); make data with them: "
            f"{BUILD} --from {where} --output DIR."
        )
    seen = {key for key in features if key.startswith("observation.")} - set(images)
    if len(images) > 1 or seen != {OBS_STATE}:
        extra = sorted([*images[1:], *(seen - {OBS_STATE})]) or [f"no {OBS_STATE}"]
        raise IlBenchError(
            f"{where}: a policy on PushT's images takes one image and {OBS_STATE!r}; the data have "
            f"{', '.join(extra)} besides"
            + (f" ({OBS_ENV_STATE} is for --track keypoints)." if OBS_ENV_STATE in extra else ".")
        )
    if ACTION not in features:
        raise IlBenchError(f"{where}: no feature {ACTION!r} to learn.")
