"""What lerobot-train says, read: rates of VQ-BeT's first phase are void, and its end is told."""

from il_bench.train.lerobot.watch import Row, Watcher

RATES = (
    "INFO 2026-11-23 09:00:00 ot_train.py:660 Suite overall aggregated: {'avg_sum_reward': 80.1, "
    "'avg_max_reward': 0.91, 'pc_success': 62.0, 'n_episodes': 50, 'eval_s': 3.2, 'eval_ep_s': 0.1}"
)


def evaluated(step: int, watcher: Watcher) -> tuple[tuple[str, ...], Row | None]:
    first = watcher.read(f"INFO 2026-11-23 09:00:00 ot_train.py:630 Eval policy at step {step}")
    second = watcher.read(RATES)
    return first.notes + second.notes, second.row


def test_a_rate_of_the_first_phase_is_void_and_not_kept() -> None:
    watcher = Watcher(20_000, 0, 200)
    for step in (10_000, 20_000):  # at its end the policy itself is as it was drawn
        notes, row = evaluated(step, watcher)
        assert row is None and all("says nothing" in note for note in notes) and len(notes) == 2
    notes, row = evaluated(30_000, watcher)
    assert notes == ("step 30000: success_rate 0.620, mean_max_reward 0.910",)
    assert row == Row(30_000, success_rate=0.62, mean_max_reward=0.91)


def test_a_policy_without_a_first_phase_counts_from_the_start() -> None:
    assert evaluated(200, Watcher(0, 0, 200))[1] == Row(200, success_rate=0.62, mean_max_reward=0.91)


def test_the_end_of_the_first_phase_is_told() -> None:
    seen = Watcher(20_000, 0, 200).read("Finished discretizing action data!")
    assert "step 20000: first phase over" in seen.notes[0]


def test_losses_have_their_steps_though_lerobot_rounds_them() -> None:
    watcher = Watcher(0, 1_234, 200)
    line = "INFO ot_train.py:580 step:1K smpl:22K ep:170 epch:0.9 loss:0.123 grdn:1.2 lr:1.0e-04 updt_s:0.1"
    assert watcher.read(line).row == Row(1_400, loss="0.123", lr="1.0e-04")
    assert watcher.read(line).row == Row(1_600, loss="0.123", lr="1.0e-04")


def test_progress_bars_are_told_from_lines() -> None:
    watcher = Watcher(0, 0, 200)
    assert watcher.read("Training:  12%|█▏        | 12/100 [00:01<00:07, 11.3step/s]").is_progress
    assert not watcher.read("INFO it is 50% done").is_progress
