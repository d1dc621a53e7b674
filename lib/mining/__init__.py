"""Sample programs, run them, keep the ones that pass (RSFT paper, Algorithm 1)."""
