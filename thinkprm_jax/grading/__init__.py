"""Whether two final answers are equal."""
