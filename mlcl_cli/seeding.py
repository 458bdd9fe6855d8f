"""Each random draw has its own seed, derived from its purpose, so nothing depends on what was drawn before."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *purpose: object) -> int:
    """A 63-bit seed for `purpose` under the profile's `seed`."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def derive_generator(seed: int, *purpose: object) -> "torch.Generator":
    """A CPU generator with the seed that `derive_seed` gives."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *purpose))
