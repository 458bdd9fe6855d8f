"""The demo's profiles: the published recipe scaled down to a drawn catalog and a small CLIP."""

ROOTS = {"fashioniq": "data/fashionIQ_dataset", "shoes": "data/shoes", "cirr": "data/cirr_dataset"}

PROFILE = """\
# The demo's profile: the published recipe, scaled down to a drawn catalog and a small CLIP.
dataset: {dataset}
roots:
  {dataset}: {root}
workspace: runs
device: cpu
clip:
  model: clip.pt
finetune:
  epochs: 1
  batch_size: 64
  learning_rate: 2.0e-4
combiner:
  projection_dim: 256
  hidden_dim: 512
  epochs: 45
  validate_every: 2
  batch_size: 128
  learning_rate: 2.5e-3
  augmented_views: 2          # encoded once; fresh, the default, encodes 45 views per image
"""


def profile_text(dataset: str) -> str:
    """The profile that `mlcl demo` writes for a data set, relative to its own folder."""
    return PROFILE.format(dataset=dataset, root=ROOTS[dataset])
