"""What a run tells while it goes on: counts, the status file, the display, MLflow.

The rooms `api`, `reports` and `cli` import it, and executors report to it through `engine.events`;
it changes nothing of a run. Start with `counts.py`; `listeners.py` chooses among them by a run's
options; only `mlflow/` imports MLflow.
"""
