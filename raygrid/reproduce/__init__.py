"""The papers' tables and figures by number, at the printed scale or with stand-ins.

The command line imports it. Start with `tables.py` (a printed table to trials) and `scales.py`
(what stands in for what).
"""
