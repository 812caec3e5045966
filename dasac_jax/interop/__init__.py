"""PyTorch names and pytrees, and PyTorch's files, without PyTorch."""

from dasac_jax.interop.names import state_dict_from_variables, variables_from_state_dict
from dasac_jax.interop.torch_files.file import load_torch_file, release_pages
from dasac_jax.interop.torch_files.writer import save_torch_file

__all__ = [
    "load_torch_file",
    "release_pages",
    "save_torch_file",
    "state_dict_from_variables",
    "variables_from_state_dict",
]
