"""The plugin door, with third-party distributions that pip really installed: found, filtered, isolated, refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Shell = Callable[..., subprocess.CompletedProcess[str]]
Installed = Callable[..., Shell]

TORCH = "import sys; assert not {'torch', 'transformers', 'sklearn', 'pyarrow'} & set(sys.modules), set(sys.modules)"


def registry(shell: Shell, expression: str, **env: str) -> object:
    """What an expression over `r = zoo.plugins.registry()` gives in a new interpreter; no framework may be imported."""
    code = f"import json, zoo.plugins\nr = zoo.plugins.registry()\nprint(json.dumps({expression}))\n{TORCH}"
    done = shell("-c", code, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refusal(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The message of a command that ended with `code` and without a traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip()


def test_a_third_party_plugin_is_found_and_its_parts_are_known_by_distribution(installed: Installed) -> None:
    found = registry(
        installed("example"),
        "[[e.kind, e.name, e.version, e.summary] for k in r.entries.values() for e in k.values()"
        " if e.distribution == 'zoo-example']",
    )
    assert found == [
        ["model", "bow", "0.3.0", "The mean of learned word vectors and one linear layer."],
        [
            "dataset",
            "messages",
            "0.3.0",
            "Synthetic short messages, ham or spam: 300 for training, 100 for validation, 200 for the test.",
        ],
        [
            "task",
            "spam_detection",
            "0.3.0",
            "Tell spam from other messages; also reports how much of the spam is found.",
        ],
    ]


def test_broken_plugins_do_not_disturb_the_others_and_are_listed_with_their_reasons(installed: Installed) -> None:
    shell = installed("example", "broken")
    names, broken = registry(shell, "[sorted(r.entries['model']), [[b.entry_point, b.reason] for b in r.broken]]")  # type: ignore[misc]
    assert {"bow", "linear", "mlp"} <= set(names)
    reasons = dict(broken)
    assert reasons["absent"] == "No module named 'a_module_that_nobody_installed'"
    assert "unknown hook 'zoo_model'" in reasons["misspelt"]
    assert reasons["misspelt"].endswith("Did you mean 'zoo_models'?")
    assert reasons["quitting"] == "SystemExit: no licence key"

    listed = shell("-m", "zoo.ls", "plugins")
    assert listed.returncode == 0
    assert "No module named 'a_module_that_nobody_installed'" in listed.stdout

    message = refusal(shell("-m", "zoo.run", "model=bwo", "task=spam_detection"), 2)
    assert message.startswith("No model 'bwo'. Installed: ")
    assert "Did you mean 'bow'? Broken plugins: zoo-broken (No module named" in message


def test_strict_mode_makes_a_broken_plugin_fatal(installed: Installed) -> None:
    shell = installed("example", "broken")
    message = refusal(shell("-m", "zoo.ls", "models", env={"ZOO_STRICT_PLUGINS": "1"}), 1)
    assert "ZOO_STRICT_PLUGINS is set" in message
    assert "zoo-broken: No module named 'a_module_that_nobody_installed'" in message
    assert shell("-m", "zoo.ls", "models", env={"ZOO_STRICT_PLUGINS": "0"}).returncode == 0


@pytest.mark.parametrize("chosen", ["zoo-example", "ZOO_Example, zoo-mlp"])
def test_zoo_plugins_loads_only_what_it_names(installed: Installed, chosen: str) -> None:
    shell = installed("example", "broken", "colliding")
    plugins, broken = registry(
        shell, "[[p.distribution for p in r.plugins], [b.distribution for b in r.broken]]", ZOO_PLUGINS=chosen
    )  # type: ignore[misc]
    assert plugins == ["zoo-harness", "zoo-example"] + ["zoo-mlp"] * ("mlp" in chosen)
    assert broken == []


def test_zoo_plugins_may_name_none(installed: Installed) -> None:
    assert registry(installed("example"), "[p.distribution for p in r.plugins]", ZOO_PLUGINS="") == ["zoo-harness"]


def test_zoo_plugins_that_names_what_is_not_there_is_refused(installed: Installed) -> None:
    message = refusal(installed("example")("-m", "zoo.ls", env={"ZOO_PLUGINS": "zoo-exampel"}), 2)
    assert message.startswith("ZOO_PLUGINS names 'zoo-exampel', which is not installed.")
    assert message.endswith("Did you mean 'zoo-example'?")


@pytest.mark.parametrize("command", ["zoo.ls", "zoo.run", "zoo.check"])
def test_two_distributions_with_one_name_are_refused_and_both_named(installed: Installed, command: str) -> None:
    argument = {"zoo.ls": "models", "zoo.run": "model=bow", "zoo.check": "zoo-example"}[command]
    message = refusal(installed("example", "colliding")("-m", command, argument), 2)
    assert "a model named 'bow': zoo-colliding 0.2.0 and zoo-example 0.3.0" in message
    assert "ZOO_PLUGINS" in message


def test_two_yaml_files_with_one_name_are_refused_and_both_owners_named(installed: Installed) -> None:
    shell = installed("example", "colliding_yaml")
    message = refusal(shell("-m", "zoo.run", "model=bow", "task=spam_detection"), 2)
    assert "'model/bow_wide'" in message
    assert "zoo-example" in message
    assert "zoo-colliding-yaml" in message


def test_a_yaml_variant_of_a_plugin_composes(installed: Installed, tmp_path: Path) -> None:
    shell = installed("example")
    composed = shell("-m", "zoo.run", "model=bow_wide", "task=spam_detection", "--cfg", "job", cwd=tmp_path)
    assert composed.returncode == 0, composed.stderr
    lines = composed.stdout.splitlines()
    assert lines[lines.index("model:") : lines.index("dataset:")] == ["model:", "  name: bow", "  width: 64"]
    assert lines[lines.index("dataset:") + 1] == "  name: messages"

    overridden = shell(
        "-m", "zoo.run", "model=bow_wide", "task=spam_detection", "width=8", "--cfg", "job", cwd=tmp_path
    )
    assert "  width: 8" in overridden.stdout.splitlines()


def test_a_run_with_everything_from_a_plugin_calls_its_observers_and_metrics(
    installed: Installed, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"
    arguments = ("model=bow_wide", "task=spam_detection", "trainer.epochs=2", "trainer.threads=1")
    done = installed("example")("-m", "zoo.run", *arguments, cwd=tmp_path, env={"ZOO_EXAMPLE_DIARY": str(diary)})
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in diary.read_text().splitlines()]
    assert [event["event"] for event in events] == ["started", "epoch", "epoch", "ended"]
    assert events[-1]["status"] == "complete"

    folder = tmp_path / events[-1]["folder"]
    assert folder.parent == tmp_path / "runs" / "spam_detection" / "messages" / "bow_wide"
    scores = json.loads((folder / "metrics.json").read_text())
    assert 0 <= scores["spam_recall"]["value"] <= 1
    assert json.loads((folder / "run.json").read_text())["versions"]["zoo-example"] == "0.3.0"
    assert "spam_recall" in done.stdout


def test_observers_hear_of_a_failed_run_too(installed: Installed, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    done = installed("example", "faulty")(
        "-m",
        "zoo.run",
        "model=exploding",
        "task=spam_detection",
        cwd=tmp_path,
        env={"ZOO_EXAMPLE_DIARY": str(diary)},
    )
    message = refusal(done, 1)
    assert "exploding" in message
    assert "the width is divided by the number of heads, which is 0" in message
    events = [json.loads(line) for line in diary.read_text().splitlines()]
    assert [event.get("status") for event in events if event["event"] == "ended"] == ["failed"]


def test_logits_of_the_wrong_shape_end_the_run_in_plain_words(installed: Installed, tmp_path: Path) -> None:
    done = installed("example", "faulty")("-m", "zoo.run", "model=lopsided", "task=spam_detection", cwd=tmp_path)
    message = refusal(done, 1)
    assert "shape (64, 3)" in message
    assert "(64, 2)" in message


def test_loading_every_plugin_imports_no_framework(installed: Installed) -> None:
    assert len(registry(installed("example", "faulty"), "[p.distribution for p in r.plugins]")) >= 7  # type: ignore[arg-type]
