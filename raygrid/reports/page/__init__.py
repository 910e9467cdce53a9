"""The report page: one HTML file of one or several run folders that opens without a network.

`folders.py` reads them, `combinations.py` and `panels.py` make what the page shows, `write.py` puts
it into `report.html.j2` with `report.css` and what lies in `script/`. The rooms `api` and `cli`
import it. Start with `write.py`.
"""
