"""Several workers under one supervisor: their processes, what is said between them, and what all of them come to."""
