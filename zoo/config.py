"""The configuration of a run: schemas for Hydra, and the typed `RunConfig` that the pipeline gets.

The dataclass of a model, dataset or task is its schema: each is registered in Hydra's ConfigStore with one more key,
`name`, by which it is found again. Nothing is ever instantiated from a class path in a config.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import math
import re
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zoo import guard
from zoo.data import Dataset
from zoo.errors import ConfigError, NameCollision, PluginError
from zoo.models import Model
from zoo.options import Configurable, field_types, fields_of, option, require
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


@dataclass
class Trainer(Configurable):
    """How a model is trained, all values decided."""

    epochs: float = option(
        10.0, "passes over the training split; the first of the three budgets that is reached ends training", gt=0
    )
    steps: int | None = option(None, "budget in optimizer steps", ge=1)
    seconds: float | None = option(None, "budget in seconds of training", gt=0)
    batch_size: int = option(64, "examples a step", ge=1)
    learning_rate: float = option(1e-3, "peak learning rate, after the warm-up", gt=0)
    weight_decay: float = option(0.01, "decoupled weight decay (AdamW) or L2 (Adam, SGD)", ge=0)
    optimizer: Optimizer = option(Optimizer.adamw, "AdamW, Adam, or SGD with momentum 0.9")
    schedule: Schedule = option(Schedule.linear, "how the learning rate falls after the warm-up")
    warmup: float = option(0.06, "share of the steps in which the learning rate rises", ge=0, lt=1)
    clip: float = option(1.0, "largest norm of the gradient; 0 switches clipping off", ge=0)
    patience: int | None = option(
        None, "stop after so many epochs without a better validation accuracy; null: do not stop early", ge=1
    )
    loss: Loss = option(Loss.cross_entropy, "cross-entropy, or squared error of the softmax against the one-hot label")
    device: Device = option(Device.auto, "where the computation runs; auto takes CUDA, then MPS, then the CPU")
    precision: Precision = option(
        Precision.auto, "float32, bfloat16 autocast, or whichever of the two the device is faster with"
    )
    compile: Compile = option(
        Compile.none, "torch.compile: default, or graphs (CUDA graphs); auto measures in long trainings what pays"
    )
    threads: int | None = option(
        None, "CPU threads; 1 gives bitwise the same results twice; null chooses by the size of the model", ge=1
    )
    micro_batch: int | None = option(
        None, "examples a forward pass; null: the whole batch, halved when memory runs out", ge=1
    )
    resident_mib: int = option(
        2048, "encoded data up to this size stay in the device's memory, larger are streamed", ge=0
    )

    _section: ClassVar[str] = "trainer"


def _left_open(name: str) -> Any:
    """The option of `Trainer` with None for its default: the recipe decides, or else the default there."""
    return field(default=None, metadata=Trainer.__dataclass_fields__[name].metadata)


def _as_decided(name: str) -> Any:
    """The option of `Trainer` as it is, for what no recipe may suggest."""
    declared = Trainer.__dataclass_fields__[name]
    return field(default=declared.default, metadata=declared.metadata)


@dataclass
class TrainerOptions(Configurable):
    """Training options. null: the model's recipe decides, or else the harness's default."""

    epochs: float | None = _left_open("epochs")
    steps: int | None = _left_open("steps")
    seconds: float | None = _left_open("seconds")
    batch_size: int | None = _left_open("batch_size")
    learning_rate: float | None = _left_open("learning_rate")
    weight_decay: float | None = _left_open("weight_decay")
    optimizer: Optimizer | None = _left_open("optimizer")
    schedule: Schedule | None = _left_open("schedule")
    warmup: float | None = _left_open("warmup")
    clip: float | None = _left_open("clip")
    patience: int | None = _left_open("patience")
    loss: Loss | None = _left_open("loss")
    device: Device = _as_decided("device")
    precision: Precision = _as_decided("precision")
    compile: Compile = _as_decided("compile")
    threads: int | None = _as_decided("threads")
    micro_batch: int | None = _as_decided("micro_batch")
    resident_mib: int = _as_decided("resident_mib")

    _section: ClassVar[str] = "trainer"


LISTED_NULL = "${oc.decode:null}", r"$\{oc.decode\:null\}"
"""null in choice(), where Hydra refuses it as such: as it is written, and as Hydra hands it to a cell."""

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
class RunSchema(Configurable):
    """The options at the root of a run."""

    model: Any = None
    dataset: Any = None
    task: Any = None
    trainer: TrainerOptions = field(default_factory=TrainerOptions)
    seed: int = option(0, "seeds weights, order of batches and dropout", ge=0, le=SEEDS - 1)
    replicas: int = option(
        1, "so many seeds, from `seed` on, trained at once as one vectorised model: a run each", ge=1
    )
    runs_dir: str = option("runs", "folder in which runs are kept")
    rerun: bool = option(False, "run again although a complete run is there")
    keep_weights: bool = option(True, "store the trained weights with the run")
    report: Report = option(Report.auto, "auto: a sweep ends with a report in reports_dir; off: it does not")
    reports_dir: str = option("reports", "folder in which reports are kept")
    report_name: str = option("", "the report's name; without it <task>-<dataset>")
    language: Language = option(Language.en, "language of the report")
    examples: bool = option(True, "false keeps every text and image of the data out of the report")
    probe: int = option(500, "test examples whose layer outputs are stored as features; 0 stores none", ge=0)

    def __post_init__(self) -> None:
        last = self.seed + self.replicas - 1
        require(self, "replicas", last < SEEDS, f"at most {SEEDS - self.seed}: the last seed is {SEEDS - 1}")


PARTS = ("model", "dataset", "task", "trainer")
"""The options of `RunSchema` that have options of their own."""


@dataclass(frozen=True)
class RunConfig:
    """One run, typed: objects instead of names.

    label: what the model is called in tables and paths (the name of its config, e.g. of a YAML variant);
    overrides: what was asked for, as `zoo.run` takes it; replicas: how many seeds, from `seed` on, are trained as one
    vectorised model; foreign: what a sweep fixes for those of its models, datasets and tasks that have the option, and
    this one has not, e.g. `{"model.dropout": 0.2}`: such a cell is skipped.
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
    foreign: Mapping[str, Any] = field(default_factory=dict)


def conf_dir() -> Path:
    """The folder of the core's YAML: `zoo/conf` in a wheel, the checkout's `conf` otherwise."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


def register(registry: Registry, foreign: Mapping[str, Collection[str]] | None = None) -> None:
    """Put every schema into Hydra's ConfigStore and the plugins' YAML on its search path. May be called again.

    foreign: kind -> options that a sweep fixes and that only some of its models, datasets or tasks have. The others
    take them, too, so that their cells can be composed, and skipped with the reason; see `RunConfig.foreign`."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    check_yaml(registry)
    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunSchema)
    store.store(group="trainer", name="default", node=TrainerOptions)
    for kind, entries in registry.entries.items():
        for entry in entries.values():
            store.store(group=kind, name=entry.name, node=schema(entry, (foreign or {}).get(kind, ())))

    class PluginYaml(SearchPathPlugin):
        def manipulate_search_path(self, search_path: Any) -> None:
            for plugin in registry.plugins:
                if plugin.config_package:
                    search_path.append(plugin.distribution, f"pkg://{plugin.config_package}")

    Plugins.instance().register(PluginYaml)


def schema(entry: Entry, foreign: Collection[str] = ()) -> type:
    """The dataclass of an entry with its `name` as one more option, as Hydra gets it. foreign: further options, of any
    type, that are not the entry's own.

    A task also picks its default dataset, which `dataset=` on the command line overrides."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    hints = field_types(entry.cls)
    fields: list[tuple[str, Any, Any]] = [("name", str, field(default=entry.name))]
    if entry.kind == "task":
        defaults = [{"override /dataset@_global_.dataset": entry.cls.dataset}, "_self_"]
        fields.append(("defaults", list[Any], field(default_factory=lambda: list(defaults))))
    for item in fields_of(entry.cls):
        kept = {key: getattr(item, key) for key in ("default", "default_factory", "metadata")}
        fields.append((item.name, hints[item.name], field(**kept)))
    fields += [(name, Any, field(default="???")) for name in sorted(set(foreign) - set(hints))]
    made = dataclasses.make_dataclass(f"{entry.cls.__name__}Options", fields, kw_only=True)
    try:
        OmegaConf.structured(made)
    except OmegaConfBaseException as error:
        raise PluginError(
            f"{entry.distribution}: the options of {entry.kind} '{entry.name}' cannot be configured: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return made


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


def base_of(registry: Registry, kind: str, name: str) -> str | None:
    """The registered name behind a config of one kind: itself, or the one on which its YAML builds. None when neither
    is to be found."""
    seen: set[str] = set()
    while name not in registry.entries[kind]:
        seen.add(name)
        builds_on = [
            item.removeprefix("/").removeprefix(f"{kind}/")
            for item in _defaults(registry, f"{kind}/{name}")
            if isinstance(item, str)
        ]
        further = [item for item in builds_on if item != "_self_" and item not in seen]
        if not further:
            return None
        name = further[0]
    return name


def chosen_by_experiment(registry: Registry, experiment: str, kind: str) -> str | None:
    """The model, dataset or task that an experiment's YAML picks; None when it leaves that open."""
    for item in _defaults(registry, f"experiment/{experiment}"):
        for group, name in item.items() if isinstance(item, Mapping) else ():
            if str(group).removeprefix("override").strip().removeprefix("/") == kind:
                return str(name)
    return None


def _defaults(registry: Registry, file: str) -> list[Any]:
    """The defaults list of a YAML config; empty when it has none, or cannot be read: Hydra says so where it is used."""
    from omegaconf import OmegaConf

    for _, root in _roots(registry):
        path = root.joinpath(*f"{file}.yaml".split("/"))
        if path.is_file():
            try:
                content = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")))
            except Exception:  # of the file, of YAML or of OmegaConf
                return []
            found = content.get("defaults") if isinstance(content, dict) else None
            return found if isinstance(found, list) else []
    return []


def _yaml_files(registry: Registry) -> list[tuple[str, str]]:
    """(distribution, "group/name") of every YAML file."""
    return [(owner, name) for owner, root in _roots(registry) for name in sorted(_walk(root, ""))]


def _roots(registry: Registry) -> list[tuple[str, Any]]:
    """(distribution, folder) of every folder of YAML files."""
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
    return roots


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
    root = [item.name for item in dataclasses.fields(RunSchema) if item.name not in PARTS]
    with _plainly():
        RunSchema(**{name: config[name] for name in root})  # refuses what is out of range before anything is read
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
        foreign={key: value for kind, part in parts.items() for key, value in _foreign(config[kind], kind, part)},
        **parts,
    )


def _foreign(node: DictConfig, kind: str, part: Any) -> list[tuple[str, Any]]:
    """What a section of the composed configuration holds beside the options of its model, dataset or task."""
    own = {"name", "defaults", *(item.name for item in fields_of(type(part)))}  # as in `schema`
    options = vars(_resolved(node))
    return [(f"{kind}.{name}", plain(options[name])) for name in options if name not in own]


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
    except (ConfigError, TypeError, ValueError) as error:
        # out of range, or a reference such as ${oc.env:HOME}, which may stand for a value of any kind
        raise ConfigError(f"The recorded options of {kind} '{entry.name}' are not what it takes: {error}") from error


def _asked_for() -> tuple[str, ...]:
    """The overrides of this cell, when Hydra composed it."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return ()
    return tuple(override.replace(LISTED_NULL[1], "null") for override in HydraConfig.get().overrides.task)


def _instance(node: DictConfig, kind: str, registry: Registry) -> Any:
    entry = registry.find(kind, node.name)
    options = _resolved(node)
    with guard.options_of(f"{kind.capitalize()} '{entry.name}'", f"{entry.distribution} {entry.version}"):
        return entry.cls(**{item.name: getattr(options, item.name) for item in fields_of(entry.cls)})


def _resolved(node: DictConfig) -> Any:
    """The dataclass of a section, references such as ${oc.env:HOME} followed."""
    from omegaconf import OmegaConf

    with _plainly():
        return OmegaConf.to_object(node)


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    """A value that is missing, or refers to what is not there, as ConfigError."""
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}.") from error


def plain(value: Any) -> Any:
    """Dataclasses, enums and paths as JSON knows them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        named = {"name": type(value).name} if isinstance(value, Model | Dataset | Task) else {}
        items = fields_of(type(value)) if named else dataclasses.fields(value)  # what a model learned is no option
        return named | {item.name: plain(getattr(value, item.name)) for item in items}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
