"""``python -m pynas.cli``."""

from pynas.cli import main

main()
