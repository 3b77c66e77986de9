"""Export: a finished model as other tools read it, with a card that says what was measured."""

from autolora.experiments.export.exporting import FORMATS, export

__all__ = ["FORMATS", "export"]
