"""A picture of what one step of the adaptation trains on, with what was drawn for it."""

from __future__ import annotations

from typing import NamedTuple

import jax

from dasac_jax.image import views
from dasac_jax.image.draw import Noise, Window, draw_crop, draw_view


class Drawn(NamedTuple):
    """The parameters behind V target views, each field with a leading axis of V."""

    frames: Window
    windows: Window
    noise: Noise


def drawn_views(
    key: jax.Array,
    target_view: jax.Array,
    *,
    size: views.Size,
    num_views: int,
    target_scale: views.Range,
    zoom: views.Range,
    jitter: float,
    hue: float,
) -> Drawn:
    """What `views.target_views` draws for the same arguments, without making a view."""

    def draw(view):
        group = views.item_key(key, views.TARGET, view // num_views)
        frame = draw_crop(jax.random.fold_in(group, 0), size, size, target_scale)
        place = view % num_views
        own = jax.random.fold_in(group, place + 1)
        return Drawn(frame, *draw_view(own, place, size, zoom, jitter, hue))

    return jax.vmap(draw)(target_view)
