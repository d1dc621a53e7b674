"""Run the notebooks in order: presets, stage cache, pipeline, doctor."""
