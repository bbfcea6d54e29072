"""A measuring process: `python -m zoo.benchmark.worker PID`. It gets a job, then orders, and answers each with a line.

Lines are JSON. The first order says what to measure; then come `search` (or `adopt` with what another process found),
`turn` (with its number) and `close`. It ends when its input ends, and on Linux at once when its caller, PID, is gone:
then it measures for nobody.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, TextIO

from zoo import interrupts
from zoo.errors import ZooError

PRODUCT = "product"
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


def main() -> None:
    """Answer orders until the input ends. Ctrl-C ends it too; what a plugin raises is an answer, whatever it is."""
    _end_with_caller(int(sys.argv[1]))
    orders, answers = _own_streams()
    with interrupts.remembered():
        _answer(orders, answers)


def _answer(orders: TextIO, answers: TextIO) -> None:
    measuring: Any = None
    for line in orders:
        order = json.loads(line)
        try:
            if measuring is None:
                measuring = prepare(order)
                told = measuring.facts()
            elif order["do"] == "turn":
                told = measuring.turn(order["number"])
            elif order["do"] == "adopt":
                told = measuring.adopt(order["search"])
            else:
                told = {"search": measuring.search, "close": measuring.close}[order["do"]]()
        except BaseException as caught:
            error = interrupts.not_users(caught)
            traceback.print_exc()
            told = {"error": _in_words(error), "exit_code": getattr(error, "exit_code", 1)}
        answers.write(json.dumps(told) + "\n")
        answers.flush()


def prepare(job: dict[str, Any]) -> Any:
    """What the job says is to be measured: the device's matrix product, or the run in a folder."""
    # A plugin's warnings would come once a process, and the one who reads them is told what fails anyway.
    warnings.simplefilter("ignore")
    if job["what"] == PRODUCT:
        from zoo.benchmark.product import MatrixProduct

        return MatrixProduct(job)
    from zoo.benchmark import restoring
    from zoo.benchmark.subjects import Measuring, Module, Opaque
    from zoo.benchmark.timing import Memory
    from zoo.data import reach
    from zoo.models import TorchModel

    device = restoring.place(job)
    with reach.allowing(job.get("data", "auto")):
        stored = restoring.load(Path(job["folder"]), job["sample"])
    kind = Module if isinstance(stored.model, TorchModel) else Opaque
    _warm_up("cpu" if kind is Opaque else device.type)
    memory = Memory()
    return Measuring(kind(stored, job, memory), memory)


def _warm_up(device: str) -> None:
    """What measuring takes is no memory of the model's: libraries are imported, and torch has computed once before,
    for which it loads much on a GPU."""
    import torch

    from zoo.engine.flops import multiply_adds

    for name in ("safetensors.torch", "zoo.engine.batches", "zoo.engine.evaluation"):
        importlib.import_module(name)
    multiply_adds(torch.nn.Conv1d(8, 8, 3), [(torch.ones(2, 8, 8),)])
    with torch.inference_mode():
        torch.nn.Linear(256, 256, device=device)(torch.ones(256, 256, device=device)).relu_().softmax(1).cpu()


def _in_words(error: BaseException) -> str:
    return str(error) if isinstance(error, ZooError) else f"{type(error).__name__}: {error}"


def _end_with_caller(caller: int) -> None:
    """Ask Linux for a signal when the caller dies: in the middle of a long fit nothing is read."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != caller:  # it died before it was asked
        sys.exit(1)


def _own_streams() -> tuple[TextIO, TextIO]:
    """The two ends of the pipe, out of reach of whatever a plugin prints or reads."""
    orders, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    return orders, answers


if __name__ == "__main__":
    main()
