"""`mlcl bench` runs on a machine without a GPU, and both sides of every row compute the same."""

import pytest
from command_line import Mlcl

from mlcl_cli.workflows.bench import GROUPS


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_is_measured_and_both_sides_agree(mlcl: Mlcl, group: str) -> None:
    output = mlcl("bench", "--smallest", "--repeats", "1", "--only", group, "--device", "cpu", "--json").json
    assert output["rows"]
    for row in output["rows"]:
        assert row["disagreement"] is None, row
        assert row["ours"]["median_s"] > 0
        assert (row["ratio"] is None) == (row["baseline"] is None)


def test_table_is_shown_and_unknown_group_is_an_error(mlcl: Mlcl) -> None:
    result = mlcl("bench", "--smallest", "--repeats", "1", "--only", "large-gallery", "--device", "cpu")
    assert result.code == 0
    assert "rank 1,000 in 2,000" in result.out
    wrong = mlcl("bench", "--only", "everything")
    assert wrong.code == 2
    assert "unknown group 'everything'" in wrong.err
    assert "Choose decoding" in wrong.err
