"""Ray, on a real cluster of this machine: nodes die, run out of memory, or are of another kind.

Both nodes are processes of this machine. What a node finds out about itself comes from its environment here,
so that one node can seem to have another processor. Run with `make test-ray`.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest

from il_bench.errors import IlBenchError
from il_bench.rollout import Outcomes, rollout
from il_bench.rollout.executors import Job
from il_bench.rollout.executors.cluster import RayExecutor, _quietly, check_listening
from il_bench.rollout.journal import Conditions, opened
from tests.rollout.conftest import FIRST, SEEDS
from tests.rollout.policies import Wander
from tests.rollout.test_executors import TASKS, add, dies, fails, fails_oddly, load, slow, stuck
from tests.rollout.test_interruptions import FailsFrom, hundred

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore::ResourceWarning")]
PROCESSOR = "IL_BENCH_TEST_PROCESSOR"


def conditions() -> dict[str, str]:
    return {"cpu": os.environ.get(PROCESSOR, "mine")}


def on_ray(**options: Any) -> RayExecutor:
    return RayExecutor(options.pop("workers", None), options.pop("timeout", 300.0), **options)


def patiently[R](start: Callable[[], R]) -> R:
    """Start a node: Ray gives it 30 s, which on a busy machine are not always enough."""
    for _ in range(3):
        try:
            return start()
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    return start()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two nodes, one processor each, that this process joins."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    with _quietly():
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False}
        made = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        patiently(lambda: made.add_node(num_cpus=1))
    list(on_ray(address=made.address).run(Job(load, add, TASKS)))
    yield made
    import ray

    ray.shutdown()
    made.shutdown()


@pytest.fixture
def node(cluster: Any) -> Iterator[Any]:
    """Adds a node for a test. What it gives is what `Cluster.add_node` takes."""
    added = []

    def add_node(**options: Any) -> Any:
        with _quietly():
            added.append(patiently(lambda: cluster.add_node(**{"num_cpus": 1, **options})))
        return added[-1]

    yield add_node
    for each in added:
        if each in cluster.worker_nodes:
            cluster.remove_node(each, allow_graceful=False)


def where(_: int, task: int) -> tuple[int, str, int]:
    import ray

    time.sleep(0.2)
    return task, ray.get_runtime_context().get_node_id(), os.getpid()


def test_both_nodes_work_and_a_process_loads_once(cluster: Any, tmp_path: Path) -> None:
    found = list(on_ray(conditions=conditions).run(Job(partial(noted_load, tmp_path), where, TASKS)))
    assert sorted(task for task, *_ in found) == TASKS
    assert len({node for _, node, _ in found}) == 2
    assert len(list(tmp_path.iterdir())) == len({pid for *_, pid in found})


def noted_load(folder: Path) -> int:
    (folder / f"{os.getpid()}-{time.monotonic()}").touch()
    return 100


def test_episodes_are_those_of_this_process_to_the_bit(cluster: Any, wandered: Outcomes) -> None:
    shuffled = np.random.default_rng(0).permutation(wandered.seeds)
    seen: list[tuple[int, int]] = []
    found = rollout(Wander, shuffled, executor=on_ray(), on_block=lambda *done: seen.append(done))
    assert found.to_records() == wandered.to_records()
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert found.max_reward.flags.writeable, "not a view of the object store"


def test_a_rollout_stops_at_the_same_block_and_the_others_end(cluster: Any, wandered: Outcomes) -> None:
    found = rollout(partial(FailsFrom, FIRST + 100), SEEDS, executor=on_ray(), stop=hundred)
    assert found.to_records() == wandered.to_records()[:100]
    results = on_ray().run(Job(load, slow, TASKS))
    assert next(results) == 0
    start = time.monotonic()
    results.close()
    assert sorted(on_ray().run(Job(load, add, [7, 8]))) == [107, 108], "both processors are free again"
    assert time.monotonic() - start < 60


def kill_the_node(cluster: Any, victim: Any, done: int, total: int) -> None:
    if done == 1:
        cluster.remove_node(victim, allow_graceful=False)


def test_a_node_that_dies_in_the_middle_changes_no_episode(
    cluster: Any, node: Any, wandered: Outcomes, tmp_path: Path
) -> None:
    on_block = partial(kill_the_node, cluster, node())
    with opened(tmp_path / "it.jsonl", Conditions("it", "keypoints", "", FIRST, {}), resume=False) as kept:
        found = rollout(
            Wander, [*wandered.seeds, *SEEDS[150:]], executor=on_ray(), on_block=on_block, journal=kept
        )
        recalled = kept.recall(wandered.seeds[:50])
    assert found.to_records()[:150] == wandered.to_records()
    assert recalled is not None and recalled.to_records() == wandered.to_records()[:50]


def test_a_node_of_another_kind_is_named_and_gets_nothing(cluster: Any, node: Any) -> None:
    import ray

    node(num_cpus=2, env_vars={PROCESSOR: "another"})
    with pytest.warns(UserWarning, match=r"nothing runs on node .*: cpu was 'mine', is 'another'"):
        found = list(on_ray(conditions=conditions).run(Job(load, where, range(12))))
    assert sorted(task for task, *_ in found) == list(range(12))
    strange = {each["NodeID"] for each in ray.nodes() if each["Resources"].get("CPU") == 2}
    assert strange and not strange & {node for _, node, _ in found}


def everywhere_else() -> dict[str, int]:
    return {"cpu": os.getppid()}


def test_without_a_node_of_this_kind_one_sentence_names_them_all(cluster: Any) -> None:
    with pytest.warns(UserWarning), pytest.raises(IlBenchError, match=r"no node .* kind.*: cpu was \d+, is"):
        list(on_ray(conditions=everywhere_else).run(Job(load, add, TASKS)))


def dies_once(folder: Path, _: int, task: int) -> int:
    if task == 1 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def test_a_task_whose_process_is_killed_runs_again_at_most_three_times(cluster: Any, tmp_path: Path) -> None:
    """As the kernel kills it that runs out of memory."""
    assert sorted(on_ray().run(Job(load, partial(dies_once, tmp_path), TASKS))) == TASKS
    done: list[int] = []
    with pytest.raises(IlBenchError, match=r"^1: did not come back .* 3 times; at last its process died"):
        done.extend(on_ray().run(Job(load, partial(dies, "kill"), TASKS)))
    assert 0 in done


@pytest.mark.parametrize(
    ("load", "run", "kind", "said"),
    [
        (partial(fails, IlBenchError("runs/mine: no weights")), add, IlBenchError, "^runs/mine: no weights$"),
        (load, partial(fails, ZeroDivisionError("by zero")), ZeroDivisionError, "^by zero"),
        (load, fails_oddly, IlBenchError, "^OddError: this and that$"),
        (load, partial(add, Lock()), IlBenchError, "cannot be sent to a node"),
    ],
)
def test_what_a_node_raises_is_raised_here(
    cluster: Any, load: Any, run: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        list(on_ray().run(Job(load, run, TASKS)))


def test_a_task_that_hangs_is_named_with_its_last_step(cluster: Any) -> None:
    with pytest.raises(IlBenchError, match=r"^1: not done after 30 s; .* step [34] of 300 .*il-timeout"):
        list(on_ray(timeout=30.0).run(Job(load, stuck, [1])))
    assert sorted(on_ray().run(Job(load, add, TASKS))) == [100 + task for task in TASKS]


def test_gpus_are_shared_among_the_tasks_that_run_at_once(cluster: Any, node: Any) -> None:
    """Ray takes our word for what a node has: no GPU is needed to see how it is dealt out."""
    with pytest.raises(IlBenchError, match=r"none of the \d nodes of the cluster has a processor and"):
        list(on_ray(on_gpu=True).run(Job(load, share, [0])))
    node(num_cpus=4, num_gpus=2)
    found = list(on_ray(on_gpu=True, workers=4).run(Job(load, share, range(4))))
    assert [amount for amount, _ in found] == [0.5] * 4
    assert {visible for _, visible in found} == {"0", "1"}


def share(*_: Any) -> tuple[float, str]:
    import ray

    time.sleep(1.0)
    context = ray.get_runtime_context()
    return context.get_assigned_resources()["GPU"], os.environ["CUDA_VISIBLE_DEVICES"]


# ---- clusters of their own: each for a process of its own, which can join only one

ROOT = Path(__file__).parents[2]


def printed(code: str) -> str:
    """What a script prints: it says nothing else, and leaves nothing running."""
    begin = "from tests.rollout.test_cluster import *\n"
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", begin + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


def short_of(settings: dict[str, Any], jobs: list[Job[Any, Any, Any]], **options: Any) -> None:
    """Print what jobs come to on a cluster of one node that is short of something."""
    with _quietly():
        import ray
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": settings, **options}
        made = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
    for job in jobs:
        try:
            print(list(on_ray(address=made.address).run(job)))
        except IlBenchError as error:
            print(error)
    ray.shutdown()
    made.shutdown()


def used_memory() -> float:
    """The share of this machine's memory that is in use."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return 1.0 - kilobytes["MemAvailable"] / kilobytes["MemTotal"]


def grows(_: int, task: int) -> int:
    held = [bytearray(b"x") * 10_000_000 for _ in range(600)]
    return len(held) + task


def large(n: int, *_: object) -> bytes:
    return bytes(n)


MEMORY = "{'memory_usage_threshold': used_memory() + 0.05, 'memory_monitor_refresh_ms': 100}"
DISK = "{'local_fs_capacity_threshold': 0.01}, object_store_memory=80_000_000"


@pytest.mark.parametrize(
    ("short", "jobs", "said"),
    [
        (
            MEMORY,
            "[Job(load, grows, [0])]",
            [r"^0: did not come back .* at last a node ran out of memory; let"],
        ),
        (
            DISK,
            "[Job(partial(len, bytes(2 * 10**8)), add, [0]), Job(load, partial(large, 15 * 10**7), [0])]",
            [
                "every task needs, 200 MB, does not fit into",
                "^0: did not come .* the object store of a node and",
            ],
        ),
    ],
    ids=["memory", "object store"],
)
def test_what_a_cluster_is_short_of_is_one_sentence(short: str, jobs: str, said: list[str]) -> None:
    found = printed(f"short_of({short}, jobs={jobs})").splitlines()
    assert len(found) == len(said)
    for line, expected in zip(found, said, strict=True):
        assert re.search(expected, line), line


def test_a_cluster_of_this_machine_alone_is_quiet_and_ends_with_the_process(tmp_path: Path) -> None:
    found = printed(
        f"job = Job(load, partial(dies_once, Path({str(tmp_path)!r})), [0, 1, 2])\n"
        "print(sorted(on_ray(workers=2).run(job)))\n"
        "print(*(node['NodeID'] for node in __import__('ray').nodes()))"
    )
    numbers, node = found.splitlines()
    assert numbers == "[0, 1, 2]"
    running = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True).stdout.splitlines()
    assert not [line for line in running if node in line and not line.startswith("Z")]
    assert not list(ROOT.glob("ray*")) and not list(ROOT.glob("session_*"))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "127.0.0.1:1",
            "nothing answers at 127.0.0.1:1 .*; start a cluster with `ray start --head`",
        ),
        ("{not Ray}", "nothing answers at .* .(what listens there is not Ray|timed out)"),
        ("nowhere", "'nowhere' is not an address; write HOST:PORT, or auto"),
    ],
)
def test_a_cluster_that_is_not_there_is_told_soon(address: str, said: str) -> None:
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as other:
        given = address.replace("{not Ray}", f"127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(IlBenchError, match=said):
            check_listening(given)
    assert time.monotonic() - start < 20
