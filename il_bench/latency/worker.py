"""The process that times: it reads requests, one JSON object a line, and answers each with another.

`processes` starts it as ``python -P -m il_bench.latency.worker``, perhaps with another environment's Python;
it imports what is installed there. These are the requests and answers; `key` is any name.

    (at the start)                          {"protocol": 1, "il_bench": "0.1.0"}
    {"load": POLICY, "key": ..}             {"loaded": key, "facts": {"machine": {..}, "versions": {..}, ..}}
    {"block": key, "clock": .., "seconds": .., "stretch": ..} {"seconds": [..]}
    {"first_calls": spec, "device": ..}     {"load_s": .., "first_call_s": .., ..}
    (any request with bad input)            {"error": "one sentence"}

POLICY is a `contenders.Contender.request`. The process ends when its input ends, so that it never outlives
the process that started it.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TextIO

import il_bench
from il_bench import lerobot_imports
from il_bench.errors import IlBenchError

PROTOCOL = 1
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}

Message = dict[str, Any]


@dataclass(frozen=True)
class LoadedCall:
    """A call that a worker has loaded, and its untimed preparation.

    call: returns when the device is done. steps: control steps that one call serves. facts: about the policy
    and the machine.
    """

    prepare: Callable[[], object]
    call: Callable[[], object]
    steps: int = 1
    facts: Message = field(default_factory=dict)


def serve(requests: TextIO, answers: TextIO, load: Callable[[Message], LoadedCall]) -> None:
    """Answer until the requests end."""
    loaded: dict[str, LoadedCall] = {}

    def answer(request: Message) -> Message:
        if "load" in request:
            key = request["key"]
            loaded[key] = load(request["load"])
            return {"loaded": key, "facts": loaded[key].facts}
        if "first_calls" in request:
            return first_calls_in_a_fork(request["first_calls"], request["device"])
        return {"seconds": block(loaded[request["block"]], request)}

    def say(message: Message) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    say({"protocol": PROTOCOL, "il_bench": il_bench.__version__})
    for line in requests:
        try:
            say(answer(json.loads(line)))
        except IlBenchError as error:
            say({"error": str(error)})


def block(
    loaded: LoadedCall, request: Mapping[str, Any], clocks: Mapping[str, Callable[[], float]] = CLOCKS
) -> list[float]:
    """Call until the seconds add up to those of the request; return the seconds of each call, at least one.

    A first call does not count, since other processes have used the caches meanwhile. It does count if it
    fills the block alone, for then caches do not matter. `stretch`: see `once`.
    """
    clock, enough, stretch = clocks[request["clock"]], request["seconds"], request.get("stretch", 1.0)
    first = once(loaded, clock, stretch)
    times: list[float] = [first] if first >= enough else []
    while sum(times) < enough:
        times.append(once(loaded, clock, stretch))
    return [each / loaded.steps for each in times]


def once(loaded: LoadedCall, clock: Callable[[], float], stretch: float = 1.0) -> float:
    """Call once; return its seconds. `stretch` 1.1 makes it a tenth longer: a slowdown of known size."""
    loaded.prepare()
    start = clock()
    loaded.call()
    taken = clock() - start
    if stretch > 1.0:
        until = start + stretch * taken
        while (taken := clock() - start) < until - start:
            pass
    return taken


def load(request: Message) -> LoadedCall:
    """The call that a `contenders.Contender.request` describes; without a policy, the yardstick."""
    if request.get("policy") is None:
        return yardstick()
    import torch

    from il_bench import machine
    from il_bench.latency.calls import policy_call
    from il_bench.latency.device import device_for
    from il_bench.latency.inference import sampler_of, with_sampler
    from il_bench.policies.checkpoint import load_policy

    torch.set_num_threads(request["threads"])
    policy = load_policy(request["policy"], device=request["device"])
    if request["sampler"] is not None:
        policy = with_sampler(policy, request["sampler"])
    device = device_for(request["device"])
    options: Message = {name: request[name] for name in ("what", "batch", "processed", "mode")}
    made = policy_call(policy, **options, device=device)
    prepare, call = device.waited_for(made.prepare), device.waited_for(made.call)
    prepare()
    call()  # libraries and compilers do some work once
    facts: Message = {"machine": machine.hardware() | device.identity(), "versions": machine.versions()}
    facts |= {"policy": policy.name, "sha256": policy.sha256, "sampler": sampler_of(policy)}
    return LoadedCall(prepare, call, made.steps, facts)


def yardstick() -> LoadedCall:
    """Half a millisecond of work that no change of il_bench, LeRobot or torch makes faster or slower.

    Its time tells the machines of two runs apart: the core's speed at the moment, how busy its caches are.
    """
    import numpy as np

    rng = np.random.default_rng(0)
    weights = rng.standard_normal((8, 160, 160)).astype(np.float32) / 16
    given = rng.standard_normal((160, 16)).astype(np.float32)

    def call() -> object:
        found, counted = given, 0
        for weight in weights:
            found = weight @ found
            for place in range(400):
                counted += place & 3
        return found, counted

    return LoadedCall(lambda: None, call)


def first_calls_in_a_fork(spec: str, device: str) -> Message:
    """Run `first_calls` in a process that has imported everything but computed nothing.

    So importing does not count: it takes seconds that depend on the disk. Raises IlBenchError if the policy
    cannot be loaded or the process dies.
    """
    import il_bench.latency.calls  # noqa: F401  (and with it torch and LeRobot)

    context: Any = get_context("fork" if hasattr(os, "fork") else "spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send_first_calls, args=(theirs, spec, device), daemon=True)
    process.start()
    theirs.close()
    found: Message | IlBenchError | None = None
    with suppress(EOFError):
        found = ours.recv()
    process.join()
    if found is None:
        raise IlBenchError(f"{spec}: the process that called it ended with {process.exitcode}")
    if isinstance(found, IlBenchError):
        raise found
    return found


def _send_first_calls(answer: Connection, spec: str, device: str) -> None:
    try:
        answer.send(first_calls(spec, device))
    except IlBenchError as error:
        answer.send(error)


def first_calls(spec: str, device: str) -> Message:
    """Load a policy in this new process, and make its first two calls.

    Returns:
        load_s: reading the checkpoint, building the policy, moving it to the device, which wakes up.
        first_call_s, second_call_s: select_action of one robot, each a new chunk with processing.
        resident_mb: peak memory of the process on the host, libraries and weights included.
        device_mb: peak memory of the device, weights included; None if unknown.
    """
    from il_bench.latency.calls import observations
    from il_bench.latency.device import device_for, inference_on_one_thread, process_memory_mb
    from il_bench.policies.checkpoint import load_policy

    where = device_for(device)
    with inference_on_one_thread():
        start = time.perf_counter()
        policy = load_policy(spec, device=device)
        where.synchronize()
        times = [time.perf_counter() - start]
        seen = observations(1, policy.camera)
        where.reset_peak_memory()
        for _ in range(2):
            policy.reset()
            start = time.perf_counter()
            policy.select_action(seen)
            where.synchronize()
            times.append(time.perf_counter() - start)
    seconds = dict(zip(("load_s", "first_call_s", "second_call_s"), times, strict=True))
    return {**seconds, "resident_mb": process_memory_mb(), "device_mb": where.peak_memory_mb()}


def main() -> None:
    """Serve on standard input and output; what libraries print goes to standard error."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # before anything imports pygame
    lerobot_imports.defer()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, answers, load)


if __name__ == "__main__":
    main()
