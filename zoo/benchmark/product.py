"""What the device's matrix product reaches: the measure that a model's utilisation is a share of."""

from __future__ import annotations

import math
from typing import Any

from zoo.benchmark.timing import clock_rate, give_back, seconds_of

SIZES = {"cpu": (256, 512, 1024, 2048), "cuda": (2048, 4096, 8192, 16384)}
LONGEST = 0.5  # seconds of one product: a larger one is not tried
TURN = 0.1  # seconds of a turn


class MatrixProduct:
    """Square products of random matrices in the precision that the models are measured in."""

    def __init__(self, job: dict[str, Any]) -> None:
        from zoo.benchmark.restoring import place

        self.device = place(job)
        self.bf16 = job["precision"] == "bf16"
        self.size, self.times = 0, 1

    def facts(self) -> dict[str, Any]:
        """Of the machine and its software."""
        import platform

        import numpy
        import torch

        from zoo.benchmark.timing import driver
        from zoo.engine.devices import hardware

        known = {name: str(value) for name, value in hardware(self.device).items()}
        versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__}
        if self.device.type == "cuda":
            versions |= {"cuda": str(torch.version.cuda), "fp32_products": torch.get_float32_matmul_precision()}
        return {"hardware": known, "versions": versions, "driver": driver()}

    def search(self) -> dict[str, Any]:
        """Find the size with the best rate."""
        from zoo.engine.evaluation import is_out_of_memory

        best = 0.0
        for size in SIZES[self.device.type]:
            try:
                self._set(size)
                self._multiply()
                taken = min(seconds_of(self._multiply, self.device) for _ in range(3))
            except (RuntimeError, MemoryError) as error:
                if not best or not is_out_of_memory(error):
                    raise
                break
            if size**3 / taken > best:
                best, self.size, self.times = size**3 / taken, size, max(1, math.ceil(TURN / taken))
            if taken > LONGEST:
                break
        self._set(self.size)
        give_back(self.device)
        return {"size": self.size}

    def turn(self, _number: int) -> dict[str, Any]:
        """Multiply-adds a second of one turn."""
        taken = seconds_of(self._multiply_often, self.device)
        return {"rate": self.times * self.size**3 / taken, "clock": clock_rate(self.device)}

    def close(self) -> dict[str, Any]:
        """Nothing is left to tell."""
        return {}

    def _set(self, size: int) -> None:
        import torch

        kind = torch.bfloat16 if self.bf16 else torch.float32
        self._a, self._b = (torch.randn(size, size, device=self.device).to(kind) for _ in range(2))
        self._out = torch.empty(size, size, device=self.device, dtype=kind)

    def _multiply_often(self) -> None:
        for _ in range(self.times):
            self._multiply()

    def _multiply(self) -> None:
        import torch

        torch.mm(self._a, self._b, out=self._out)
