"""Tasks on the nodes of a Ray cluster: one that runs, or one of this machine alone, for this process.

A node gets what all tasks need once, in its object store, and each of its processes loads it once. A node
where results would differ, because its processor or its versions are others, is named and gets nothing to do.
What a node or a process had when it died runs again elsewhere.
"""

import logging
import os
import pickle
import socket
import sys
import warnings
from collections import Counter, deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from il_bench.errors import IlBenchError, printable
from il_bench.machine import fingerprint
from il_bench.rollout import executors
from il_bench.rollout.executors import Conditions, Job
from il_bench.rollout.executors.answers import MAX_DEATHS, Answer
from il_bench.rollout.executors.node import Stranger, work

_SECONDS_TO_CONNECT = 5.0
#: After so many without a result, the cluster is looked at: is there a node left that may work?
_SECONDS_BETWEEN_LOOKS = 5.0
#: How Ray starts: its words go to its files, not to the terminal, nor anywhere else. Its processes on this
#: machine are as important as ours; Ray would let others go first.
_VARIABLES = {
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # of what nodes report
}
_NODE = "ray.io/node-id"  # the label that Ray gives every node


class RayExecutor:
    """See `Executor`. A task takes one processor of its node.

    workers: how many tasks run at once at most; None: as many as the cluster has room for. timeout: seconds
    that a task may take; None: for ever. address: of a cluster; None: one of this machine alone, with
    a processor for each worker. conditions: have to be equal on a node and here. on_gpu: tasks
    take a GPU too, an equal share of those that there are.
    """

    def __init__(
        self,
        workers: int | None,
        timeout: float | None = None,
        *,
        address: str | None = None,
        conditions: Conditions = fingerprint,
        on_gpu: bool = False,
    ) -> None:
        self._workers, self._timeout, self._address = workers, timeout, address
        self._conditions, self._on_gpu = conditions, on_gpu

    def run[L, T, R](self, job: Job[L, T, R]) -> Generator[R, None, None]:
        """See `Executor.run`.

        Tells no steps. Also raises IlBenchError if there is no such cluster, or no node of it may work; if
        `load` or `function` cannot be pickled; or if a task took longer than the timeout, or did not come
        back MAX_DEATHS times.
        """
        if not job.tasks:
            return
        ray = _connected(self._address, self._workers)
        names = list(map(job.name, job.tasks))
        deaths = Counter[int]()
        with _Tasks(ray, self._put(ray, job), self._share(ray), self._timeout) as tasks:
            waiting = deque(range(len(names)))
            while waiting or tasks.running:
                while waiting and len(tasks.running) < (self._workers or len(names)):
                    index = waiting.popleft()
                    tasks.start(index, names[index], job.tasks[index])
                for index, answer in tasks.ended():
                    if isinstance(answer, Stranger):
                        waiting.append(index)
                    elif isinstance(answer, Answer):
                        executors.BY_WORKERS.seconds += answer.processor
                        if not answer.succeeded:
                            raise answer.value
                        yield answer.value
                    else:
                        deaths[index] += 1
                        if deaths[index] == MAX_DEATHS:
                            raise IlBenchError(_last_words(names[index], answer)) from answer
                        waiting.append(index)

    def _put(self, ray: Any, job: Job[Any, Any, Any]) -> Any:
        """Put what all tasks need into the object store, from which each node fetches it once."""
        needed = (job.load, job.function, self._conditions, dict(self._conditions()))
        try:
            payload = ray.cloudpickle.dumps(needed)  # which also knows what is in a script
        except Exception as error:  # whatever somebody's class raises
            raise IlBenchError(f"executor ray: {job.load!r} cannot be sent to a node ({error})") from error
        try:
            return ray.put(payload)
        except ray.exceptions.RayError as error:
            megabytes = f"{len(payload) / 1e6:.0f} MB"
            raise IlBenchError(
                f"executor ray: what every task needs, {megabytes}, does not fit into the object store "
                f"({_first_line(error)}); start the cluster with a larger --object-store-memory, or make "
                "room on the disk that it spills to"
            ) from error

    def _share(self, ray: Any) -> float:
        """The part of a GPU that a task takes."""
        if not self._on_gpu:
            return 0.0
        there = ray.cluster_resources()
        at_once = min(self._workers or there.get("CPU", 1.0), there.get("CPU", 1.0))
        return min(1.0, max(0.01, int(100 * there.get("GPU", 0.0) / max(at_once, 1.0)) / 100))


class _Tasks:
    """The tasks that Ray has. Leaving the context ends them at once."""

    def __init__(self, ray: Any, payload: Any, gpus: float, timeout: float | None) -> None:
        self._ray, self._payload, self._gpus, self._timeout = ray, payload, gpus, timeout
        self._remote = ray.remote(work)
        # Ray itself tries nothing again: it would do so for ever where memory is too small.
        self._options: dict[str, Any] = {"num_cpus": 1, "num_gpus": gpus, "max_retries": 0}
        self.running: dict[Any, int] = {}
        self._strangers: dict[str, str] = {}

    def __enter__(self) -> "_Tasks":
        return self

    def __exit__(self, *_: object) -> None:
        for reference in self.running:
            # By force: interrupted in the middle of an import or a policy, a process is good for nothing.
            with suppress(self._ray.exceptions.RayError, ValueError):
                self._ray.cancel(reference, force=True)
        self.running.clear()

    def start(self, index: int, name: str, task: Any) -> None:
        """Hand a task to Ray, which chooses a node."""
        # Pickled, arrays arrive as ones to write to. In a list, the payload is fetched by who needs it.
        sent = self._ray.cloudpickle.dumps(task)
        remote = self._remote.options(**self._options)
        self.running[remote.remote([self._payload], sent, name, self._timeout)] = index

    def ended(self) -> Iterator[tuple[int, Answer | Stranger | Exception]]:
        """Wait for tasks to end; yield the index of each, and what became of it."""
        wait, errors = self._ray.wait, self._ray.exceptions
        ready, others = wait(list(self.running), num_returns=1, timeout=_SECONDS_BETWEEN_LOOKS)
        if not ready:
            self._check_nodes()
        elif others:
            ready += wait(others, num_returns=len(others), timeout=0)[0]
        for reference in ready:
            index = self.running.pop(reference)
            try:
                answer = pickle.loads(self._ray.get(reference))
            except errors.RayTaskError as error:
                answer = error.cause
                if not isinstance(answer, errors.RayError):
                    raise IlBenchError(
                        f"executor ray: a node cannot run il_bench ({_first_line(answer)}); install the same "
                        "il_bench on every node"
                    ) from error
            except errors.RayError as error:
                answer = error
            if isinstance(answer, Stranger):
                self._exclude(answer)
            yield index, answer

    def _exclude(self, found: Stranger) -> None:
        if found.node not in self._strangers:
            where: dict[str, Any] = next(
                (each for each in self._ray.nodes() if each["NodeID"] == found.node), {}
            )
            called = f"{where.get('NodeManagerHostname', found.node)} ({where.get('NodeManagerAddress')})"
            self._strangers[found.node] = f"{called}: {found.differs}"
            self._options["label_selector"] = {_NODE: f"!in({','.join(self._strangers)})"}
            warnings.warn(
                printable(f"executor ray: nothing runs on node {self._strangers[found.node]}"), stacklevel=4
            )
        self._check_nodes()

    def _check_nodes(self) -> None:
        """Raise IlBenchError if no node may run a task, now or later; others may only be busy."""
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        fit = [node for node in alive if node["Resources"].get("CPU", 0) >= 1]
        fit = [node for node in fit if node["Resources"].get("GPU", 0) >= self._gpus]
        if any(node["NodeID"] not in self._strangers for node in fit):
            return
        if not fit:
            wanted = "a processor and a GPU" if self._gpus else "a processor"
            raise IlBenchError(f"executor ray: none of the {len(alive)} nodes of the cluster has {wanted}")
        raise IlBenchError(
            "executor ray: no node of the cluster is the same kind of machine as this one, so episodes "
            "would differ: "
            f"{'; '.join(self._strangers.values())}; start the run on a machine of the nodes' kind"
        )


def _connected(address: str | None, workers: int | None) -> Any:
    """Ray, connected to a cluster; one of this machine alone ends with this process."""
    with _quietly():
        import ray

    if ray.is_initialized():
        return ray
    own: dict[str, Any] = {} if address else {"num_cpus": workers, "include_dashboard": False}
    if address:
        check_listening(address)
    try:
        with _quietly():
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except Exception as error:  # Ray raises all kinds, where a busy machine is too slow for it a bare one
        raise IlBenchError(
            f"executor ray: {address or 'a cluster of this machine'}: {_first_line(error)}; "
            f"{_START if address else 'see the files in /tmp/ray/session_latest/logs'}"
        ) from error
    return ray


@contextmanager
def _quietly() -> Iterator[None]:
    """Let Ray start without words on the terminal; the environment is afterwards as it was."""
    before, stderr = dict(os.environ), os.dup(2)
    os.environ.update({name: value for name, value in _VARIABLES.items() if name not in before})
    try:
        with open(os.devnull, "wb") as nowhere:
            sys.stderr.flush()
            os.dup2(nowhere.fileno(), 2)  # for what is not written in Python
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        for name in {*os.environ} - {*before}:
            del os.environ[name]
        os.environ.update(before)


_SETTINGS = b"\x04"  # kind of HTTP/2's first frame, which both sides send
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + b"\0" * 5
_START = "start a cluster with `ray start --head`, or leave the address out to use this machine alone"


def check_listening(address: str) -> None:
    """Raise IlBenchError unless HOST:PORT answers as gRPC does: Ray would wait for a minute, or for ever."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    if not host or not port.isdecimal() or int(port) > 65535:
        raise IlBenchError(f"executor ray: {address!r} is not an address; write HOST:PORT, or auto")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_CONNECT) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                connection.sendall(_GREETING)
                if connection.recv(9)[3:4] != _SETTINGS:
                    raise OSError("what listens there is not Ray")
    except OSError as error:
        reason = error.strerror or error
        raise IlBenchError(f"executor ray: nothing answers at {address} ({reason}); {_START}") from None


def _last_words(name: str, error: Exception) -> str:
    kind = type(error).__name__
    reasons = {
        "OutOfMemoryError": "a node ran out of memory; let fewer workers run at once, or use larger nodes",
        "WorkerCrashedError": "its process died: too little memory for so many, or a crash in a library",
        "NodeDiedError": "its node died; look at the cluster",
        "ObjectStoreFullError": "the object store of a node is full; give it a larger --object-store-memory",
        "OutOfDiskError": "the object store of a node and the disk that it spills to are full; make room",
    }
    why = reasons.get(kind, f"{kind}: {_first_line(error)}")
    return f"{name}: did not come back from the cluster {MAX_DEATHS} times; at last {why}"


def _first_line(error: object) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0].rstrip(".")
