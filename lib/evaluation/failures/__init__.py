"""Failure types: rules, labels by hand, tables."""
