"""The same question asked in a new interpreter with another hash seed: is the import light, is the answer the same?

`python -m zoo.testing.fresh imports MODULE` and the like; the answer is the last line of its output, as JSON.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from zoo.testing.findings import Unavailable

if TYPE_CHECKING:
    from zoo.models import Encoded

FRAMEWORKS = ("torch", "transformers", "tensorflow", "jax")
HEAVY = (*FRAMEWORKS, "sklearn", "scipy", "pandas", "pyarrow", "matplotlib")
TIMEOUT = 300.0  # seconds
_MARK = "zoo-fresh:"


@functools.cache
def imports(module: str) -> tuple[str, ...]:
    """Names out of HEAVY that importing `module` brings. Raises Unavailable when it cannot be imported by name."""
    _require_importable(module)
    return tuple(_ask("imports", module))


def encoder_digests(cls: type[Any], options: Mapping[str, Any]) -> dict[str, str]:
    """Case label -> hash of the encoder's key and of what it encodes. Raises Unavailable."""
    return dict(_ask("encoders", _address(cls), _as_json(options)))


def dataset_fingerprint(cls: type[Any], options: Mapping[str, Any]) -> str:
    """The fingerprint of the loaded dataset. Raises Unavailable."""
    return str(_ask("dataset", _address(cls), _as_json(options)))


def digest(key: str, encoded: Encoded) -> str:
    """Hash over an encoder's key and its result."""
    from zoo.models import Tokens

    state = hashlib.sha256(key.encode())
    for array in (encoded.ids, encoded.offsets) if isinstance(encoded, Tokens) else (encoded.values,):
        # Floats from a frozen network may differ in the last bits from one process to the next: only the shape counts.
        state.update(repr(array.shape).encode() if array.dtype.kind == "f" else array.tobytes())
    return state.hexdigest()


def _address(cls: type[Any]) -> str:
    _require_importable(cls.__module__)
    if "<locals>" in cls.__qualname__:
        raise Unavailable(f"{cls.__qualname__} is made inside of a function, where another process cannot find it")
    return f"{cls.__module__}:{cls.__qualname__}"


def _require_importable(module: str) -> None:
    """A test file may import what it likes, and need not be importable; a plugin's module is another thing."""
    if module == "__main__" or module.rpartition(".")[2].startswith("test_"):
        raise Unavailable(f"the class stands in {module}; only a module of a plugin is imported in a new interpreter")


def _as_json(options: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(options))
    except TypeError as error:
        raise Unavailable(f"the options cannot be handed to another process ({error})") from error


def _ask(*question: str) -> Any:
    # PYTHONHASHSEED differs from the default (random) of this process with near certainty, whatever this one has.
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
    command = [sys.executable, "-m", "zoo.testing.fresh", *question]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"a new interpreter gave no answer within {TIMEOUT:.0f} s") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise Unavailable(f"it cannot be repeated in a new interpreter ({last})")
    return json.loads(lines[-1].removeprefix(_MARK))


def _resolve(address: str) -> type[Any]:
    module, _, path = address.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return cast("type[Any]", found)


def _imports(module: str) -> list[str]:
    before = set(sys.modules)
    importlib.import_module(module)
    return [name for name in HEAVY if name in sys.modules and name not in before]


def _encoders(address: str, options: str) -> dict[str, str]:
    from zoo.testing.synthetic import cases_of, probe_split, train_split

    cls = _resolve(address)
    digests = {}
    for case in cases_of(cls.modalities):
        encoder = cls(**json.loads(options)).encoder(train_split(case))
        digests[case.label] = digest(encoder.key, encoder.encode(probe_split(case).examples))
    return digests


def _dataset(address: str, options: str) -> str:
    from zoo.data import load

    return load(_resolve(address)(**json.loads(options))).fingerprint


if __name__ == "__main__":
    questions: Mapping[str, Callable[..., Any]] = {"imports": _imports, "encoders": _encoders, "dataset": _dataset}
    answer = questions[sys.argv[1]](*sys.argv[2:])
    print(_MARK + json.dumps(answer))
