"""Fans out a grid: which jobs there are, in which order, where they run, what they cost.

`raygrid.api.run_grid` and the command line import it. Start with `grid.py` (axes to trials),
`schedule.py` (ready ones first) and `local.py` (one process); `ray/` is the same on a cluster,
`costs/` tells time, disk and shares of a GPU beforehand.
"""
