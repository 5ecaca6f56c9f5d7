"""Verification chains: reading them from files, and making the synthetic task of the bundled models."""
