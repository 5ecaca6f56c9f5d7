"""Text to token ids and back, for trusted and untrusted text."""
