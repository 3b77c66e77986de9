"""Experiments: from a configuration to a run folder with its result."""
