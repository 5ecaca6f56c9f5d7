"""Verdicts on many machines."""
