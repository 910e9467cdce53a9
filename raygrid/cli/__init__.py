"""The command line: one file a command, `main.py` puts them together.

Nothing imports it but scripts under `experiments/`. Start with `main.py`.
"""
