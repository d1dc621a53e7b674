"""From attempts to scores, comparisons and failure types."""
