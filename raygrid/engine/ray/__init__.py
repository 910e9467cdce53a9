"""The engine on Ray: executor, workers, resources, shared objects, spot notices, submission.

Only this room imports Ray. Start with `executor.py`.
"""
