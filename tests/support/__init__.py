"""What several tests share: small models, scripted parts, oracles, servers."""
