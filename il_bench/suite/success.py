"""The work of test_success.py, in a module of its own so that collecting the test imports no torch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from il_bench import __version__, machine
from il_bench.errors import IlBenchError
from il_bench.gate.baselines import Target
from il_bench.gate.verdict import PolicyGates, Verdict
from il_bench.plugin import collect
from il_bench.plugin.choices import PolicyChoice
from il_bench.plugin.evaluation import Evaluate
from il_bench.plugin.registry import Registry
from il_bench.plugin.settings import Settings
from il_bench.policies.checkpoint import LoadedPolicy, load_policy
from il_bench.protocol import CONTEXT, EXPERT, TEST_SEEDS, UNTRAINED, Scalar
from il_bench.report import shards
from il_bench.report.success import on_keypoints, row_of, target_result
from il_bench.rollout import Outcomes, RunBlock, journal
from il_bench.rollout.environments import EnvironmentRollout
from il_bench.rollout.recordings import Recordings
from il_bench.rollout.surroundings import undisturbed
from il_bench.stress import curves
from il_bench.stress.arms import Arm, arms_for

_FACTS = ("name", "track", "sha256", "data", "checkpoint", "parameters")


class Measure:
    """Rolls policies out, and judges them by the gates of a run."""

    def __init__(self, settings: Settings, evaluate: Evaluate, registry: Registry) -> None:
        self._settings = settings
        self._evaluate = evaluate
        self._environments = registry.environments
        self._baselines = collect.load_baselines(settings)

    def policy(self, policy: LoadedPolicy) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Roll a policy out; return its record, and a sentence for each gate that fails the run."""
        own = self._environments.get(policy.track)
        fingerprint = self._fingerprint(policy)
        if own is None:
            return self._gated(policy, fingerprint, None)
        with undisturbed(f"environment {own.name}"), EnvironmentRollout(**own._asdict()) as environment:
            return self._gated(policy, environment.fingerprint(fingerprint), environment.run_block)

    def context(self, name: str) -> dict[str, Any]:
        """Roll out EXPERT or UNTRAINED, the ceiling and the floor of the table, which have no gates."""
        policy = load_policy(EXPERT) if name == EXPERT else untrained(self._settings.device)
        if self._settings.shard is not None:
            return self._share(policy, self._settings.seed_range, self._fingerprint(policy), None)
        record = self._record(policy.name, policy.track)
        outcomes = self._evaluate.run(policy, self._settings.seed_range, record=record)
        row = row_of(policy, outcomes, PolicyGates(policy.name).verdict(outcomes))
        return collect.Record("success", row, self._fingerprint(policy)).to_dict()

    def _fingerprint(self, policy: LoadedPolicy) -> dict[str, Scalar]:
        return machine.fingerprint(self._settings.device, policy.track, self._settings.numerics)

    def stress(self, policy: LoadedPolicy) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
        """Roll a policy out undisturbed and under every arm of stress.

        Yield, as each arm ends, its record and a sentence for each of its targets that fails the run.
        """
        seeds, arms = self._settings.seed_range, arms_for(policy)
        declared = self._targets_under_stress(policy, arms)
        found: dict[str, Verdict] = {}

        def roll(cell: str, block: RunBlock | None) -> Outcomes:
            with self._journal(policy, seeds[0], {**self._fingerprint(policy), "stress": cell}, cell) as kept:
                outcomes = self._evaluate.run(policy, seeds, journal=kept, block=block)
            if cell in declared:
                found[cell] = PolicyGates(f"{policy.name} under {cell}", declared[cell]).verdict(outcomes)
            return outcomes

        for row in curves.measure(policy, arms, roll):
            judged = {f"{level:g}": found.get(f"{row.arm} {level:g}") for level in row.levels}
            verdicts = {level: verdict for level, verdict in judged.items() if verdict is not None}
            targets = {
                level: target_result(verdict.target, verdict.against_target)
                for level, verdict in verdicts.items()
                if verdict.target is not None and verdict.against_target is not None
            }
            record = collect.Record("stress", row.model_copy(update={"targets": targets}))
            yield record.to_dict(), tuple(each for verdict in verdicts.values() for each in verdict.problems)

    def _targets_under_stress(self, policy: LoadedPolicy, arms: Sequence[Arm]) -> dict[str, Target]:
        """The declared targets of a policy by arm and level; none on other than test seeds."""
        cells = [arm.cell(level) for arm in arms for level in arm.levels]
        declared = self._baselines.tested(policy.name, policy.track).arms
        if unknown := declared.keys() - set(cells):
            raise IlBenchError(
                f"{collect.baselines_path(self._settings)}: gates.{policy.name}.{policy.track}.arms: "
                f"{min(unknown)!r:.60} is not an arm and level of this policy; use one of {', '.join(cells)}"
            )
        return declared if self._settings.seed_range[0] in TEST_SEEDS else {}

    def _gated(
        self, policy: LoadedPolicy, fingerprint: dict[str, Scalar], block: RunBlock | None
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Roll out until the gates are decided, or a fixed number of episodes."""
        settings, asked = self._settings, None
        if settings.target is not None:
            metric, value = settings.target
            asked = Target(metric=metric, value=value, required=True)
        gates = PolicyGates.of(
            policy.name,
            policy.track,
            policy.sha256,
            baselines=self._baselines,
            fingerprint=fingerprint,
            seeds=settings.seed_range,
            target=asked,
            replacing=settings.update_baselines,
            accepted=settings.accept_regression,
        )
        most = gates.most_episodes() if settings.episodes is None else 0
        seeds = settings.first_seeds(most) if most else settings.seed_range
        if settings.shard is not None:
            return self._share(policy, seeds, fingerprint, block, sequential=most > 0, asked=asked), ()
        look = gates.look if most else None
        with self._journal(policy, seeds[0], fingerprint) as kept:
            record = self._record(policy.name, policy.track)
            outcomes = self._evaluate.run(
                policy,
                seeds,
                journal=kept,
                look=look,
                block=block,
                may_leave=block is None,  # an environment cannot be sent to another process
                record=record,
            )
        verdict = gates.verdict(outcomes, sequential=most > 0)
        row = row_of(policy, outcomes, verdict).model_copy(
            update={"on_keypoints": on_keypoints(policy, outcomes, self._baselines)}
        )
        return collect.Record("success", row, fingerprint).to_dict(), verdict.problems

    def _share(
        self,
        policy: LoadedPolicy,
        seeds: Sequence[int],
        fingerprint: dict[str, Scalar],
        block: RunBlock | None,
        *,
        sequential: bool = False,
        asked: Target | None = None,
    ) -> dict[str, Any]:
        """Roll out this shard's blocks of a policy; return the record of what the whole run is."""
        part = shards.ShardPart(
            **{name: getattr(policy, name) for name in _FACTS},
            first_seed=seeds[0],
            n_seeds=len(seeds),
            fingerprint=fingerprint,
            version=_version_of(policy, self._settings),
            sequential=sequential,
            asked=asked,
        )
        names = [*(each.gate_name for each in self._settings.policies), EXPERT, UNTRAINED]
        number, of = self._settings.shard or (1, 1)
        mine = shards.share(seeds, part.block_size, names.index(policy.name), number, of)
        path = journal.path_of(self._settings.report, policy.name, policy.track)
        with journal.opened(path, part.conditions, resume=self._settings.resume) as kept:
            record, leaves = self._record(policy.name, policy.track), block is None
            if mine:
                self._evaluate.run(policy, mine, journal=kept, block=block, may_leave=leaves, record=record)
        return {"section": shards.SECTION, "part": part.model_dump(mode="json")}

    def _record(self, name: str, track: str) -> Callable[[Outcomes], object] | None:
        """What keeps the recordings of a policy, without those of an earlier run unless it is resumed."""
        kept = Recordings(self._settings.report, name, track)
        if not self._settings.resume:
            kept.clear()
        if self._settings.record == "none":
            return None
        return partial(kept.save, failures_only=self._settings.record == "failures")

    def _journal(
        self, policy: LoadedPolicy, first_seed: int, fingerprint: dict[str, Scalar], stress: str = ""
    ) -> AbstractContextManager[journal.Journal | None]:
        """The policy's journal; none if neither weights nor a version say which policy it is.

        stress: what the episodes are under, such as "delay 2": a journal of their own.
        """
        chosen = _chosen(policy, self._settings)
        version = chosen.version if chosen else None
        if (chosen and not chosen.has_journal) or (policy.sha256 is None and version is None):
            return nullcontext()
        conditions = journal.Conditions(
            policy.name, policy.track, policy.sha256, first_seed, fingerprint, version
        )
        report = self._settings.report / "stress" if stress else self._settings.report
        path = journal.path_of(report, f"{policy.name} {stress}".rstrip(), policy.track)
        return journal.opened(path, conditions, resume=self._settings.resume)


def _chosen(policy: LoadedPolicy, settings: Settings) -> PolicyChoice | None:
    """How the policy was asked for."""
    return next((each for each in settings.policies if each.gate_name == policy.name), None)


def _version_of(policy: LoadedPolicy, settings: Settings) -> str | None:
    """What says which policy a shard rolls out where no weights do; the planner is as old as il_bench."""
    if policy.name in CONTEXT:
        return f"il_bench {__version__}"
    chosen = _chosen(policy, settings)
    if chosen is None or (policy.sha256 is None and chosen.version is None):
        raise IlBenchError(
            f"--il-shard: nothing says which policy {policy.name} is, since code has no hash; give it a"
            " version with registry.policy(.., version=)"
        )
    return chosen.version


def untrained(device: str) -> LoadedPolicy:
    """Return the embedded bc with untrained weights, the same ones every time."""
    trained = load_policy("bc", device=device)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = type(trained.policy)(trained.policy.config).to(device).eval()
    checkpoint = f"{trained.checkpoint}, untrained"
    return replace(trained, name=UNTRAINED, checkpoint=checkpoint, sha256=None, data="none", policy=policy)
