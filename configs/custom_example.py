"""Data of your own: a labelled source, an unlabelled target, three classes. Copy and change it.

python -m dasac_jax.main --config configs/custom_example.py --workdir runs/custom_example

docs/custom_data.md walks through it. What is not set here is as in dasac_jax/config.py.
"""

from ml_collections import ConfigDict

from dasac_jax import config as recipe


def get_config() -> ConfigDict:
    """Rendered rooms with labels to photographs without: floor, wall, object."""
    config = recipe.base()
    config.data.source = "custom"
    config.data.root = "data/rooms"  # the lists' paths are relative to it
    config.data.lists = "data/rooms/lists"  # source_train.txt, target_train.txt, perhaps val.txt

    config.data.classes.names = ("floor", "wall", "object")
    config.data.classes.palette = ((128, 64, 128), (70, 130, 180), (220, 160, 0))
    # Which value in a label file stands for which class. Several may stand for one; what is not
    # named is ignored in training and scores.
    config.data.classes.source_ids = (
        (1, "floor"), (2, "floor"), (5, "wall"), (6, "wall"), (17, "object"), (40, "object"),
    )  # fmt: skip
    # The same for labelled target images, which are only ever scored.
    config.data.classes.target_ids = ((0, "floor"), (1, "wall"), (2, "object"))

    # (height, width) that all images of a domain are brought to when they are read.
    config.data.source_size = (540, 960)
    config.data.target_size = (540, 960)
    config.data.statistics = "none"  # the colours of a known source are taken for no other

    # No labelled target images for selection: the last snapshot is handed on.
    config.data.selection_images = 0
    config.select = "last"

    config.baseline.crop = (480, 480)  # of the source's images, scaled by 0.5 to 2
    config.baseline.source_batch = 8
    config.baseline.target_batch = 4
    config.baseline.epochs = 20  # passes over source_train.txt
    config.adapt.crop = (360, 640)  # target images are resized to it, source images cropped
    config.adapt.source_batch = 4
    config.adapt.groups = 1  # target images in a step; of each, four views
    config.adapt.epochs = 40  # counted over both stages
    return config
