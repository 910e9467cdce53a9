"""What jobs cost: estimates, measured footprints, shares of a GPU, a simulated schedule.

The planner and the executors import it. Start with `estimate.py`.
"""
