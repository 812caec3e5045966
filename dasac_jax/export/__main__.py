"""Runs the command: see `dasac_jax.export.command`."""

from dasac_jax.export.command import main

if __name__ == "__main__":
    main()
