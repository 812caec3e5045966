#!/usr/bin/env bash
# tensorflow-datasets 4.9.10, array-record 0.8.6, numpy 2.4.6, without TensorFlow.
#
# A builder of a set of one's own is created, and its data are prepared in a folder that is given. One
# would expect files in that folder alone.
#
# Seen: creating a builder whose data are not there yet first asks the public server for facts on the
# set. For the answer it makes a folder among the system's temporary files, also where there is no
# answer, and never removes it: one empty folder for each such builder. Builders of data that are
# there already make none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    'tensorflow-datasets==4.9.10' 'array-record==0.8.6' 'numpy==2.4.6'
mkdir "$folder/temporary"

cat > "$folder/build.py" <<'PYTHON'
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

temporary = Path(tempfile.gettempdir())


class Own(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        number = tfds.features.Tensor(shape=(), dtype=np.int64)
        features = tfds.features.FeaturesDict({"number": number})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        return ((i, {"number": i}) for i in range(3))


def left():
    return sorted(p.name for p in temporary.iterdir() if p.is_dir() and p.name.endswith("tfds"))


for created in (1, 2, 3):
    builder = Own(data_dir=sys.argv[1], file_format="array_record")
    print(f"{created} created, left: {len(left())}")
    assert len(left()) == created, left()
builder.download_and_prepare()
assert len(builder.as_data_source("train")) == 3
before = len(left())
Own(data_dir=sys.argv[1], file_format="array_record")
print(f"one more, of data that are there, left: {len(left())}")
assert len(left()) == before, left()
PYTHON
TMPDIR="$folder/temporary" "$folder/venv/bin/python" "$folder/build.py" "$folder/data"
