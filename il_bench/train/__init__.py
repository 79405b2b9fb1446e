"""Training: one loop and recipes as data here, LeRobot's own trainer in `lerobot`."""
