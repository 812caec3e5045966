"""python scripts/show_views.py --config configs/demo.py --workdir RUN [--output views.png] …"""

from dasac_jax.show_views import start

if __name__ == "__main__":
    start()
