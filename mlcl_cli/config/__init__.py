"""What to do and how, read from YAML: a frozen, typed Profile. Imports no torch."""

from mlcl_cli.config.load import dump, find_profile, load_profile, recorded_profile
from mlcl_cli.config.own_template import OwnProfile, own_profile
from mlcl_cli.config.schema import Profile
from mlcl_cli.config.template import template

__all__ = [
    "OwnProfile",
    "Profile",
    "dump",
    "find_profile",
    "load_profile",
    "own_profile",
    "recorded_profile",
    "template",
]
