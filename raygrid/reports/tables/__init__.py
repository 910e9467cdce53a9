"""Tables from results: `trial_lines.py` makes rows tidy, `cells.py` averages over seeds, `kinds.py`
sets cells out in panels, `render.py` and `plots.py` show them, `write.py` saves them.

The other rooms of reports, `reproduce`, `api` and `cli` import it. Start with `kinds.py`.
"""
