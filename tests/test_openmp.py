"""OpenMP's wait policy, as a real process that has loaded torch sees it."""

import os
import subprocess
import sys

from mlcl_cli.openmp import CHOICES, WAITING, set_wait_policy

SHOW = """
import os, sys
sys.argv = ["mlcl", "--version"]
from mlcl_cli.__main__ import main
try:
    main()
except SystemExit:
    pass
print({name: os.environ.get(name) for name in %r}, "torch" in sys.modules)
"""


def test_the_entry_point_sets_the_policy_before_torch_is_imported() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    done = subprocess.run(
        [sys.executable, "-c", SHOW % (list(WAITING),)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"{dict(WAITING)} False"


def test_a_choice_of_the_user_wins() -> None:
    for name in CHOICES:
        environment = {name: "whatever"}
        set_wait_policy(environment)
        assert environment == {name: "whatever"}
