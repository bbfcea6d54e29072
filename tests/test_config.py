"""Schemas of models, datasets and tasks, and the way from Hydra's config to typed objects."""

from __future__ import annotations

import dataclasses
import enum
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import hydra
import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ValidationError

import zoo
from zoo import config
from zoo.config import Optimizer, Precision, Schedule, TrainerOptions
from zoo.errors import ConfigError, NameCollision, PluginError, UnknownName
from zoo.plugins import Entry, Plugin, Registry, registry

if TYPE_CHECKING:
    from decimal import Decimal

    import torch


class Colour(enum.Enum):
    red = "r"
    blue = "b"


@dataclass
class Painter(zoo.Predictor):
    """Options of every kind that a config takes."""

    needed: str
    colour: Colour = Colour.red
    widths: list[int] = field(default_factory=lambda: [1, 2])
    named: dict[str, float] = field(default_factory=dict)
    limit: float | None = None

    name: ClassVar[str] = "painter"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"image"})
    cache: ClassVar[torch.Tensor | None] = None


@dataclass
class Priced(zoo.Predictor):
    price: Decimal | None = None

    name: ClassVar[str] = "priced"


@dataclass
class Sets(zoo.Predictor):
    chosen: set[str] = field(default_factory=set)

    name: ClassVar[str] = "sets"


def entry(cls: type, kind: str = "model") -> Entry:
    return Entry(kind, cls.name, cls, "zoo-test", "1.0")  # type: ignore[attr-defined]


def test_a_dataclass_is_its_schema_with_a_name_and_help_kept() -> None:
    node = OmegaConf.structured(config.schema(entry(Painter)))
    assert list(node) == ["name", "needed", "colour", "widths", "named", "limit"]
    assert (node.name, node.colour, node.widths, node.limit) == ("painter", Colour.red, [1, 2], None)
    assert OmegaConf.is_missing(node, "needed")
    node.colour = "blue"
    assert node.colour is Colour.blue
    meanings = {item.name: item.metadata.get("help") for item in dataclasses.fields(config.TrainerOptions)}
    assert all(meanings.values())


def test_a_task_brings_its_default_dataset() -> None:
    made = config.schema(registry().find("task", "image_classification"))
    assert OmegaConf.structured(made).defaults == [{"override /dataset@_global_.dataset": "mnist5k"}, "_self_"]


def test_types_come_from_the_module_that_names_them_and_class_variables_are_not_looked_at() -> None:
    assert config.field_types(Painter) == {
        "needed": str,
        "colour": Colour,
        "widths": list[int],
        "named": dict[str, float],
        "limit": float | None,
    }
    inherited = dataclasses.make_dataclass("Derived", [("extra", int, 0)], bases=(Painter,), kw_only=True)
    assert list(config.field_types(inherited)) == ["needed", "colour", "widths", "named", "limit", "extra"]


def test_a_type_that_is_imported_for_type_checking_only_is_refused_with_the_way_out() -> None:
    with pytest.raises(PluginError, match=r"test_config\.Priced\.price: its type cannot be read \(name 'Decimal'"):
        config.field_types(Priced)


def test_a_type_that_no_config_can_hold_is_the_plugins_fault() -> None:
    with pytest.raises(PluginError, match=r"^zoo-test: the options of model 'sets' cannot be configured: "):
        config.schema(entry(Sets))


def test_what_the_user_says_wins_over_the_recipe_and_the_recipe_over_the_default() -> None:
    recipe = {"epochs": 3, "optimizer": "sgd", "schedule": Schedule.cosine, "learning_rate": 0.5}
    made = config.decide(TrainerOptions(learning_rate=0.25, precision=Precision.fp32), recipe)
    assert (made.learning_rate, made.epochs, made.optimizer, made.schedule) == (0.25, 3, Optimizer.sgd, Schedule.cosine)
    assert (made.batch_size, made.precision) == (config.Trainer().batch_size, Precision.fp32)
    assert config.decide(TrainerOptions(), {}) == config.Trainer()


@pytest.mark.parametrize(
    ("examples", "options", "epochs", "patience"),
    [
        (300, {}, 100, 30),  # 5 steps an epoch: ten times the epochs, and of the patience
        (301, {"batch_size": 7}, 12, 4),  # 43 steps an epoch, 11.6 of which are 500
        (3200, {}, 10, 3),  # 50 steps an epoch are 500 just so
        (300, {"patience": 2}, 100, 2),
        (300, {"epochs": 4}, 4, 3),
        (300, {"steps": 20}, 10, 3),
        (300, {"seconds": 5.0}, 10, 3),
    ],
)
def test_a_small_training_split_is_gone_through_until_there_are_enough_steps(
    examples: int, options: dict[str, Any], epochs: int, patience: int
) -> None:
    recipe = {"epochs": 10, "patience": 3, "batch_size": 64, "min_steps": 500}
    made = config.decide(TrainerOptions(**options), recipe, examples)
    assert (made.epochs, made.patience) == (epochs, patience)
    assert config.decide(TrainerOptions(**options), recipe).epochs in (10, options.get("epochs"))


def test_a_recipe_of_something_else_is_refused() -> None:
    with pytest.raises(PluginError, match=r"this one has batchsize, device\."):
        config.decide(TrainerOptions(), {"epochs": 1, "batchsize": 3, "device": "cpu"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "trainer.epochs=0: it must be a number above 0, or null."),
        ({"epochs": float("inf")}, "trainer.epochs=inf: it must be finite: a number above 0, or null."),
        ({"learning_rate": float("nan")}, "trainer.learning_rate=nan: it must be finite: a number above 0, or null."),
        ({"batch_size": -1}, "trainer.batch_size=-1: it must be a whole number of 1 or more, or null."),
        ({"steps": 0}, "trainer.steps=0: it must be a whole number of 1 or more, or null."),
        ({"seconds": -0.5}, "trainer.seconds=-0.5: it must be a number above 0, or null."),
        ({"threads": 0}, "trainer.threads=0: it must be a whole number of 1 or more, or null."),
        ({"clip": -1.0}, "trainer.clip=-1.0: it must be a number of 0 or more, or null."),
        ({"warmup": 1.0}, "trainer.warmup=1.0: it must be a number from 0 to below 1, or null."),
        ({"resident_mib": -1}, "trainer.resident_mib=-1: it must be a whole number of 0 or more."),
    ],
)
def test_options_out_of_range_are_refused(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config.decide(TrainerOptions(**options), {})
    assert str(refused.value) == message


@pytest.fixture
def compose() -> Iterator[Any]:
    """Hydra's own composition, with the schemas registered as the command registers them."""
    config.register(registry())
    with hydra.initialize_config_dir(str(config.conf_dir()), version_base="1.3"):

        def composed(*overrides: str) -> DictConfig:
            return hydra.compose("run", list(overrides))

        yield composed


def test_objects_come_out_of_the_composed_config(compose: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    made = config.typed(compose("model=mlp", "model.hidden=[3]", "seed=4", "runs_dir='~/kept'"), registry(), "my_mlp")
    assert made.model.name == "mlp"
    assert made.model.hidden == [3]  # type: ignore[union-attr]
    assert (made.dataset.name, made.task.name, made.label) == ("rotten_tomatoes", "sentiment", "my_mlp")
    assert (made.seed, made.runs_dir, made.trainer) == (4, Path("/home/me/kept"), TrainerOptions())


@pytest.mark.parametrize("word", ["none", "default", "graphs", "auto"])
def test_the_words_of_compile_mean_themselves_on_the_command_line_and_in_yaml(compose: Any, word: str) -> None:
    assert compose("model=mlp", f"trainer.compile={word}").trainer.compile.value == word
    written = OmegaConf.merge(OmegaConf.structured(TrainerOptions), OmegaConf.create(f"compile: {word}"))
    assert written.compile is config.Compile(word)
    assert config.plain(config.decide(TrainerOptions(compile=written.compile), {}))["compile"] == word


def test_yaml_of_0_1_is_told_the_words_of_compile(compose: Any) -> None:
    with pytest.raises(ValidationError, match=r"'True', expected one of \[none, default, graphs, auto\]"):
        OmegaConf.merge(OmegaConf.structured(TrainerOptions), OmegaConf.create("compile: true"))


def test_the_dataset_that_is_named_wins_over_the_tasks(compose: Any) -> None:
    assert compose("model=mlp", "task=image_classification").dataset.name == "mnist5k"
    assert compose("model=mlp", "task=image_classification", "dataset=digits").dataset.name == "digits"
    assert compose("model=mlp", "dataset=digits", "task=image_classification").dataset.name == "digits"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=-1"], "seed=-1: it must be a whole number from 0 to 4294967295."),
        (["seed=4294967296"], "seed=4294967296: it must be a whole number from 0 to 4294967295."),
        (
            ["seed=2", "replicas=4294967295"],
            "replicas=4294967295: it must be at most 4294967294: the last seed is 4294967295.",
        ),
        (["probe=-1"], "probe=-1: it must be a whole number of 0 or more."),
        (["model.features=${nope}"], "model.features: Interpolation key 'nope' not found."),
        (["model.features=???"], "model.features: Structured config of type `MLPOptions` has missing mandatory value"),
    ],
)
def test_values_that_cannot_be_are_refused(compose: Any, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config.typed(compose("model=mlp", *overrides), registry())
    assert str(refused.value).startswith(message)


def test_the_experiments_compose_to_the_recipes_they_are_named_for(compose: Any) -> None:
    dense = compose("experiment=mnist_dense")
    assert (dense.model.name, dense.model.hidden, dense.model.dropout) == ("mlp", [128], 0.0)
    assert (dense.dataset.name, dense.task.name) == ("mnist5k", "image_classification")
    assert (dense.trainer.optimizer, dense.trainer.epochs) == (Optimizer.adam, 5)
    text = compose("experiment=text_mlp_768", "trainer.epochs=2")
    assert (text.model.features, text.model.hidden, text.model.dropout) == ("sentence", [256, 128], 0.5)
    assert (text.dataset.name, text.task.name) == ("rotten_tomatoes", "sentiment")
    assert (text.trainer.learning_rate, text.trainer.batch_size, text.trainer.epochs) == (1e-3, 64, 2)
    for composed in (dense, text):
        config.typed(composed, registry())


def test_every_installed_part_has_a_schema(compose: Any) -> None:
    for kind in ("model", "dataset", "task"):
        for name in registry().entries[kind]:
            chosen = compose(*{"model": "model=mlp", kind: f"{kind}={name}"}.values())
            assert chosen[kind].name == name


def plugin_yaml(root: Path, package: str, *files: str) -> Plugin:
    """A package of YAML as a plugin ships it."""
    for file in ("__init__.py", *files):
        path = root / package / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    importlib.invalidate_caches()
    return Plugin(f"zoo-{package}", "1.0", package, package)


def with_plugins(*plugins: Plugin) -> Registry:
    core = registry()
    return Registry(core.entries, (*core.plugins, *plugins), (), core.manager)


def test_yaml_of_plugins_is_found_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    plugin = plugin_yaml(tmp_path, "yaml_of_one", "model/tall.yaml", "experiment/mine.yaml", "__pycache__/model/x.yaml")
    together = with_plugins(plugin)
    config.check_yaml(together)
    assert config.variants(together, "model") == ["tall"]
    assert config.variants(together, "experiment") == ["mine", "mnist_dense", "text_mlp_768"]


@pytest.mark.parametrize(
    ("file", "owner"), [("experiment/mnist_dense.yaml", "zoo-harness"), ("model/mlp.yaml", "zoo-mlp")]
)
def test_yaml_over_what_the_core_or_a_class_has_is_a_collision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, owner: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    plugin = plugin_yaml(tmp_path, f"yaml_over_{owner.replace('-', '_')}", file)
    with pytest.raises(NameCollision) as refused:
        config.check_yaml(with_plugins(plugin))
    assert f"stands twice: in {owner} and in {plugin.distribution}." in str(refused.value)


def test_yaml_that_is_not_there_is_the_plugins_fault() -> None:
    with pytest.raises(PluginError, match=r"^zoo-x: its config package 'no_such_conf' cannot be imported"):
        config.check_yaml(with_plugins(Plugin("zoo-x", "1.0", "x", "no_such_conf")))


def test_plain_gives_what_json_knows() -> None:
    @dataclass
    class Inner:
        path: Path
        many: tuple[Colour, ...]

    given = {"inner": Inner(Path("a"), (Colour.red,)), 3: None, "flag": True, "odd": 1j}
    assert config.plain(given) == {
        "inner": {"path": "a", "many": ["r"]},
        "3": None,
        "flag": True,
        "odd": "1j",
    }
    model = registry().find("model", "majority").cls()
    assert config.plain(model) == {"name": "majority"}


def test_what_a_run_recorded_becomes_the_same_model_again() -> None:
    installed = registry()
    for name, more in (("mlp", {"hidden": [7], "dropout": 0.25}), ("linear", {"C": [0.5]})):
        made = installed.find("model", name).cls(**more)
        assert config.from_record("model", config.plain(made), installed) == made
    with pytest.raises(ConfigError, match="recorded options of model 'mlp' are not those of the installed zoo-mlp"):
        config.from_record("model", {"name": "mlp", "hiden": [7]}, installed)
    with pytest.raises(UnknownName, match="Did you mean 'mlp'"):
        config.from_record("model", {"name": "mlpp"}, installed)


@dataclass
class Learner(zoo.Predictor):
    """Keeps what it learned beside its options, in fields of types that no config holds."""

    rate: float = zoo.option(0.5, "how fast it learns", gt=0)
    learned: torch.Tensor | None = field(init=False, default=None)

    name: ClassVar[str] = "learner"
    modalities: ClassVar[frozenset[zoo.Modality]] = frozenset({"text"})

    def fit(self, train: Any, validation: Any, seed: int) -> None:
        self.learned = seed  # type: ignore[assignment]

    def predict_proba(self, examples: Any) -> Any:
        raise NotImplementedError


def test_what_a_model_learns_is_none_of_its_options() -> None:
    assert list(OmegaConf.structured(config.schema(entry(Learner)))) == ["name", "rate"]
    installed = with_plugins()
    together = dataclasses.replace(installed, entries={"model": {"learner": entry(Learner)}})
    made = config.from_record("model", {"name": "learner", "rate": 2.0}, together)
    before = config.plain(made)
    made.fit(None, None, 1)
    assert config.plain(made) == before == {"name": "learner", "rate": 2.0}
