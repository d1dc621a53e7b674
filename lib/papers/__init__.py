"""Pictures of what the papers measure, with a run's numbers; published numbers and the published submission run again."""
