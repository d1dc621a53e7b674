"""The papers' tables and figures with a run's numbers: `rsft` (paper A), `polycode` (paper B).

Differs from the papers in:
- nothing of theirs is redrawn: a published number is grey, named, and in a panel or a row of its own;
- every number of a run has its n and its interval over tasks, both in the data beside the picture;
- A's figure 3 and B's figures 3 to 7 go by what the papers measure (failures by type; languages, gains, advantage
  variance, surprise, failures), not by their drawings, which give no data.
"""
