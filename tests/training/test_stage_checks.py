"""What stages need is looked at before any of them runs."""

import pytest
from saved_states import save

from dasac_jax.errors import UserError
from dasac_jax.training import stages


@pytest.mark.parametrize("images", [0, 4])
def test_best_with_nothing_to_select_on_is_told(images, run, monkeypatch, caplog):
    monkeypatch.setattr(stages.label_check, "check", lambda job: [])
    stages.check_data(run(select="best", data__selection_images=images, init=""))
    told = "config.select is best, but config.data.selection_images is 0" in caplog.text
    assert told == (images == 0)


def test_steps_that_a_warm_up_needs_are_counted_before_anything_is_trained(run, monkeypatch):
    """The adaptation has 9 - 6 epochs of 6 steps behind the baseline, and 9 by itself."""
    monkeypatch.setattr(stages.label_check, "check", lambda job: [])
    adamw = {"optimiser__kind": "adamw", "init": ""}
    stages.check_data(run(**adamw, optimiser__warmup_steps=17))
    stages.check_data(run(**adamw, optimiser__warmup_steps=53, stages="weights,adapt"))
    with pytest.raises(UserError, match=r"warmup_steps is 18, but stage adapt has 18 steps"):
        stages.check_data(run(**adamw, optimiser__warmup_steps=18))
    with pytest.raises(UserError, match=r"warmup_steps is 54, but stage adapt has 54 steps"):
        stages.check_data(run(**adamw, optimiser__warmup_steps=54, stages="weights,adapt"))


@pytest.mark.parametrize(
    ("saved", "select", "stages_to_run", "before"),
    [
        ({}, "best", "baseline,weights,adapt", 6),  # nobody knows how early it will be
        ({"checkpoints": 3}, "best", "baseline,weights,adapt", 6),
        ({"checkpoints": 6, "best": 2}, "best", "baseline,weights,adapt", 2),
        ({"checkpoints": 6, "best": 2}, "last", "baseline,weights,adapt", 6),
        ({"checkpoints": 6, "best": 2}, "best", "weights,adapt", 2),
        ({"checkpoints": 3}, "last", "adapt", 3),
    ],
)
def test_epochs_that_the_baseline_took_are_counted(
    saved, select, stages_to_run, before, run, monkeypatch
):
    monkeypatch.setattr(stages.label_check, "check", lambda job: [])
    settings = {"init": "", "select": select, "stages": stages_to_run}
    for place, epoch in saved.items():
        save(run().folder / "baseline" / place, 1.0, 6 * epoch, epoch=epoch)
    stages.check_data(run(**settings, adapt__epochs=before + 1))
    with pytest.raises(UserError, match=f"adapt.epochs is {before}, .* before took {before}, "):
        stages.check_data(run(**settings, adapt__epochs=before))
    # What has begun was counted then, and its baseline may have been shorter than it can be.
    save(run().newest("adapt"), 1.0, 1, epoch=before)
    stages.check_data(run(**settings, adapt__epochs=before))


def test_images_that_confidences_are_averaged_over_are_counted_before_anything_is_trained(
    tiny_config,
):
    batch = {"adapt__confidence_weighting": "batch"}
    for fitting in (0, 1, 4, 8):
        stages.check_devices(tiny_config(**batch, adapt__confidence_images=fitting))
    stages.check_devices(tiny_config(adapt__confidence_images=3))  # of no effect by itself
    stages.check_devices(tiny_config(**batch, adapt__confidence_images=3, stages="baseline"))
    with pytest.raises(UserError, match=r"^config\.adapt\.confidence_images = 3 does not fit"):
        stages.check_devices(tiny_config(**batch, adapt__confidence_images=3))
