"""Real brokers without docker."""
