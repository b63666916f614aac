"""The fault table: what becomes of numbered messages when something breaks, on the real brokers."""
