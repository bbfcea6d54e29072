"""What the comparison of one pair of weights takes: two encoders written to disk, compared in a process of its own."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SECONDS_A_PAIR = 60
MOST_MIB = 2048  # two models of 100 million parameters are 800 MiB, and never held at once
THREADS = 2
NOISE = 0.05  # of the second model, as a share of the first one's spread

Shape = Mapping[str, int]


def timed(shape: Shape, kin: bool) -> dict[str, Any]:
    """Seconds and memory for a pair. shape: width, layers and vocabulary of the encoders; kin: whether the second is
    the first plus noise, or has weights of its own, which are harder to match."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = [str(Path(scratch) / name) for name in ("a", "b")]
        write_encoder(Path(folders[0]), shape)
        write_encoder(Path(folders[1]), shape, **({"noise": NOISE} if kin else {"seed": 2}))
        environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "OPENBLAS_NUM_THREADS": str(THREADS)}
        words = [sys.executable, __file__, *folders]
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    parameters = sum(math.prod(own) for own in shapes(shape).values())
    met = row["seconds"] <= SECONDS_A_PAIR and row["peak_memory_mib"] <= MOST_MIB
    pair = "the first plus noise" if kin else "weights of its own"
    return {"second_model": pair, "parameters": parameters, **row, "bar": "met" if met else "MISSED"}


def shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Of the tensors of a BERT."""
    width, wide = shape["width"], 4 * shape["width"]
    found: dict[str, tuple[int, ...]] = {"embeddings.word_embeddings.weight": (shape["vocabulary"], width)}
    parts = {f"attention.self.{name}": (width, width) for name in ("query", "key", "value")}
    parts |= {"attention.output.dense": (width, width), "intermediate.dense": (wide, width)}
    parts |= {"output.dense": (width, wide)}
    for layer in range(shape["layers"]):
        for name, own in parts.items():
            found[f"encoder.layer.{layer}.{name}.weight"] = own
            found[f"encoder.layer.{layer}.{name}.bias"] = own[:1]
    return found


def write_encoder(folder: Path, shape: Shape, noise: float = 0.0, seed: int = 0) -> None:
    """A Hugging Face folder of random weights, the same for a seed, with noise of its own."""
    import torch
    from safetensors.torch import save_file

    base, own = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1)
    tensors = {
        name: (torch.randn(size, generator=base) + torch.randn(size, generator=own) * noise) * 0.02
        for name, size in shapes(shape).items()
    }
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "bert", "hidden_size": shape["width"], "num_attention_heads": 12}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def compare(folders: Sequence[str]) -> dict[str, Any]:
    """Compare two folders once, weights only. peak_memory_mib: of the whole process, imports and all."""
    from zoo.lineage.evidence import examine
    from zoo.lineage.weights import open_weights

    began, worked = time.perf_counter(), time.process_time()
    found = examine(*(open_weights(folder) for folder in folders))
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - worked,
        "threads": THREADS,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "score": None if found.aligned is None else found.aligned.score,
        "pairs": 1,
    }


if __name__ == "__main__":
    print(json.dumps(compare(sys.argv[1:])))
