"""Values and suggestions in the words of an error message."""

import difflib
from collections.abc import Collection

SHOWN = 60

# What other tools call a key, and the name of ours: the end of a key, or a section of keys.
SYNONYMS = {
    "amp": "precision",
    "arch": "clip.model",
    "backbone": "clip.model",
    "batch": "batch_size",
    "batchsize": "batch_size",
    "bs": "batch_size",
    "clip_bs": "encode_batch",
    "data": "roots",
    "data_dir": "roots",
    "data_path": "roots",
    "data_root": "roots",
    "dtype": "precision",
    "epoch": "epochs",
    "eval_every": "validate_every",
    "eval_freq": "validate_every",
    "fp16": "precision",
    "gpu": "device",
    "hidden_size": "hidden_dim",
    "jobs": "workers",
    "logit_scale": "learned_temperature",
    "lr": "learning_rate",
    "lr_schedule": "schedule",
    "mixed_precision": "precision",
    "max_epochs": "epochs",
    "model_name": "clip.model",
    "n_epochs": "epochs",
    "name": "clip.model",
    "num_epochs": "epochs",
    "num_workers": "workers",
    "out_dir": "workspace",
    "output": "workspace",
    "output_dir": "workspace",
    "preprocess": "transform",
    "proj_dim": "projection_dim",
    "random_seed": "seed",
    "root": "roots",
    "save_dir": "workspace",
    "save_every": "checkpoints",
    "scheduler": "schedule",
    "tau": "learned_temperature",
    "temp": "learned_temperature",
    "temperature": "learned_temperature",
    "train_batch_size": "batch_size",
    "val_freq": "validate_every",
    "validation_frequency": "validate_every",
    "weights": "clip.checkpoint",
}


def shown(value: object) -> str:
    """A value as a message names it: short, on one line, printable."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a section"
    text = repr(list(value)) if isinstance(value, list | tuple) else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def printable(text: str) -> str:
    """`text` itself unless it would garble a terminal."""
    return text if text.isprintable() else repr(text)


def listed(names: Collection[str]) -> str:
    """The names in words: "a, b or c"."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def nearest(wrong: object, names: Collection[str], cutoff: float = 0.6) -> str | None:
    """The name that `wrong` was probably meant to be; case does not count."""
    by_fold = {name.casefold(): name for name in names}
    # difflib is quadratic in the length, and no name is that long.
    found = difflib.get_close_matches(str(wrong)[:100].casefold(), by_fold, n=1, cutoff=cutoff)
    return by_fold[found[0]] if found else None


def did_you_mean(wrong: object, names: Collection[str]) -> str:
    """The end of a message that suggests the nearest name, or nothing."""
    name = nearest(wrong, names) if isinstance(wrong, str) else None
    return f"; did you mean '{name}'?" if name else ""
