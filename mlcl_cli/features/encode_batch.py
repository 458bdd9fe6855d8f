"""How many images or captions are encoded at once."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from mlcl_cli.errors import MachineError, is_out_of_memory

logger = logging.getLogger(__name__)


class EncodeBatch:
    """Encodes at most `size` inputs at once, and fewer once memory has run out."""

    def __init__(self, size: int) -> None:
        self.size = size

    def encode(self, function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Features (N, d) of inputs (N, ...), N > 0. Raises MachineError if a single input does not fit into memory."""
        features: list[Tensor] = []
        done = 0
        while done < len(inputs):
            batch = inputs[done : done + self.size]
            encoded = _try_encode(function, batch)
            if encoded is None:
                self._halve(len(batch))
            else:
                features.append(encoded)
                done += len(batch)
        return features[0] if len(features) == 1 else torch.cat(features)

    def _halve(self, failed: int) -> None:
        if failed == 1:
            raise MachineError(
                "out of memory while encoding a single image or caption",
                remedy="Free memory on the device, or choose a smaller clip.model",
            )
        self.size = failed // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        logger.warning(
            f"Out of memory while encoding {failed:,} at once: trying {self.size:,}. "
            f"Set clip.encode_batch: {self.size} to start with that"
        )


def _try_encode(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor | None:
    """None if memory runs out. Catching it here frees the tensors that the traceback holds."""
    try:
        return function(inputs)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
