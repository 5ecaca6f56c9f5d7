"""ThinkPRM in JAX: process reward models that think."""
