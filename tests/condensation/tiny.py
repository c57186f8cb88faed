"""The smallest settings under which every registered method still does all that it does."""

from clreplay.condensation import METHODS
from clreplay.condensation.cafe.engine import CafeEngine
from clreplay.condensation.cafe.settings import CafeSettings
from clreplay.condensation.distillation.engine import DistillationEngine
from clreplay.condensation.gradient_matching.engine import GradientMatchingEngine
from clreplay.condensation.matching.engine import MatchingEngine
from clreplay.condensation.matching.idm import IDM

NET = {"width": 4, "depth": 2}
TINY = {
    "cafe": {**NET, "iterations": 2, "real_batch": 8, "accuracy_images": 4, "window": 2, "max_image_steps": 3,
             "max_epochs": 2},
    "dd": {**NET, "updates": 3, "real_batch": 16, "distill_epochs": 1, "step_size": 0.1, "lr_img": 0.1},
    "forgetting": {**NET, "epochs": 2, "batch_size": 16},
    "gradient_matching": {**NET, "iterations": 2, "outer_loops": 2, "inner_epochs": 1, "real_batch": 8},
    "herding": {**NET, "updates": 2},
    "kmeans": {**NET, "updates": 2},
    "idm": {**NET, "iterations": 3, "real_batch": 8, "queue_steps": 1, "batch_net": 16},
    "matching": {**NET, "iterations": 3, "real_batch": 8, "style_weight": 5000.0, "diversity_weight": 10.0},
    "random": {},
}  # fmt: skip
SMALL_CAFE = CafeSettings(
    width=4, depth=2, iterations=3, real_batch=7, accuracy_images=5, window=3, settled_within=0.21,
    moved_beyond=0.19, max_image_steps=5, max_epochs=6, lr_net=0.05, batch_net=5, siamese_augment="color_crop_flip",
)  # fmt: skip
"""Under which both loops of CAFE end at different steps for different networks."""
ENGINES = {
    "cafe": CafeEngine,
    "dd": DistillationEngine,
    "gradient_matching": GradientMatchingEngine,
    "idm": IDM,
    "matching": MatchingEngine,
}
SELECTIONS = sorted(set(TINY) - set(ENGINES))


def tiny(name, **changes):
    """Tiny settings of a method, with some changes."""
    return METHODS[name].settings(**{**TINY[name], **changes})
