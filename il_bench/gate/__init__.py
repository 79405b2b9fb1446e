"""Outcomes -> verdicts: sequential tests against a declared target and a measured baseline."""

from il_bench.gate.sequential import Decision, GateResult, check_baseline, check_target
from il_bench.gate.verdict import exit_status
from il_bench.rollout.metrics import Metric

__all__ = ["Decision", "GateResult", "Metric", "check_baseline", "check_target", "exit_status"]
