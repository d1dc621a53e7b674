"""Pure functions of arrays: intervals, pass@k and paired comparisons."""
