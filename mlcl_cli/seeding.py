"""Every random draw has a seed of its own, derived from what it is for: nothing depends on what was drawn before."""

import hashlib

import torch


def derive_seed(seed: int, *purpose: object) -> int:
    """A 63-bit seed for `purpose` under the profile's `seed`."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def derive_generator(seed: int, *purpose: object) -> torch.Generator:
    """A CPU generator started at `derive_seed` these."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))
