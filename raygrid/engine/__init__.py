"""Fans out a grid: which jobs there are, in which order, where they run, what they cost.

The rooms `tracking`, `reports`, `reproduce`, `api` and `cli` import it. Start with `grid.py` (axes
to trials), `schedule.py` (ready ones first) and `local.py` (one process); `ray/` is the same on a
cluster, `slurm/` a cluster of Ray inside of a Slurm job, `costs/` tells time, disk and shares of a
GPU beforehand.
"""
