"""Pictures of what the papers measure, with a run's numbers; published numbers; the published submission run again."""
