"""NAS-Bench-201 cells in a probing pass: whole nodes at a time."""
