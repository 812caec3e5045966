"""What the package takes from orbax's private parts."""

import inspect

import orbax.checkpoint as ocp
import pytest
from orbax.checkpoint._src.futures import signaling_client
from orbax.checkpoint._src.multihost import multihost

from dasac_jax.checkpoints import orbax_files

VERSION = f"orbax-checkpoint {ocp.__version__}"


@pytest.mark.parametrize(
    "name", ["process_index", "process_count", "is_jax_distributed_client_initialized"]
)
def test_orbax_asks_these_functions_about_the_processes(name):
    assert callable(getattr(multihost, name, None)), f"{VERSION} has no multihost.{name}"


def test_orbax_caches_how_processes_signal_each_other():
    cached = getattr(signaling_client.get_signaling_client, "cache_clear", None)
    assert callable(cached), f"{VERSION} does not cache get_signaling_client"


def test_orbax_writes_arrays_through_this_method():
    method = getattr(ocp.type_handlers.NumpyHandler, "_open_and_write", None)
    assert inspect.iscoroutinefunction(method), f"{VERSION}: NumpyHandler writes in another way"


def test_what_orbax_is_told_is_taken_back(tmp_path):
    before = multihost.process_index, multihost.process_count
    with pytest.raises(Exception, match="nowhere"):
        orbax_files.read_metadata(tmp_path / "nowhere")
    assert (multihost.process_index, multihost.process_count) == before
