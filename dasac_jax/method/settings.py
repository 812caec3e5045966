"""The paper's hyper-parameters, with the published values as defaults: the only place they stand.

The configuration takes its keys `adapt.*` of the same names from here (`dasac_jax.config`), and
the functions of `method.consistency` their defaults.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """The settings of an adaptation step; symbols as in the paper and docs/method.md."""

    group_size: int = 4  # T: views of one target image
    target_weight: float = 5.0  # λ_t, of the target loss
    phase_in_steps: int = 0  # steps in which λ_t grows from 0
    train_on_source: bool = True
    teacher_every_steps: int = 100  # within an epoch
    teacher_momentum: float = 0.99  # γ
    prior_momentum: float = 0.99  # of the class prior χ
    beta: float = 1e-3  # β: the first class prior, and the scale of the discount 1 − exp(−χ/β)
    focal_power: float = 3.0  # λ, of the classes' weights (1 − χ)^λ
    threshold_upper: float = 0.75  # share of a class's peak confidence
    threshold_lower: float = 0.2  # no threshold is less
    pool: str = "average"  # over the views; or "minentropy", "none"
    discount: bool = True  # lower thresholds for rare classes
    confidence_weighting: str = "pixel"  # the authors' code: "batch"; or "none"
    confidence_images: int = 0  # views that "batch" averages over; 0: all
    accumulate: int = 1  # gradient accumulation: microbatches per device and step

    @property
    def thresholds(self) -> dict[str, Any]:
        """What the confidence thresholds follow from, as `consistency.class_thresholds` has it."""
        return {
            "upper": self.threshold_upper,
            "lower": self.threshold_lower,
            "beta": self.beta,
            "discount": self.discount,
        }
