"""Results -> report.json and everything made from it: the terminal's table, a plot, a page."""
