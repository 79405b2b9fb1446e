"""Finished runs, LeRobot's too: their files are read, gated and told, without a rollout."""
