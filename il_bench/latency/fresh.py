"""The first call of a process that has just begun, which a measurement among others never sees."""

import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

from il_bench.errors import IlBenchError
from il_bench.latency import calls
from il_bench.latency.device import Device, device_for, inference_on_one_thread
from il_bench.latency.memory import resident_peak_mb
from il_bench.policies.checkpoint import load_policy


@dataclass(frozen=True)
class FreshProcess:
    """What a process pays once. torch and LeRobot are imported already; nothing has been computed.

    Attributes:
        load_s: reading the checkpoint, building the policy, moving it to the device, which it wakes.
        first_call_s: the first select_action of one robot, a new chunk with processing.
        second_call_s: the same again.
        resident_mb: peak memory of the process on the host, libraries and weights included.
        device_mb: peak memory of the device, weights included; None where it keeps no count.
    """

    load_s: float
    first_call_s: float
    second_call_s: float
    resident_mb: float
    device_mb: float | None


def fresh_process(spec: str, device: str) -> FreshProcess:
    """Load a policy in a process of its own and call it twice.

    The process is forked from one that has imported this module and computed nothing: importing, some seconds
    that depend on the disk, is not in the figures.

    Raises:
        IlBenchError: the policy cannot be loaded, or the process dies.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(theirs, spec, device), daemon=True)
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        process.join()
        raise IlBenchError(
            f"{spec}: the process that was to call it ended with status {process.exitcode}"
        ) from None
    process.join()
    if isinstance(found, FreshProcess):
        return found
    raise IlBenchError(found)


def _measure(answer: Connection, spec: str, device: str) -> None:
    try:
        answer.send(_first_calls(spec, device_for(device)))
    except IlBenchError as error:
        answer.send(str(error))


def _first_calls(spec: str, device: Device) -> FreshProcess:
    with inference_on_one_thread():
        start = time.perf_counter()
        policy = load_policy(spec, device=device.name)
        device.synchronize()
        times = [time.perf_counter() - start]
        raw = calls.observations(1, policy.camera)
        device.reset_peak_memory()
        for _ in range(2):
            policy.reset()
            start = time.perf_counter()
            policy.select_action(raw)
            device.synchronize()
            times.append(time.perf_counter() - start)
    load, first, second = times
    return FreshProcess(load, first, second, resident_peak_mb(), device.peak_memory_mb())
