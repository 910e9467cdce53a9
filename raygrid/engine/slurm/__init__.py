"""A grid as a Slurm job: the batch script, its submission, and Ray inside of the job.

The command line imports it, and `python -m raygrid.engine.slurm.job` is what a job runs. Ray is
started as a program here and never imported. Start with `script.py` (what is
submitted) and `job.py` (what happens on the first node of a job).
"""
