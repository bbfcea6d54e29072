"""The configuration of a run: schemas for Hydra, and the typed `RunConfig` that the pipeline gets.

The dataclass of a model, dataset or task is its schema: each is registered in Hydra's ConfigStore with one more key,
`name`, by which it is found again. Nothing is ever instantiated from a class path in a config.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
import re
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.data import Dataset
from zoo.errors import ConfigError, NameCollision, PluginError
from zoo.models import Model
from zoo.tasks import Task

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from zoo.models import Predictor, TorchModel
    from zoo.plugins import Entry, Registry


class Optimizer(enum.Enum):
    """torch.optim's AdamW (fused where the device has it), Adam and SGD with momentum .9."""

    adamw = "adamw"
    adam = "adam"
    sgd = "sgd"


class Schedule(enum.Enum):
    """How the learning rate falls after the warm-up: straight to 0, along a cosine to 0, or not at all."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant"


class Loss(enum.Enum):
    """Cross-entropy of the logits, or mean squared error of the softmax against the one-hot label."""

    cross_entropy = "cross_entropy"
    mse = "mse"


class Precision(enum.Enum):
    """float32, bfloat16 autocast, or whichever the device is faster with."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Compile(enum.Enum):
    """The module as it is, compiled by torch.compile, compiled into CUDA graphs, or whichever turns out the fastest."""

    none = "none"
    default = "default"
    graphs = "graphs"
    auto = "auto"


class Device(enum.Enum):
    """auto takes CUDA, then MPS, then the CPU."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Report(enum.Enum):
    """Whether a sweep ends with a report on its runs."""

    auto = "auto"
    off = "off"


REPORT_NAME = re.compile(r"\w[\w.-]*")


class Language(enum.Enum):
    """In which language a report is written."""

    en = "en"
    zh = "zh"


def _option(default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"help": meaning})


@dataclass
class Trainer:
    """How a model is trained, all values decided. What `TrainerOptions` leaves open has its default here."""

    epochs: float = 10.0
    steps: int | None = None
    seconds: float | None = None
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    optimizer: Optimizer = Optimizer.adamw
    schedule: Schedule = Schedule.linear
    warmup: float = 0.06
    clip: float = 1.0
    patience: int | None = None
    loss: Loss = Loss.cross_entropy
    device: Device = Device.auto
    precision: Precision = Precision.auto
    compile: Compile = Compile.none
    threads: int | None = None
    micro_batch: int | None = None
    resident_mib: int = 2048

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _require(name, value, not isinstance(value, float) or math.isfinite(value), "a finite number")
        for name in ("batch_size", "learning_rate", "epochs"):
            _require(name, getattr(self, name), getattr(self, name) > 0, "more than 0")
        for name in ("steps", "seconds", "patience", "threads", "micro_batch"):
            value = getattr(self, name)
            _require(name, value, value is None or value > 0, "more than 0, or null")
        for name in ("weight_decay", "clip", "resident_mib"):
            _require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        _require("warmup", self.warmup, 0 <= self.warmup < 1, "a share of the steps, from 0 to below 1")


def _require(name: str, value: Any, holds: bool, want: str) -> None:
    if not holds:
        raise ConfigError(f"trainer.{name}={value}: it must be {want}.")


@dataclass
class TrainerOptions:
    """Training options. null: the model's recipe decides, or else the harness's default."""

    epochs: float | None = _option(None, "passes over the training split; the first budget reached ends training")
    steps: int | None = _option(None, "budget in optimizer steps")
    seconds: float | None = _option(None, "budget in seconds of training")
    batch_size: int | None = _option(None, "examples a step")
    learning_rate: float | None = _option(None, "peak learning rate, after the warm-up")
    weight_decay: float | None = _option(None, "decoupled weight decay (AdamW) or L2 (Adam, SGD)")
    optimizer: Optimizer | None = _option(None, "adamw, adam or sgd")
    schedule: Schedule | None = _option(None, "linear, cosine or constant after the warm-up")
    warmup: float | None = _option(None, "share of the steps with a rising learning rate")
    clip: float | None = _option(None, "largest norm of the gradient; 0 switches clipping off")
    patience: int | None = _option(None, "stop after so many epochs without a better validation accuracy")
    loss: Loss | None = _option(None, "cross_entropy or mse")
    device: Device = _option(Device.auto, "auto, cpu, cuda or mps")
    precision: Precision = _option(Precision.auto, "auto, fp32 or bf16")
    compile: Compile = _option(
        Compile.none, "torch.compile: default, or graphs (CUDA graphs); auto measures in long trainings what pays"
    )
    threads: int | None = _option(None, "CPU threads; 1 gives bitwise the same results twice; null chooses by size")
    micro_batch: int | None = _option(None, "examples a forward pass; null: the whole batch, halved if memory ends")
    resident_mib: int = _option(2048, "encoded data up to this size stay in the device's memory, larger are streamed")


SEEDS = 2**32  # numpy's and scikit-learn's generators take no more

RECIPE = frozenset(
    {"epochs", "batch_size", "learning_rate", "weight_decay", "optimizer", "schedule", "warmup", "clip", "patience"}
)
MIN_STEPS = "min_steps"
"""What a recipe may say beside these: the fewest steps that are a training, however small the training split."""


def decide(options: TrainerOptions, recipe: Mapping[str, Any], examples: int = 0) -> Trainer:
    """What the user says, else what the model suggests, else the default. examples: of the training split.

    Where the recipe's epochs are fewer steps than its `min_steps`, and the user sets no budget, epochs and patience
    are stretched alike until they are as many. Raises PluginError for an unknown recipe."""
    if unknown := sorted(set(recipe) - RECIPE - {MIN_STEPS}):
        allowed = ", ".join(sorted({*RECIPE, MIN_STEPS}))
        raise PluginError(f"A recipe may suggest {allowed}; this one has {', '.join(unknown)}.")
    suggested = {
        name: {"optimizer": Optimizer, "schedule": Schedule}[name](value) if isinstance(value, str) else value
        for name, value in recipe.items()
        if name != MIN_STEPS
    }
    said = {name: value for name, value in vars(options).items() if value is not None}
    decided = Trainer(**{**suggested, **said})
    if not examples or MIN_STEPS not in recipe or said.keys() & {"epochs", "steps", "seconds"}:
        return decided
    return _stretched(decided, recipe[MIN_STEPS] / math.ceil(examples / decided.batch_size), "patience" in said)


def _stretched(trainer: Trainer, epochs: float, keep_patience: bool) -> Trainer:
    """With at least so many epochs, and as much more patience unless it is to be kept."""
    factor = math.ceil(epochs) / trainer.epochs
    if factor <= 1:
        return trainer
    patience = trainer.patience if keep_patience or not trainer.patience else math.ceil(trainer.patience * factor)
    return dataclasses.replace(trainer, epochs=float(math.ceil(epochs)), patience=patience)


@dataclass
class RunSchema:
    """The options at the root of a run."""

    model: Any = None
    dataset: Any = None
    task: Any = None
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    seed: int = _option(0, "seeds weights, order of batches and dropout")
    replicas: int = _option(1, "so many seeds, from `seed` on, trained at once as one vectorised model: a run each")
    runs_dir: str = _option("runs", "folder in which runs are kept")
    rerun: bool = _option(False, "run again although a complete run is there")
    keep_weights: bool = _option(True, "store the trained weights with the run")
    report: Report = _option(Report.auto, "auto: a sweep ends with a report in reports_dir; off: it does not")
    reports_dir: str = _option("reports", "folder in which reports are kept")
    report_name: str = _option("", "the report's name; without it <task>-<dataset>")
    language: Language = _option(Language.en, "of the report: en or zh")
    examples: bool = _option(True, "false keeps every text and image of the data out of the report")
    probe: int = _option(500, "test examples whose layer outputs are stored as features; 0 stores none")


@dataclass(frozen=True)
class RunConfig:
    """One run, typed: objects instead of names.

    label: what the model is called in tables and paths (the name of its config, e.g. of a YAML variant);
    overrides: what was asked for, as `zoo.run` takes it; replicas: how many seeds, from `seed` on, are trained as one
    vectorised model.
    """

    model: TorchModel | Predictor
    dataset: Dataset
    task: Task
    trainer: TrainerOptions
    label: str
    overrides: tuple[str, ...] = ()
    seed: int = 0
    runs_dir: Path = Path("runs")
    rerun: bool = False
    keep_weights: bool = True
    probe: int = 500
    replicas: int = 1


def conf_dir() -> Path:
    """The folder of the core's YAML: `zoo/conf` in a wheel, the checkout's `conf` otherwise."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


def register(registry: Registry) -> None:
    """Put every schema into Hydra's ConfigStore and the plugins' YAML on its search path. May be called again."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    check_yaml(registry)
    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunSchema)
    store.store(group="trainer", name="default", node=TrainerOptions)
    for kind, entries in registry.entries.items():
        for entry in entries.values():
            store.store(group=kind, name=entry.name, node=schema(entry))

    class PluginYaml(SearchPathPlugin):
        def manipulate_search_path(self, search_path: Any) -> None:
            for plugin in registry.plugins:
                if plugin.config_package:
                    search_path.append(plugin.distribution, f"pkg://{plugin.config_package}")

    Plugins.instance().register(PluginYaml)


def schema(entry: Entry) -> type:
    """The dataclass of an entry with its `name` as one more option, as Hydra gets it.

    A task also picks its default dataset, which `dataset=` on the command line overrides."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    hints = field_types(entry.cls)
    fields: list[tuple[str, Any, Any]] = [("name", str, field(default=entry.name))]
    if entry.kind == "task":
        defaults = [{"override /dataset@_global_.dataset": entry.cls.dataset}, "_self_"]
        fields.append(("defaults", list[Any], field(default_factory=lambda: list(defaults))))
    for item in dataclasses.fields(entry.cls):
        kept = {key: getattr(item, key) for key in ("default", "default_factory", "metadata")}
        fields.append((item.name, hints[item.name], field(**kept)))
    made = dataclasses.make_dataclass(f"{entry.cls.__name__}Options", fields, kw_only=True)
    try:
        OmegaConf.structured(made)
    except OmegaConfBaseException as error:
        raise PluginError(
            f"{entry.distribution}: the options of {entry.kind} '{entry.name}' cannot be configured: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return made


def field_types(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields, by name. Other annotations (ClassVar) may name what is not imported."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        owner = next(base for base in cls.__mro__ if item.name in inspect.get_annotations(base))
        only = types.SimpleNamespace(__annotations__={item.name: inspect.get_annotations(owner)[item.name]})
        try:
            found |= typing.get_type_hints(only, vars(sys.modules[owner.__module__]))
        except NameError as error:
            raise PluginError(
                f"{cls.__module__}.{cls.__name__}.{item.name}: its type cannot be read ({error}). "
                f"Import it at the top of the module, not only under TYPE_CHECKING."
            ) from error
    return found


def check_yaml(registry: Registry) -> None:
    """Raise NameCollision when two YAML files, or a YAML file and a registered class, claim one config name."""
    owners = {f"{kind}/{name}": e.distribution for kind, named in registry.entries.items() for name, e in named.items()}
    for plugin, file in _yaml_files(registry):
        if file in owners:
            raise NameCollision(
                f"The config '{file}' stands twice: in {owners[file]} and in {plugin}.\n"
                f"Rename the YAML file in one of them, or choose with ZOO_PLUGINS=<name>,<name>."
            )
        owners[file] = plugin


def variants(registry: Registry, kind: str) -> list[str]:
    """Names of the YAML configs of one group, core and plugins together, sorted."""
    files = (file for _, file in _yaml_files(registry))
    return sorted(file.removeprefix(f"{kind}/") for file in files if file.startswith(f"{kind}/"))


def _yaml_files(registry: Registry) -> list[tuple[str, str]]:
    """(distribution, "group/name") of every YAML file."""
    from importlib.resources import files

    roots: list[tuple[str, Any]] = [("zoo-harness", conf_dir())]
    for plugin in registry.plugins:
        if plugin.config_package:
            try:
                roots.append((plugin.distribution, files(plugin.config_package)))
            except ImportError as error:
                raise PluginError(
                    f"{plugin.distribution}: its config package '{plugin.config_package}' cannot be imported "
                    f"({error}). Ship the folder with an __init__.py in it."
                ) from error
    return [(owner, name) for owner, root in roots for name in sorted(_walk(root, ""))]


def _walk(folder: Any, prefix: str) -> list[str]:
    found = []
    for item in folder.iterdir():
        if item.is_dir() and not item.name.startswith(("_", ".")):
            found += _walk(item, f"{prefix}{item.name}/")
        elif item.name.endswith(".yaml"):
            found.append(prefix + item.name.removesuffix(".yaml"))
    return found


def typed(config: DictConfig, registry: Registry, label: str | None = None) -> RunConfig:
    """From Hydra's DictConfig to objects. Raises ConfigError for values that a model or dataset refuses."""
    parts = {kind: _instance(config[kind], kind, registry) for kind in ("model", "dataset", "task")}
    trainer = _resolved(config.trainer)
    assert isinstance(trainer, TrainerOptions)
    decide(trainer, {})  # out-of-range values are refused before anything is read
    if config.probe < 0:
        raise ConfigError(f"probe={config.probe}: it must be 0 or more.")
    if not 0 <= config.seed < SEEDS:
        raise ConfigError(f"seed={config.seed}: it must be from 0 to {SEEDS - 1}.")
    if not 1 <= config.replicas <= SEEDS - config.seed:
        raise ConfigError(f"replicas={config.replicas}: it must be 1 or more, and the last seed at most {SEEDS - 1}.")
    return RunConfig(
        replicas=config.replicas,
        trainer=trainer,
        label=label or config.model.name,
        overrides=_asked_for(),
        seed=config.seed,
        runs_dir=Path(config.runs_dir).expanduser(),
        rerun=config.rerun,
        keep_weights=config.keep_weights,
        probe=config.probe,
        **parts,
    )


def from_record(kind: str, options: Mapping[str, Any], registry: Registry) -> Any:
    """The model, dataset or task that a run recorded: what `plain` made of it.

    Raises UnknownName when it is not installed, ConfigError when it has other options now."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    entry = registry.find(kind, str(options.get("name", "")))
    try:
        node = OmegaConf.merge(OmegaConf.structured(schema(entry)), dict(options))
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"The recorded options of {kind} '{entry.name}' are not those of the installed {entry.distribution} "
            f"{entry.version}: {str(error).splitlines()[0]}"
        ) from error
    try:
        return _instance(typing.cast("DictConfig", node), kind, registry)
    except (TypeError, ValueError) as error:  # a reference such as ${oc.env:HOME} may stand for a value of any kind
        raise ConfigError(f"The recorded options of {kind} '{entry.name}' are not of its kinds: {error}") from error


def _asked_for() -> tuple[str, ...]:
    """The overrides of this cell, when Hydra composed it."""
    from hydra.core.hydra_config import HydraConfig

    return tuple(HydraConfig.get().overrides.task) if HydraConfig.initialized() else ()


def _instance(node: DictConfig, kind: str, registry: Registry) -> Any:
    entry = registry.find(kind, node.name)
    options = _resolved(node)
    names = [item.name for item in dataclasses.fields(entry.cls)]
    return entry.cls(**{name: getattr(options, name) for name in names})


def _resolved(node: DictConfig) -> Any:
    """The dataclass of a section, references such as ${oc.env:HOME} followed."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_object(node)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}.") from error


def plain(value: Any) -> Any:
    """Dataclasses, enums and paths as JSON knows them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {"name": type(value).name} if isinstance(value, Model | Dataset | Task) else {}
        return named | {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
