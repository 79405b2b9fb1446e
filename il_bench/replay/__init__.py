"""Episodes shown again: from a report's recording, or rolled out anew, as a video or a film strip."""
