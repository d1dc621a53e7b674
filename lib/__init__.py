"""A workbook for teaching code models by running what they write."""
