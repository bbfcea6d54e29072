"""Overrides: short forms, refusals, and mistakes that Hydra finds told in plain words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given
from hypothesis import strategies as st

from zoo import arguments, bench, overrides, report
from zoo.config import base_of
from zoo.errors import ConfigError, Incompatible, UnknownName
from zoo.plugins import Registry, registry


@pytest.fixture(scope="module")
def installed() -> Registry:
    return registry()


@pytest.mark.parametrize(
    ("typed", "expanded"),
    [
        ("model=mlp hidden=[3]", "model=mlp model.hidden=[3]"),
        ("model=mlp epochs=3", "model=mlp trainer.epochs=3"),
        ("model=linear dataset=table path=a.csv", "model=linear dataset=table dataset.path=a.csv"),
        ("dataset=table label=stars text=review", "dataset=table dataset.label=stars dataset.text=review"),
        ("-m model=mlp,cnn dropout=0,.5 seed=1,2", "-m seed=1,2 model=mlp,cnn model.dropout=0,.5"),
        ("model=mlp --cfg job seed=1", "seed=1 model=mlp --cfg job"),
        ("seed=1", "seed=1"),
        ("dropout=.1 model=mlp", "model.dropout=.1 model=mlp"),
        ("model=mlp trainer.epochs=1 model.hidden=[]", "model=mlp trainer.epochs=1 model.hidden=[]"),
        ("model=mlp rerun=true probe=0 runs_dir=kept", "model=mlp rerun=true probe=0 runs_dir=kept"),
        ("model=mlp --cfg job -p model", "model=mlp --cfg job -p model"),
        ("hydra/launcher=joblib hydra.launcher.n_jobs=2", "hydra/launcher=joblib hydra.launcher.n_jobs=2"),
        ("model=mlp +hydra.x=1 hydra=y", "model=mlp +hydra.x=1 hydra=y"),
        ("experiment=mnist_dense hidden=[64]", "experiment=mnist_dense model.hidden=[64]"),
        ("model=mlp compile=auto", "model=mlp trainer.compile=auto"),
        ("model=mlp trainer.compile=true", "model=mlp trainer.compile=default"),
        ("-m model=mlp compile=False,true,graphs", "-m model=mlp trainer.compile=none,default,graphs"),
        ("model=choice(mlp,cnn)", "model=choice(mlp,cnn)"),
        ("", ""),
    ],
)  # fmt: skip
def test_short_forms(installed: Registry, typed: str, expanded: str) -> None:
    assert overrides.expand(typed.split(), installed) == expanded.split()


def test_the_home_folder_is_put_in(installed: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert overrides.expand(["runs_dir=~/kept"], installed) == ["runs_dir=/home/me/kept"]
    assert overrides.expand(["runs_dir=a~b"], installed) == ['runs_dir="a~b"']


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("model=mlp hiden=[3]", "No option 'hiden'. Did you mean 'hidden'? All options: python -m zoo.run --help"),
        ("model=linear hidden=[3]", "No option 'hidden'."),
        ("model=mlp seed", "'seed' has no value. Write seed=value, e.g. model=bert."),
        ("model", "'model' has no value. Write model=value"),
        ("model=mlp +x=1", "'+x=1': options are neither added nor removed, since nothing would read them."),
        ("model=mlp ++seed=1", "'++seed=1': options are neither added nor removed"),
        ("model=mlp ~trainer.epochs", "'~trainer.epochs': options are neither added nor removed"),
        ("=3", "'=3' is not an override. Write name=value, e.g. model=bert"),
        ("model=mlp hidden[0]=3", "'hidden[0]=3' is not an override."),
        ("model=", "'model=': a model is chosen by its name, several with -m and commas, as in -m model=a,b"),
        ("dataset=[digits,imdb]", "'dataset=[digits,imdb]': a dataset is chosen by its name"),
        ("trainer=3", "'trainer=3': a trainer is chosen by its name"),
        ("task=null", "'task=null': null is no task. Name one, or leave task= out."),
        ("experiment=null", "'experiment=null': null is no experiment."),
        ("model=mlp model.name=cnn", "'model.name=cnn': a name is no option. Write model=cnn"),
        ("runs_dir=", "'runs_dir=' has no value. Write a folder, e.g. runs_dir=runs"),
        ("-m reports_dir=", "'reports_dir=' has no value. Write a folder, e.g. reports_dir=reports"),
        ("runs_dir=''", "'runs_dir=' has no value."),
        ("--multrun", "There is no flag '--multrun'. Did you mean '--multirun'? Options have no dashes: seed=1."),
        ("model=mlp --seed=3", "There is no flag '--seed'."),
    ],
)  # fmt: skip
def test_refusals(installed: Registry, typed: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        overrides.expand(typed.split(), installed)
    assert str(refused.value).startswith(message)
    assert len(str(refused.value).splitlines()) <= 4


def test_a_name_that_two_parts_have_is_not_guessed(installed: Registry) -> None:
    with pytest.raises(ConfigError, match=r"more than one part\. Write dataset\.size=8 or model\.size=8\."):
        overrides._short_form("size", "=8", {"size": {"model", "dataset"}}, installed)


@pytest.mark.parametrize(
    ("arguments", "kind", "names"),
    [
        (["model=cnn,mlp"], "model", ["cnn", "mlp"]),
        ([], "task", ["sentiment"]),
        ([], "dataset", ["rotten_tomatoes"]),
        (["task=image_classification"], "dataset", ["mnist5k"]),
        (["task=image_classification,sentiment"], "dataset", ["mnist5k", "rotten_tomatoes"]),
        (["task=sentiment", "dataset=table"], "dataset", ["table"]),
    ],
)
def test_what_is_chosen(installed: Registry, arguments: list[str], kind: str, names: list[str]) -> None:
    assert [entry.name for entry in overrides.chosen(arguments, kind, installed)] == names


def test_what_is_chosen_may_be_any_when_a_name_is_not_registered(installed: Registry) -> None:
    everything = list(installed.entries["model"].values())
    assert overrides.chosen(["model=a_yaml_variant"], "model", installed) == everything
    assert overrides.chosen([], "model", installed) == everything


@pytest.mark.parametrize(
    "value",
    [";", "it's.csv", 'a"b', "reviews (1).csv", "a\\", 'a\\"b', "50%", "a=b\nc.csv", "#1", "{split}.csv", "[1] x", "("],
)
def test_values_with_special_characters_need_no_second_quoting(installed: Registry, value: str) -> None:
    (expanded,) = overrides.expand([f"dataset.path={value}"], installed)
    assert OverridesParser.create().parse_override(expanded).value() == value


@given(value=st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_value_can_be_read(value: str) -> None:
    assume("$" not in value)  # a reference to another value stays one between quotes
    (expanded,) = overrides.expand([f"dataset.path={value}"], registry())
    read = OverridesParser.create().parse_override(expanded)
    assert read.key_or_group == "dataset.path"
    if expanded != f"dataset.path={value}":
        assert read.value() == value


def test_an_error_that_is_none_of_the_known_is_given_in_its_own_words(installed: Registry) -> None:
    from hydra.errors import HydraException

    told = overrides.explain(HydraException("Something new.\n\nWith details."), [], installed)
    assert isinstance(told, ConfigError)
    assert str(told) == "Something new."


def test_an_error_of_ours_comes_out_of_hydras_wrapping_as_it_was(installed: Registry) -> None:
    from hydra.errors import HydraException

    ours = UnknownName("No model 'x'.")
    wrapped = HydraException("Error in callback")
    wrapped.__cause__ = RuntimeError("in between")
    wrapped.__cause__.__cause__ = ours
    assert overrides.explain(wrapped, [], installed) is ours
    with pytest.raises(UnknownName), overrides.plain_errors([], installed):
        raise wrapped


def test_other_errors_are_not_touched(installed: Registry) -> None:
    with pytest.raises(ZeroDivisionError), overrides.plain_errors([], installed):
        raise ZeroDivisionError


def test_modalities_are_compared_before_anything_is_read(installed: Registry) -> None:
    from zoo.config import RunConfig, TrainerOptions

    made = {kind: {name: entry.cls for name, entry in named.items()} for kind, named in installed.entries.items()}

    def config(model: str, dataset: str, task: str) -> RunConfig:
        parts = made["model"][model](), made["dataset"][dataset](), made["task"][task]()
        return RunConfig(*parts, trainer=TrainerOptions(), label=model)

    overrides.check_fit(config("mlp", "digits", "image_classification"))
    with pytest.raises(
        Incompatible, match=r"^Model 'bert' takes text, and task 'image_classification' is about images\."
    ):
        overrides.check_fit(config("bert", "digits", "image_classification"))
    with pytest.raises(Incompatible, match=r"^Task 'sentiment' is about texts, and dataset 'digits' holds images\."):
        overrides.check_fit(config("mlp", "digits", "sentiment"))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("model=mlp model=linear", "'model' is given twice: model=mlp and model=linear. Write it once. To run both"),
        ("-m model=mlp seed=1 seed=2", "'seed' is given twice: seed=1 and seed=2. Write it once."),
        ("model=mlp dropout=.1 model.dropout=.2", "'model.dropout' is given twice: dropout=.1 and model.dropout=.2."),
        ("model=mlp trainer.epochs=1 task=sentiment epochs=2", "'trainer.epochs' is given twice"),
        ("model=mlp runs_dir=a runs_dir=b", "'runs_dir' is given twice: runs_dir=a and runs_dir=b."),
        ("model=mlp +hydra.x=1 hydra.x=2", "'hydra.x' is given twice: +hydra.x=1 and hydra.x=2."),
        ("model=mlp model=mlp", "'model' is given twice: model=mlp and model=mlp. Write it once."),
    ],
)  # fmt: skip
def test_an_option_given_twice_is_refused_with_both_values(installed: Registry, typed: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        overrides.expand(typed.split(), installed)
    assert str(refused.value).startswith(message)


def test_a_sweep_may_be_asked_for_anywhere_among_the_words() -> None:
    for words in (
        "-m model=a seed=1",
        "model=a -m seed=1",
        "model=a seed=1 --multirun",
        "model=a seed=1 hydra.mode=MULTIRUN",
    ):
        assert overrides.is_sweep(words.split())
    assert not overrides.is_sweep(["model=a", "-p", "model", "--cfg", "job"])
    assert overrides.parted(["model=a", "--cfg", "job", "seed=1", "-m", "x=2"]) == (
        ["model=a", "seed=1", "x=2"],
        ["--cfg", "job", "-m"],
    )
    with pytest.raises(ConfigError, match=r"^-m runs every cell of a sweep"):
        overrides.is_sweep(["-m", "model=a", "--run"])


@pytest.mark.parametrize(
    ("words", "kind", "names"),
    [
        ("-m model=mlp,linear model.dropout=.2", "model", {"dropout"}),
        ("-m model=mlp,transformer model.dropout=.2", "model", set()),
        ("-m model=linear,majority model.dropout=.2", "model", set()),
        ("-m model=choice(mlp,linear) model.dropout=.2,.3 model.absent=1", "model", {"dropout"}),
        ("-m model=mlp dataset=digits,table dataset.path=a.csv", "dataset", {"path"}),
        ("-m model=mlp task=image_classification,sentiment dataset.path=a.csv", "dataset", set()),
        ("-m experiment=mnist_dense,text_mlp_768 model.hidden=[3]", "model", set()),
        ("model=mlp model.dropout=.2", "model", set()),
    ],
)
def test_options_that_only_some_of_the_swept_have(installed: Registry, words: str, kind: str, names: set[str]) -> None:
    assert overrides.foreign(words.split(), installed).get(kind, set()) == names


@pytest.mark.parametrize(
    "value",
    [
        "0.2",
        "[3,4]",
        "{a:1}",
        "null",
        "true",
        "a b",
        "'x,y'",
        '"it\'s"',
        "reviews (1).csv",
        "a:b",
        "",
        "50%",
        "x/y.z",
        "a\\",
    ],
)
def test_a_value_of_a_sweep_becomes_a_list_of_one(installed: Registry, value: str) -> None:
    parser = OverridesParser.create()
    (given,) = overrides.expand([f"dataset.path={value}"], installed)
    (listed,) = overrides.for_each_cell([given])
    wrapped = parser.parse_override(listed)
    assert wrapped.is_sweep_override()
    value_of_a_cell = parser.parse_override(given).value()
    assert list(wrapped.sweep_iterator()) == ["${oc.decode:null}" if value_of_a_cell is None else value_of_a_cell]


def test_lists_groups_and_other_options_stay_as_they_are() -> None:
    words = ["model=mlp", "model.dropout=1,2", "model.dropout=choice(1,2)", "trainer.epochs=1", "seed=1", "hydra.a=b"]
    assert overrides.for_each_cell(words) == words


def test_the_cells_of_a_sweep() -> None:
    assert overrides.cells(["seed=0,1", "model=a,b", "x=3"]) == [
        [f"seed={seed}", f"model={model}", "x=3"] for seed in (0, 1) for model in "ab"
    ]
    assert overrides.cells(["model=glob(*)"]) is None
    assert overrides.cells(["model=a,b", "hydra/sweeper=other"]) is None


def test_an_option_of_none_that_is_chosen_names_those_that_have_it(installed: Registry) -> None:
    with pytest.raises(ConfigError, match=r"^No option 'hidden'\. It is an option of model bert, mlp\."):
        overrides.expand(["-m", "model=cnn,linear", "hidden=[3]"], installed)


@pytest.mark.parametrize(("dataset", "option", "has"), [("image_folder", "path", "root"), ("table", "root", "path")])
def test_what_another_dataset_calls_otherwise_is_answered_with_what_the_chosen_one_has(
    installed: Registry, dataset: str, option: str, has: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        overrides.expand(["model=linear", f"dataset={dataset}", f"{option}=photos"], installed)
    assert "Did you mean" not in str(caught.value)  # what is spelt alike is something else
    assert has in str(caught.value).partition("The chosen dataset has: ")[2].partition(".")[0].split(", ")


def test_a_variant_has_the_options_of_what_it_builds_on(
    installed: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "model/wide": "defaults: [mlp, _self_]\nhidden: [512]",
        "model/wider": "defaults: [/model/wide, _self_]\nhidden: [1024]",
        "model/round": "defaults: [trip]",
        "model/trip": "defaults: [round]",
        "model/torn": "defaults: [",
        "model/bare": "hidden: [3]",
        "experiment/mine": "defaults: [{override /model: wider}, {override /task: sentiment}]",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(content)
    monkeypatch.setattr("zoo.config.conf_dir", lambda: tmp_path)
    bases = {
        name: base_of(installed, "model", name) for name in ("mlp", "wide", "wider", "round", "torn", "bare", "no")
    }
    assert bases == {"mlp": "mlp", "wide": "mlp", "wider": "mlp", **dict.fromkeys(("round", "torn", "bare", "no"))}
    assert overrides.foreign(["-m", "model=wider,linear", "model.hidden=[3]"], installed)["model"] == {"hidden"}
    assert overrides.foreign(["-m", "model=wider,mlp", "model.hidden=[3]"], installed)["model"] == set()
    chosen = {kind: [entry.name for entry in overrides.chosen(["experiment=mine"], kind, installed)]
              for kind in ("model", "task", "dataset")}  # fmt: skip
    assert chosen == {"model": ["mlp"], "task": ["sentiment"], "dataset": ["rotten_tomatoes"]}


@pytest.mark.parametrize("request_of", [report.Request, bench.Request])
def test_other_commands_refuse_an_option_given_twice_too(request_of: type) -> None:
    name = next(item.name for item in dataclasses.fields(request_of) if item.default.__class__ is str)
    with pytest.raises(ConfigError, match=f"^'{name}' is given twice: {name}=a and {name}=b"):
        arguments.parse([f"{name}=a", f"{name}=b"], request_of)
