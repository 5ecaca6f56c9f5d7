"""The synthetic task of the bundled models."""
