"""Apache's Java client beside ours, by the remoting protocol."""
