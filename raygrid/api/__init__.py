"""The Python front door: the verbs that `import raygrid` offers, and what runs a grid.

The face of the package re-exports the verbs; the command line and scripts import this room.
Start with `methods.py` (poison, purify), then `training.py`, `grids.py` and `run_grid.py`.
"""
