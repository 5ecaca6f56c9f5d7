"""Ways in which released weights are stored other than as plain tensors; each gives plain tensors by name."""
