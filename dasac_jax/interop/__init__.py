"""PyTorch names and pytrees, without PyTorch."""

from dasac_jax.interop.names import state_dict_from_variables, variables_from_state_dict

__all__ = ["state_dict_from_variables", "variables_from_state_dict"]
