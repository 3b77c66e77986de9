"""Methods, each in one file beside its equation. Importing this package registers all of them."""

from autolora.methods.at import AT
from autolora.methods.autolora import AutoLoRa
from autolora.methods.base import METHODS, Accuracy, Batch, Losses, Method, register
from autolora.methods.ft import FT

__all__ = ["AT", "FT", "METHODS", "Accuracy", "AutoLoRa", "Batch", "Losses", "Method", "register"]
