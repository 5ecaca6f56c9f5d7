"""`thinkprm report`: a page for people about a run of a verifier or a search."""
