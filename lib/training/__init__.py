"""Supervised fine-tuning on passing programs (RSFT paper, Algorithm 2)."""
