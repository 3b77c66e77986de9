"""What a run will take, in time and memory: a few real steps are measured, and multiplied."""
