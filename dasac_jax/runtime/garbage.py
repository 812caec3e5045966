"""How often Python looks for garbage."""

import gc

_NEW_OBJECTS, _YOUNG, _OLD = 100_000, 20, 20


def collect_seldom() -> None:
    """Have Python look for garbage a hundredth as often, and never among what there is by now.

    To be called by a command before it imports its modules, and again after that. Importing and
    tracing make many objects that live long; looking through them as often as Python does by
    default takes a fifth of the imports' time and a tenth of a start's. What is imported stays
    until the end anyway.
    """
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, _YOUNG, _OLD)
