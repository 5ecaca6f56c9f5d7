"""How good a verifier is: metrics, and what its verdicts come to on solutions whose errors are known."""
