"""A workbook for teaching code models by running what they write."""

import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm asks every notebook for widgets; lines will do
