"""What a verifier is measured on."""
