"""mlcl: composed image retrieval by multi-level contrastive learning on CLIP features."""

__version__ = "0.1.0"
