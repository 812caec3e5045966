"""How often Python looks for garbage."""

import gc

_NEW_OBJECTS, _YOUNG, _OLD = 100_000, 20, 20


def collect_seldom() -> None:
    """Have Python look for garbage a hundredth as often, and never among what there is by now.

    To be called by a command once its modules are imported. Tracing makes many objects that live
    long; looking through them as often as Python does by default takes a tenth of the time of a
    start. What is imported stays until the end anyway.
    """
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, _YOUNG, _OLD)
