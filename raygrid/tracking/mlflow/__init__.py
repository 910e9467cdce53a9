"""MLflow shows a run, it is not the record of it: all it holds comes from `results.jsonl`.

    experiment raygrid           one parent run a grid, one child a trial
    experiment raygrid/tables    one run a row of a table

Every run is looked up by its tag `raygrid.key` before one is created, and what it holds follows
from its row, its control and its grid alone, so writing anything twice changes nothing. The tag
`raygrid.layout` says what wrote a run; one of an older version is replaced by a new one. During a
run a process of its own writes; the driver only hands over. A server that is away is tried again
until the end of the run, one that was emptied is told everything anew, and what is missing at the
end comes with `sync`. `tracking/listeners.py` and the room `cli` import this room. Start with
`tracker.py`, then `client.py`.
"""

from raygrid.tracking.mlflow.address import store_uri as store_uri
from raygrid.tracking.mlflow.connection import check_tracking as check_tracking
from raygrid.tracking.mlflow.sync import sync as sync
from raygrid.tracking.mlflow.tracker import Tracker as Tracker
