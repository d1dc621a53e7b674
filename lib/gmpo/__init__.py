"""Groupwise Meta-normalised PPO (GMPO, PolyCode): advantages pooled over similar prompts, and their trainer.

Not Geometric-Mean Policy Optimization (arXiv 2507.20673), another method with the same four letters.
"""
