"""Search: from many solutions of a problem to one answer, with a verifier as the judge."""
