"""The untuned CLIP that a profile names."""

from pathlib import Path

from torch import nn

from mlcl_cli.models.encoder import Fingerprints
from mlcl_cli.models.weights import load_clip


class BaseClip:
    """`clip.model` before tuned weights replace its own, and the fingerprints that identify it.

    Raises DataError or MachineError if the model cannot be loaded.
    """

    def __init__(self, model: str | Path) -> None:
        self.model = model
        self._network: nn.Module | None = load_clip(model)
        self.fingerprints = Fingerprints.of(self._network.state_dict())

    def take(self) -> nn.Module:
        """The network, which the caller may change. A second call loads it again."""
        network, self._network = self._network, None
        return load_clip(self.model) if network is None else network
