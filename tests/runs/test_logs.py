"""The table of metrics holds the rows of `metrics.jsonl`, also after a rewind."""

from pathlib import Path

import pytest

from mlcl_cli.errors import DataError
from mlcl_cli.runs.logs import LINES, TABLE, TIMES, Logs, read_log


def test_table_has_a_column_for_every_figure_of_any_epoch(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    logs.add({"epoch": 1, "loss": 0.1 + 0.2}, 1.0)
    logs.add({"epoch": 2, "loss": 0.1, "recall@1": 50.0}, 1.0)
    logs.write_table()
    assert (tmp_path / TABLE).read_text() == "epoch,loss,recall@1\n1,0.30000000000000004,\n2,0.1,50.0\n"


def test_rewound_logs_continue_as_if_never_interrupted(tmp_path: Path) -> None:
    whole, interrupted = Logs(tmp_path / "whole"), Logs(tmp_path / "interrupted")
    for folder in ("whole", "interrupted"):
        (tmp_path / folder).mkdir()
    for logs in (whole, interrupted):
        logs.add({"epoch": 1, "loss": 1 / 3}, 1.0)
    lengths = interrupted.lengths()
    interrupted.add({"epoch": 2, "loss": 9.0, "other": 1.0}, 1.0)
    interrupted.write_table()
    resumed = Logs(tmp_path / "interrupted")
    resumed.rewind(lengths)
    for logs in (whole, resumed):
        logs.add({"epoch": 2, "loss": 0.25}, 1.0)
        logs.write_table()
    for name in (LINES, TABLE, TIMES):
        assert (tmp_path / "interrupted" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_incomplete_last_line_is_left_out_and_other_damage_is_named(tmp_path: Path) -> None:
    (tmp_path / LINES).write_text('{"epoch":1}\n{"epo')
    assert read_log(tmp_path) == [{"epoch": 1}]
    (tmp_path / LINES).write_text('{"epoch":1}\n{"epoch":NaN}\n{"epoch":3}\n')
    with pytest.raises(DataError, match="line 2"):
        read_log(tmp_path)


def test_table_is_not_written_through_a_link(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    logs.add({"epoch": 1}, 1.0)
    (tmp_path / TABLE).symlink_to(tmp_path / "victim")
    with pytest.raises(DataError, match="not a regular file"):
        logs.write_table()
    assert not (tmp_path / "victim").exists()
