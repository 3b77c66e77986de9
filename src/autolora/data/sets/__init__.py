"""Readers of named data sets, one official layout a file; `autolora.data.named` has their names and facts."""
