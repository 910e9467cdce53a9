"""What every other room may use and what uses no room itself: errors, spec strings, budgets,
registries, seeds, devices and `Images`, the one type that passes between stages.

Everybody imports it; it imports nothing of raygrid. Start with `spec.py` (a trial is a string) and
`images.py`.
"""
