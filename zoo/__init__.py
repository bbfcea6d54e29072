"""zoo: a model zoo and evaluation harness that measures how alike models really are.

This module is the public door. A plugin may use every name in `__all__`, and nothing else of the package.
Importing it is cheap: neither torch nor transformers comes with it.
"""

from zoo import interrupts  # noqa: F401  (first: from here on Ctrl-C ends a command without a traceback)
from zoo.data import Data, Dataset, Labelled, Split, Splits, load
from zoo.encoders import PixelEncoder, WordEncoder
from zoo.errors import (
    CheckpointError,
    ConfigError,
    DamagedRun,
    DataError,
    Incompatible,
    NameCollision,
    PluginError,
    RequestError,
    StoreError,
    TrainingError,
    UnknownName,
    ZooError,
)
from zoo.homogeneity.measures import Measure
from zoo.homogeneity.results import Pairs, PerModel, Scalar
from zoo.hookspecs import hookimpl
from zoo.models import Dense, Encoded, Encoder, FrozenPart, InputSpec, Modality, Predictor, Tokens, TorchModel
from zoo.options import option, require
from zoo.tasks import Task
from zoo.units import Slots, Units, transformer_units

__version__ = "0.3.0"

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DamagedRun",
    "Data",
    "DataError",
    "Dataset",
    "Dense",
    "Encoded",
    "Encoder",
    "FrozenPart",
    "Incompatible",
    "InputSpec",
    "Labelled",
    "Measure",
    "Modality",
    "NameCollision",
    "Pairs",
    "PerModel",
    "PixelEncoder",
    "PluginError",
    "Predictor",
    "RequestError",
    "Scalar",
    "Slots",
    "Split",
    "Splits",
    "StoreError",
    "Task",
    "Tokens",
    "TorchModel",
    "TrainingError",
    "Units",
    "UnknownName",
    "WordEncoder",
    "ZooError",
    "hookimpl",
    "load",
    "option",
    "require",
    "transformer_units",
]
