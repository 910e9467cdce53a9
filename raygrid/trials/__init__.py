"""One trial, from a spec to a row: what it is made of, running it, judging it.

The rooms `engine`, `tracking`, `reports`, `reproduce`, `api` and `cli` import it; it knows neither
Ray nor MLflow. Start with `run.py`, which reads like the way of the data; `artifacts/` holds what
is made once and shared between trials.
"""
