"""The process that times: reads requests, one JSON object a line, and answers each with one.

Started as ``python -P -m il_bench.latency.worker`` by `workers`, perhaps by another environment's python:
what it imports is what is installed there. Requests and answers are these; `key` is any name.

    (at the start)                          {"protocol": 1, "il_bench": "0.1.0"}
    {"load": SUBJECT, "key": ..}            {"loaded": key, "facts": {"machine": {..}, "versions": {..}, ..}}
    {"block": key, "clock": .., "seconds": .., "stretch": ..} {"seconds": [..]}
    anything that bad input makes go wrong  {"error": "one sentence"}

It ends when its input ends, so that it never outlives the process that started it.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

import il_bench
from il_bench.errors import IlBenchError

PROTOCOL = 1
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}

Message = dict[str, Any]


class Loaded(Protocol):
    """What a worker has loaded: a call, and what the machine looks like to it."""

    facts: Message
    steps: int  # control steps that one call serves

    def prepare(self) -> object:
        """Untimed, before each call."""

    def call(self) -> object:
        """Do it, and wait until the device is done."""


def serve(requests: TextIO, answers: TextIO, load: Callable[[Message], Loaded]) -> None:
    """Answer until the requests end."""
    subjects: dict[str, Loaded] = {}

    def answer(request: Message) -> Message:
        if "load" in request:
            subjects[request["key"]] = loaded = load(request["load"])
            return {"loaded": request["key"], "facts": loaded.facts}
        return {"seconds": block(subjects[request["block"]], request)}

    _say(answers, {"protocol": PROTOCOL, "il_bench": il_bench.__version__})
    for line in requests:
        try:
            _say(answers, answer(json.loads(line)))
        except IlBenchError as error:
            _say(answers, {"error": str(error)})


def _say(answers: TextIO, message: Message) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def block(
    subject: Loaded, request: Mapping[str, Any], clocks: Mapping[str, Callable[[], float]] = CLOCKS
) -> list[float]:
    """Seconds of a call, again and again until they add up to those of the request; at least one.

    A call before them does not count: other processes ran in between and took the caches. Where one call
    fills the block, caches are no matter, and there is none. With `stretch` 1.1, each call is held until it
    has taken 1.1 times its time: a slowdown of a known size, for trials.
    """
    clock, enough, stretch = clocks[request["clock"]], request["seconds"], request.get("stretch", 1.0)
    first = once(subject, clock, stretch)
    times: list[float] = [first] if first >= enough else []
    while sum(times) < enough:
        times.append(once(subject, clock, stretch))
    return [each / subject.steps for each in times]


def once(subject: Loaded, clock: Callable[[], float], stretch: float = 1.0) -> float:
    """Seconds of a call, held until it has taken `stretch` times its time."""
    subject.prepare()
    start = clock()
    subject.call()
    taken = clock() - start
    if stretch > 1.0:
        until = start + stretch * taken
        while (taken := clock() - start) < until - start:
            pass
    return taken


class Yardstick:
    """Work that no change of il_bench, LeRobot or torch makes faster or slower: Python and numpy products.

    What it costs tells two runs' machines apart: one core's speed of the moment, and how busy its caches are.
    """

    steps = 1

    def __init__(self) -> None:
        import numpy as np

        rng = np.random.default_rng(0)
        self._weights = rng.standard_normal((8, 160, 160)).astype(np.float32) / 16
        self._given = rng.standard_normal((160, 16)).astype(np.float32)
        self.facts: Message = {}

    def prepare(self) -> None:
        """Nothing."""

    def call(self) -> object:
        """About half a millisecond."""
        found, counted = self._given, 0
        for weight in self._weights:
            found = weight @ found
            for place in range(400):
                counted += place & 3
        return found, counted


class PolicySubject:
    """A policy's call, as `workers.Subject` describes it."""

    def __init__(self, subject: Message) -> None:
        import torch

        from il_bench import machine
        from il_bench.latency.calls import policy_call
        from il_bench.latency.device import device_for
        from il_bench.latency.variants import sampler_of, with_sampler
        from il_bench.policies.checkpoint import load_policy

        torch.set_num_threads(subject["threads"])
        policy = load_policy(subject["policy"], device=subject["device"])
        if subject["sampler"] is not None:
            policy = with_sampler(policy, subject["sampler"])
        device = device_for(subject["device"])
        timed = policy_call(
            policy,
            subject["what"],
            subject["batch"],
            processed=subject["processed"],
            mode=subject["mode"],
            device=device,
        )
        self._prepare, self._call, self._device = timed.prepare, timed.call, device
        self.steps = timed.steps
        self.prepare()
        self.call()  # what a library or a compiler does once
        facts = {"machine": machine.hardware() | device.identity(), "versions": machine.versions()}
        self.facts = {"policy": policy.name, "sha256": policy.sha256, "sampler": sampler_of(policy), **facts}

    def prepare(self) -> None:
        """Bring the policy into the state that the call starts from, and let the device come to rest."""
        self._prepare()
        self._device.synchronize()

    def call(self) -> None:
        """Call the policy and wait for the device."""
        self._call()
        self._device.synchronize()


def load(subject: Message) -> Loaded:
    """What a request to load means: a policy's call, or the yardstick.

    Raises:
        IlBenchError: there is no such policy, call, mode or sampler.
    """
    return Yardstick() if subject.get("policy") is None else PolicySubject(subject)


def main() -> None:
    """Serve on standard input and output; what libraries print goes to standard error."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # before anything imports pygame
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, answers, load)


if __name__ == "__main__":
    main()
