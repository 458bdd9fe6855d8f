"""The device and the arithmetic that a command runs on."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch

from mlcl_cli.errors import MachineError

DTYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Compute:
    """A device, and the dtype of mixed precision there (None: plain fp32)."""

    device: torch.device
    dtype: torch.dtype | None

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision where it is on."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Where mixed precision is on, a training step's fp32 products run as TF32; ranking never does.

        Logits keep fp32's range and as many digits as fp16 has, at several times the rate of fp32 on a GPU.
        """
        matmul = torch.backends.cuda.matmul
        before = matmul.fp32_precision
        if self.device.type == "cuda" and self.dtype is not None:
            matmul.fp32_precision = "tf32"
        try:
            yield
        finally:
            matmul.fp32_precision = before

    @property
    def precision(self) -> str:
        """fp32, fp16 or bf16."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    @property
    def name(self) -> str:
        """The device's name: "cpu", or the GPU's model."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type

    def __str__(self) -> str:
        return f"{self.name}, {self.precision}"


def choose_compute(device: str, precision: str) -> Compute:
    """Resolves `auto`: CUDA where there is a GPU, mixed precision on CUDA (bf16 where the hardware has it).

    Raises MachineError where CUDA is asked for and absent. Call before any other torch operation: threads inherit
    the flushing of denormals, without which a confident softmax slows CPU products a hundredfold.
    """
    torch.set_flush_denormal(True)
    if device == "cuda" and not torch.cuda.is_available():
        raise MachineError(
            "no CUDA device was found", where="device: cuda", remedy="Set device: auto or cpu, or mend the driver"
        )
    kind = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if precision == "auto" and kind == "cuda":
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return Compute(torch.device(kind), DTYPES.get(precision))


def choose_workers(workers: int | str) -> int:
    """Threads that decode images: as asked, or one for each processor, sixteen at most."""
    return workers if isinstance(workers, int) else min(16, os.cpu_count() or 1)
