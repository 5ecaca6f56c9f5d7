"""From a training run to a Hugging Face folder."""
