"""What a run's tables and tensors look like in memory, and how they become files and come back.

Files are made as bytes in memory or as a stream of chunks; only `zoo.store.disk` writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zoo.store.disk import Chunk
from zoo.store.schema import EXAMPLE_ID, LABEL, LOGITS, PREDICTION, SPLIT

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class PredictionTable:
    """What a model answered on every example.

    splits, ids: n texts; labels, predictions: (n,) int64 class indices; logits: (n, classes) float32.
    Raises ValueError when lengths differ, a class index is out of range, or there are no classes.
    """

    splits: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    logits: np.ndarray

    def __post_init__(self) -> None:
        import numpy as np

        put = object.__setattr__
        put(self, "splits", np.asarray(self.splits, dtype=np.str_))
        put(self, "ids", np.asarray(self.ids, dtype=np.str_))
        put(self, "labels", np.asarray(self.labels, dtype=np.int64))
        put(self, "predictions", np.asarray(self.predictions, dtype=np.int64))
        put(self, "logits", np.ascontiguousarray(self.logits, dtype=np.float32))
        _check(self)

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, split: str) -> PredictionTable:
        """The rows of one split, in their order; none is not an error."""
        return self.rows(self.splits == split)

    def rows(self, rows: np.ndarray) -> PredictionTable:
        """Some rows, in their order. rows: (n,) bool."""
        return PredictionTable(
            self.splits[rows], self.ids[rows], self.labels[rows], self.predictions[rows], self.logits[rows]
        )


def _check(table: PredictionTable) -> None:
    if table.logits.ndim != 2 or table.logits.shape[1] == 0:
        raise ValueError(f"logits are (examples, classes), and these are {table.logits.shape}")
    lengths = {name: len(getattr(table, name)) for name in ("splits", "ids", "labels", "predictions", "logits")}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of a prediction table differ in length: {lengths}")
    for name in ("labels", "predictions"):
        column = getattr(table, name)
        if len(column) and not 0 <= column.min() <= column.max() < table.logits.shape[1]:
            raise ValueError(
                f"{name} run from {column.min()} to {column.max()}, beyond {table.logits.shape[1]} classes"
            )


def predictions_to_bytes(table: PredictionTable) -> memoryview:
    """A Parquet file. The logits are one fixed-size list of float32 a row."""
    import pyarrow as pa

    width = table.logits.shape[1]
    columns = {
        SPLIT: pa.array(table.splits.tolist(), pa.string()),
        EXAMPLE_ID: pa.array(table.ids.tolist(), pa.string()),
        LABEL: pa.array(table.labels),
        PREDICTION: pa.array(table.predictions),
        LOGITS: pa.FixedSizeListArray.from_arrays(pa.array(table.logits.reshape(-1)), width),
    }
    return _parquet(pa.table(columns))


def predictions_from_bytes(content: bytes) -> PredictionTable:
    """The table in a Parquet file. Raises ValueError or an Arrow error (a ValueError or OSError) when it is not one."""
    table = _read_parquet(content)
    logits = table.column(LOGITS).combine_chunks()
    return PredictionTable(
        splits=table.column(SPLIT).to_pylist(),
        ids=table.column(EXAMPLE_ID).to_pylist(),
        labels=table.column(LABEL).to_numpy(),
        predictions=table.column(PREDICTION).to_numpy(),
        logits=logits.flatten().to_numpy(zero_copy_only=False).reshape(len(logits), logits.type.list_size),
    )


def history_to_bytes(rows: Sequence[Mapping[str, Any]]) -> memoryview:
    """A Parquet file with one row an epoch; a column for every name in any row, null where a row has none."""
    import pyarrow as pa

    names = list(dict.fromkeys(name for row in rows for name in row))
    return _parquet(pa.table({name: pa.array([row.get(name) for row in rows]) for name in names}))


def history_from_bytes(content: bytes) -> list[dict[str, Any]]:
    """The rows again. Raises as `predictions_from_bytes`."""
    rows: list[dict[str, Any]] = _read_parquet(content).to_pylist()
    return rows


def _parquet(table: Any) -> memoryview:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return memoryview(sink.getvalue())


def _read_parquet(content: bytes) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(content))


_NUMPY_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}


def tensors_to_chunks(tensors: Mapping[str, np.ndarray | torch.Tensor]) -> Iterator[Chunk]:
    """A safetensors file, one tensor at a time, so that a large model is never held twice.

    Takes numpy arrays and torch tensors on any device; tensors that share memory are stored once each. Raises
    ValueError for a type that the format does not know.
    """
    views = [(name, *_view(name, tensor)) for name, tensor in tensors.items()]
    # The widest types come first, which keeps every tensor aligned to its own size, as the format asks.
    views.sort(key=lambda view: (-view[2].itemsize, view[0]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, kind, view in views:
        header[name] = {"dtype": kind, "shape": list(view.shape), "data_offsets": [end, end + view.nbytes]}
        end += view.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    yield from _contents(view for _, _, view in views)


def _contents(views: Iterable[np.ndarray]) -> Iterator[Chunk]:
    import numpy as np

    for view in views:
        if view.nbytes:
            yield np.ascontiguousarray(view).reshape(-1).view(np.uint8).data


def _view(name: str, tensor: np.ndarray | torch.Tensor) -> tuple[str, np.ndarray]:
    import numpy as np

    kind = None
    if not isinstance(tensor, np.ndarray):
        import torch

        tensor = tensor.detach().cpu()
        if tensor.dtype == torch.bfloat16:  # numpy has no bfloat16; the bits go through as they are
            kind, tensor = "BF16", tensor.contiguous().view(torch.int16)
        tensor = tensor.numpy()
    kind = kind or _NUMPY_NAMES.get(tensor.dtype.name)
    if kind is None:
        raise ValueError(f"tensor '{name}' has type {tensor.dtype}, which a safetensors file cannot hold")
    return kind, tensor.astype(tensor.dtype.newbyteorder("<"), copy=False)


def tensors_from_bytes(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file. Raises ValueError when it is not one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(content))
    except SafetensorError as error:
        raise ValueError(str(error)) from error
