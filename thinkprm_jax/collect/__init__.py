"""Verification chains from a teacher."""
