"""A stage is a value: its names, its settings, its options."""

import pytest

from mlcl_cli.config import Profile
from mlcl_cli.models.encoder import TOWERS
from mlcl_cli.runs.description import Kind
from mlcl_cli.training.loop import TrainingPlan
from mlcl_cli.workflows.stages import COMBINER, FINETUNE, STAGES, Stage, fine_tuning

PROFILE = Profile.model_validate(
    {
        "dataset": "cirr",
        "seed": 5,
        "finetune": {"epochs": 3, "batch_size": 4, "validate_every": 2},
        "combiner": {"epochs": 30, "batch_size": 40, "validate_every": 20},
    }
)


@pytest.mark.parametrize(
    ("stage", "plan"), [(FINETUNE, TrainingPlan(3, 4, 2, 5)), (COMBINER, TrainingPlan(30, 40, 20, 5))]
)
def test_plan_follows_the_stages_section_of_the_profile(stage: Stage, plan: TrainingPlan) -> None:
    assert stage.plan(PROFILE) == plan


def test_command_line_names_the_encoder_that_a_resumed_run_must_share() -> None:
    assert COMBINER.command_line == "train-combiner"
    for encoder, towers in TOWERS.items():
        stage = fine_tuning(encoder, "none")
        assert stage.command_line == f"finetune --encoder {encoder}"
        assert stage.towers == towers


def test_only_stage_2_has_a_combiner_and_trains_no_tower() -> None:
    assert [(stage.name, stage.kind) for stage in STAGES] == [("finetune", Kind.CLIP), ("combiner", Kind.COMBINER)]
    assert not COMBINER.towers
