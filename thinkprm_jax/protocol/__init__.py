"""Every string of the method, and how a chain is read."""
