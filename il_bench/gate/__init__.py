"""Outcomes -> verdicts: sequential tests against a declared target and a measured baseline."""

from il_bench.gate.sequential import Decision, GateResult, Metric, check_baseline, check_target, exit_status

__all__ = ["Decision", "GateResult", "Metric", "check_baseline", "check_target", "exit_status"]
