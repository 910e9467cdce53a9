"""Questions to finished trials, answered from what these left: nothing here trains a victim.

`records.py` finds what trials left. `questions.py` asks their networks, `fidelity.py` compares
images, `classes.py` reads predictions, `comparison.py` and `summary.py` read rows, `explanation.py`
asks where a network looks, `agreement.py` compares rows with what papers printed, and
`counterparts.py` says which of their numbers. `reproduce` and the command line import it.
Start with `records.py`.
"""
