"""Methods, each in one file beside its equation. Importing this package registers all of them."""

from autolora.methods.at import AT
from autolora.methods.autolora import AutoLoRa
from autolora.methods.base import METHODS, Accuracy, Batch, Losses, Method, register
from autolora.methods.ft import FT
from autolora.methods.loft import LoFT
from autolora.methods.probing import ALF, SLF
from autolora.methods.twins import TwinsAT, TwinsTRADES
from autolora.methods.vanilla_rft import VanillaRFT

__all__ = [
    "ALF",
    "AT",
    "FT",
    "METHODS",
    "SLF",
    "Accuracy",
    "AutoLoRa",
    "Batch",
    "LoFT",
    "Losses",
    "Method",
    "TwinsAT",
    "TwinsTRADES",
    "VanillaRFT",
    "register",
]
