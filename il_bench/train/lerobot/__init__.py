"""Training by LeRobot's own trainer: recipes and older command lines, spelled for the installed LeRobot."""
