"""A picture of every poison of a run: what its attack did to a few images."""

from __future__ import annotations

import logging
from pathlib import Path

from raygrid.core.errors import StoreError
from raygrid.engine.events import Listener
from raygrid.reports.figures.gallery import draw_gallery, names_of_classes
from raygrid.storage.store import Store
from raygrid.tracking.journal import picture_of
from raygrid.trials.examples import EXAMPLES_KIND
from raygrid.trials.result import Result
from raygrid.trials.trial import Trial

log = logging.getLogger(__name__)


class PoisonPictures(Listener):
    """Draws the poison of each trial that ends, once a poison, into `<out>/pictures/`.

    It stands before whoever writes rows, so that a row never comes without its picture. A picture
    that cannot be made is a warning and ends no run. store: has the examples that trials leave.
    data: the data folder, which may know what the classes are called.
    """

    def __init__(self, out: Path, store: Store, data: Path) -> None:
        self.out, self.store, self.data = out, store, data
        self._seen: set[str] = set()

    def trial_finished(self, trial: Trial, result: Result) -> None:
        key = result.artifacts.get("poison")
        if key is None or key in self._seen or picture_of(self.out, key).exists():
            return
        try:
            found = self.store.get(EXAMPLES_KIND, key)
            if found is None:
                return  # the attack changes no image, or the trial ended before it was seen
            self._seen.add(key)
            before, after, labels = (found.tensors[n] for n in ("before", "after", "labels"))
            spec = trial.spec
            title = f"{spec.dataset}/{spec.attack}/{spec.seed}"
            names = names_of_classes(title, labels, self.data)
            draw_gallery(before, after, names, title, picture_of(self.out, key))
        except (OSError, StoreError) as error:
            log.warning("no picture of the poison %s: %s", key, error)
