"""Episodes shown again: from a report's recording, or rolled out again, as a video or a film strip."""
