"""Internal events as log lines: when a line is written, what it looks like, and how it reaches standard error."""
