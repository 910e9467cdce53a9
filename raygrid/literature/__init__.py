"""What the papers printed, number by number, each with the spec of the trial that it belongs to.

`data/` holds a CSV file a paper, kept as it was written down. `reference.py` reads them, `names.py`
and `toxic.py` turn their ids into specs, `made.py` says what a paper ran under a name of others,
`shared_names.py` puts trials under the names that papers share, `lookup.py` finds what is printed
for a trial, `printed.py` is that number as it stands beside a measured one, and `questions.py`
names what is asked of finished trials beyond their rows. The rooms `trials`, `tracking`, `reports`,
`reproduce`, `api` and `cli` import it. Start with `lookup.py`.
"""
