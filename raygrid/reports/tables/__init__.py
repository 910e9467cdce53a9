"""Tables from results: `frame.py` makes rows tidy, `cells.py` averages over seeds, `kinds.py` sets
cells out in panels, `render.py` and `plots.py` show them, `write.py` saves them.

Figures, analysis, `reproduce` and the command line import it. Start with `kinds.py`.
"""
