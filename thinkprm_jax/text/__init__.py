"""Text on both sides of the model: tokenizer, prompt strings, solution steps, verdicts."""
