"""What solutions selected by their scores are worth."""
