"""The combiner, its losses and gradients equal the original implementation's, in fp32."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mlcl_cli.errors import DataError
from mlcl_cli.models.combiner import Combiner, InferenceWeights
from mlcl_cli.models.losses import combiner_logits, combiner_losses, contrastive, finetune_loss

FILES = ["combiner_learned_temperature", "combiner_fixed_temperature"]


def read(path: Path) -> dict[str, Tensor]:
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def part(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def close(actual: Tensor, expected: Tensor) -> None:
    """1e-5 relative; where a sum has cancelled, 1e-6 of the tensor's largest value."""
    largest = float(expected.detach().abs().max())
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6 * max(1.0, largest))


@pytest.mark.parametrize("name", FILES)
def test_logits_losses_and_gradients_equal_the_original(golden: Path, name: str) -> None:
    arrays = read(golden / f"{name}.npz")
    inputs, outputs, gradients = part(arrays, "in/"), part(arrays, "out/"), part(arrays, "grad/")
    combiner = Combiner.from_state(part(arrays, "state/")).eval()
    output = combiner(inputs["text"], torch.stack([inputs["image"], inputs["image_aug"]]))
    terms = combiner_logits(combiner, output, inputs["target"])
    assert set(terms) == {"hybrid", "cat", "sum", "sscl_mid", "sscl_high"}
    for term, scores in terms.items():
        close(scores, outputs[f"logits_{term}"])
        close(contrastive(scores), outputs[f"ce_{term}"])
    loss = torch.stack([value.sum() for value in combiner_losses(combiner, terms).values()]).sum()
    close(loss, outputs["loss"].squeeze())
    loss.backward()
    parameters = dict(combiner.named_parameters())
    assert set(parameters) == set(gradients)
    for key, gradient in gradients.items():
        actual = parameters[key].grad
        assert actual is not None
        close(actual, gradient)


@pytest.mark.parametrize("name", FILES)
def test_inference_query_equals_the_original(golden: Path, name: str) -> None:
    arrays = read(golden / f"{name}.npz")
    inputs, outputs = part(arrays, "in/"), part(arrays, "out/")
    combiner = Combiner.from_state(part(arrays, "state/")).eval()
    for level, vector in combiner.query_parts(inputs["text"], inputs["image"]).items():
        close(vector, outputs[f"query_{level}"])
    close(combiner.queries(inputs["text"], inputs["image"]), outputs["query"])
    matched = combiner.query_parts(inputs["text"], inputs["image"], InferenceWeights.MATCHED)
    weight = combiner.weight
    assert weight is not None
    close(matched["hybrid"] / (2 * weight), outputs["query_hybrid"] / (2 - 2 * weight))


def test_finetune_loss_and_gradients_equal_the_original(golden: Path) -> None:
    arrays = read(golden / "finetune_loss.npz")
    features = {name: arrays[name].requires_grad_() for name in ("image", "text", "target")}
    loss = finetune_loss(features["image"], features["text"], features["target"])
    close(loss, arrays["loss"])
    loss.backward()
    for name, tensor in features.items():
        assert tensor.grad is not None
        close(tensor.grad, arrays[f"grad_{name}"])


def test_clip4cir_state_has_only_the_high_level(golden: Path) -> None:
    state = part(read(golden / "combiner_fixed_temperature.npz"), "state/")
    reduced = {key: value for key, value in state.items() if not key.startswith(("combiner_proj", "loss_weight"))}
    combiner = Combiner.from_state(reduced).eval()
    assert combiner.architecture.levels == ("hybrid",)
    assert combiner.temperature.item() == 100
    assert set(combiner.state_dict()) == set(reduced)


def test_state_of_another_network_is_rejected() -> None:
    with pytest.raises(DataError, match="not a combiner"):
        Combiner.from_state({"visual.proj": torch.zeros(1)})


def test_views_share_dropout_of_text_and_draw_their_own_elsewhere(golden: Path) -> None:
    arrays = read(golden / "combiner_learned_temperature.npz")
    combiner = Combiner.from_state(part(arrays, "state/")).train()
    inputs = part(arrays, "in/")
    output = combiner(inputs["text"], torch.stack([inputs["image"], inputs["image"]]))
    assert output.text.shape == inputs["text"].shape[:1] + output.images.shape[2:]
    assert not torch.equal(output.images[0], output.images[1])
    assert output.augmented is not None
    assert not torch.equal(output.levels["hybrid"], output.augmented)
