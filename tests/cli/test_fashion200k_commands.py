"""Fashion200k through the real command line."""

from pathlib import Path

from command_line import Mlcl
from world import world


def test_fashion200k_is_checked_trained_and_evaluated(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "fashion200k")
    checked = mlcl("check", "--json").json
    assert checked["verdicts"] == {"finetune": "ok", "train-combiner": "ok", "evaluate": "ok"}
    tuned = mlcl("finetune", "--encoder", "text", "--json").json
    trained = mlcl("train-combiner", "--json").json
    assert tuned["dataset"] == trained["dataset"] == "fashion200k"
    evaluated = mlcl("evaluate", "--json", "--ranks", "ranks.csv").json
    assert evaluated["metrics"] == trained["metrics"]
    assert list(evaluated["metrics"]) == ["recall@1", "recall@10", "recall@50", "recall_mean"]
    assert (evaluated["queries"], evaluated["gallery"]) == (20, 60)
    assert mlcl("report", "--json").code == 0
    assert ",replace " in (tmp_path / "ranks.csv").read_text()
