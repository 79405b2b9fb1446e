"""Join demonstrations into one LeRobotDataset that keeps where each episode came from."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.datasets.aggregate import aggregate_datasets
from lerobot.datasets.io_utils import write_stats
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from il_bench.data import open_dataset, statistics
from il_bench.data.convert import compact
from il_bench.data.lerobot_folder import open_folder
from il_bench.demos import provenance
from il_bench.demos.output import new_dataset
from il_bench.demos.provenance import Provenance
from il_bench.errors import IlBenchError
from il_bench.files import given_path
from il_bench.machine import differences


def merge_demos(
    sources: Sequence[str | Path],
    output: str | Path,
    names: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> LeRobotDataset:
    """Join datasets, one after the other, into the new folder `output`, by LeRobot's own merging.

    sources: at least two, each as `open_dataset` takes it. names: what the provenance calls each source;
    default is the last part of its path. say: takes a sentence about statistics that had to be computed.
    Raises IlBenchError if a source cannot be opened, is given twice, has other features than the first, or
    statistics that are not of its data; or if `output` exists or cannot be written.
    """
    output = given_path(output).resolve()
    if len(sources) < 2:
        raise IlBenchError(f"merging takes at least two sources, got {[str(source) for source in sources]}")
    names = names or [Path(source).name for source in sources]
    datasets = [open_dataset(source) for source in sources]
    _check(datasets, names)
    found = [
        provenance.read(dataset.root, dataset.meta.total_episodes).named(name)
        for dataset, name in zip(datasets, names, strict=True)
    ]
    joined = Provenance(
        parts=[part for each in found for part in each.parts],
        episodes=[episode for each in found for episode in each.episodes],
    )
    with new_dataset(output) as whole:
        roots = [
            _with_statistics(dataset, name, whole.with_name(f"{number}.part"), say)
            for number, (dataset, name) in enumerate(zip(datasets, names, strict=True))
        ]
        ids = [dataset.repo_id for dataset in datasets]
        aggregate_datasets(ids, f"local/{output.name}", roots, whole)
        _renumber_statistics(whole)
        compact(whole)
        provenance.write(whole, joined)
    return open_folder(output)


def _with_statistics(dataset: LeRobotDataset, name: str, copy: Path, say: Callable[[str], None]) -> Path:
    """A folder of the dataset whose statistics LeRobot can join: its own, or one of links to its files."""
    root, places = Path(dataset.root), statistics.place_features(dataset)
    others = [key for key in statistics.numeric_features(dataset) if key not in places]
    missing = statistics.prepare(name, dataset, others)
    wrong = [key for key in places if statistics.problem(dataset, key, exact=True)]
    if not missing and not wrong:
        return root
    if missing:
        say(f"{name}: {statistics.told(missing)}")
    (copy / "meta").mkdir(parents=True)
    inside = [*root.glob("[!.]*"), *(root / "meta").glob("*")]
    for path in (each for each in inside if each.name not in ("meta", statistics.FILE.name)):
        (copy / path.relative_to(root)).symlink_to(path.resolve(), target_is_directory=path.is_dir())
    write_stats({**dataset.meta.stats, **statistics.compute(dataset, wrong)}, copy)
    return copy


def _renumber_statistics(root: Path) -> None:
    """Make statistics of where a frame is anew: LeRobot joins those of the parts, which number from 0."""
    dataset = open_folder(root)
    places = statistics.place_features(dataset)
    write_stats({**dataset.meta.stats, **statistics.compute(dataset, places)}, root)
    episodes, start = statistics.of_episodes(dataset, places), 0
    for path in sorted(root.glob("meta/episodes/*/*.parquet")):
        table = pq.read_table(path)
        here = episodes[start : (start := start + len(table))]
        for at, field in enumerate(table.schema):
            kind, _, place = field.name.partition("/")
            key, _, name = place.rpartition("/")
            if kind == "stats" and key in places and name in here[0][key]:
                values = [stats[key][name].tolist() for stats in here]
                table = table.set_column(at, field, pa.array(values, field.type))
        pq.write_table(table, path)


def _check(datasets: Sequence[LeRobotDataset], names: Sequence[str]) -> None:
    roots = [dataset.root.resolve() for dataset in datasets]
    for index, (name, root, dataset) in enumerate(zip(names, roots, datasets, strict=True)):
        if root in roots[:index]:
            raise IlBenchError(f"{name}: given twice ({root}); name each source once")
        if differing := differences(_kind(datasets[0]), _kind(dataset)):
            raise IlBenchError(
                f"{name}: differs from {names[0]} ({differing[0]}); only data of one kind can be merged"
            )


def _kind(dataset: LeRobotDataset) -> dict[str, Any]:
    """What has to be equal in datasets that LeRobot merges."""
    features = {
        key: {aspect: feature.get(aspect) for aspect in ("dtype", "shape", "names")}
        for key, feature in dataset.features.items()
    }
    kind = {"robot_type": dataset.meta.robot_type, "features": features}
    return dict(json.loads(json.dumps(kind)))  # lists and tuples are equal to LeRobot
