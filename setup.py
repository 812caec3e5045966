"""Installs dasac_jax. The version is read from the source, so that nothing needs importing."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def version() -> str:
    """The value of __version__ in dasac_jax/version.py."""
    text = (ROOT / "dasac_jax" / "version.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE).group(1)


# Without TensorFlow, which it asks for nowhere but imports where something needs it.
TFDS = ["array_record>=0.8.1", "importlib_resources>=6.4", "tensorflow-datasets>=4.9.10"]
# JAX writes and reads its programs with flatbuffers, which it does not require by itself.
EXPORT = ["flatbuffers>=24.3.25", "onnx>=1.17"]

setup(
    name="dasac-jax",
    version=version(),
    description="Self-supervised augmentation consistency for semantic segmentation, in JAX",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["dasac_jax", "dasac_jax.*"]),
    package_data={"dasac_jax.own_data": ["class_tables/*.csv"]},
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=2.1",
        "flax>=0.12",
        "grain>=0.2.15",
        "jax>=0.10",
        "matplotlib>=3.9",
        "ml-collections>=1.0",
        "ml-dtypes>=0.5",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12.8",
        "pillow>=11",
        "pooch>=1.8",
        "requests>=2.32.2",
        "rich>=13",
        "safetensors>=0.4.5",
        "tensorboardX>=2.6.2.2",
        "tensorstore>=0.1.72",
    ],
    extras_require={
        "cuda": ["jax[cuda12]>=0.10"],
        "export": EXPORT,
        "test": [
            *EXPORT,
            *TFDS,
            "cityscapesscripts>=2.3",
            "filelock>=3.12",
            "imageio-ffmpeg>=0.8.1",
            "onnxruntime>=1.20.1",
            "openvino>=2025.0",
            "pytest>=8",
            "pytest-xdist>=3.8",
            "ruff>=0.15",
        ],
        "tfds": TFDS,
        "torch": ["torch>=2.6", "transformers>=5.24"],
        "video": ["imageio-ffmpeg>=0.8.1"],
    },
)
