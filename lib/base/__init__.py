"""Files, progress, errors and parallel work: nothing that knows about tasks, models or programs."""
