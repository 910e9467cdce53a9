"""Plans: shown to a person as text, or as JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raygrid.api.run_grid import known_profiles, make_plan
from raygrid.cli.common import say_broken
from raygrid.core.errors import DataError, MissingDataError, SpecError
from raygrid.core.local_gpus import NO_UTILIZATION, LocalGpu, counted, local_gpus
from raygrid.core.options import Options
from raygrid.core.spec import TrialSpec
from raygrid.core.speed import CPU, GPU, Speed
from raygrid.core.text import about, say
from raygrid.datasets import DATASETS
from raygrid.engine.costs.estimate import Measured, crowded, trial_seconds
from raygrid.engine.costs.gpu_share import TooLarge, too_large
from raygrid.engine.costs.profiles import Profiles, ProfileStore, gpu_of
from raygrid.engine.costs.simulate import Fleet, Timeline, play
from raygrid.engine.grid import Plan
from raygrid.engine.grid import plan as plan_specs
from raygrid.engine.schedule import Agenda, Job
from raygrid.storage.mirrored import open_store
from raygrid.storage.results import log_of
from raygrid.storage.store import Store
from raygrid.trials.artifacts import Artifact
from raygrid.trials.catalog import Catalog
from raygrid.trials.outputs import left_nbytes
from raygrid.trials.run import trial_marks
from raygrid.trials.trial import Trial


def there(plan: Plan, store: Store) -> dict[str, list[str]]:
    """The marks, by key, of the plan's artifacts that are there already, as of weak surrogates."""
    metas = {artifact.key: store.meta(artifact.kind, artifact.key) for artifact in plan.artifacts}
    return {key: meta["facts"].get("marks", []) for key, meta in metas.items() if meta}


@dataclass(frozen=True)
class PlanStatus:
    """What is known about a plan besides the plan.

    known: whether the data were looked at; without them keys are not those of a run, and nothing
    is known to be done. rows: of earlier runs by key. made: see `there`. fleet: to simulate the
    rest of the run on. profiles: of trials on GPUs, what the rows say among them. keep: what
    trials are to leave. here: the cards of this machine, on which it would run without a fleet.
    """

    known: bool = True
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    made: Mapping[str, Sequence[str]] = field(default_factory=dict)
    fleet: Fleet | None = None
    profiles: Profiles = field(default_factory=Profiles)
    keep: tuple[str, ...] = ()
    here: Sequence[LocalGpu] = ()

    @property
    def marks(self) -> list[str]:
        """What is marked in the artifacts that are there."""
        return list(dict.fromkeys(mark for marks in self.made.values() for mark in marks))

    def done(self, trial: Trial) -> bool:
        """Whether a row of it is there; one that failed is tried again."""
        row = self.rows.get(trial.key) if self.known else None
        return row is not None and row["status"] != "failed"

    def agenda(self, plan: Plan, speed: Speed) -> Agenda:
        """The jobs that are left of a plan."""
        left = [trial for trial in plan.trials if not self.done(trial)]
        return Agenda(left, lambda artifact: artifact.key in self.made, speed)


def simulated(plan: Plan, state: PlanStatus, fleet: Fleet) -> Timeline:
    """What is left of a plan, played on a fleet."""
    measured = Measured.of(plan.trials, state.rows, fleet.speed)

    def seconds(job: Job, share: float) -> float:
        if job.trial is not None and measured.factors:  # of trials that had company, too
            return measured.correct(job.trial, job.seconds)
        return crowded(job.work, job.seconds, fleet.speed, share)

    return play(state.agenda(plan, fleet.speed), fleet, state.profiles, seconds)


def unfit(plan: Plan, state: PlanStatus, fleet: Fleet) -> list[TooLarge]:
    """The trials and artifacts left that need more memory than a card of the fleet has."""
    return too_large(waiting(plan, state), fleet.name, state.profiles) if fleet.gpus else []


def waiting(plan: Plan, state: PlanStatus) -> list[Trial | Artifact]:
    """The trials of a plan that are left to run, and the artifacts that they still need."""
    # Which jobs are left does not depend on the speed.
    return [job.work for job in state.agenda(plan, CPU).jobs.values()]


def notes_of_here(plan: Plan, state: PlanStatus) -> list[str]:
    """What of this machine's cards stands in the way of what is left of a plan, a line each."""
    if state.fleet is not None or not state.here:
        return []
    held = [said for card in state.here if (said := card.held(1.0)) is not None]
    kinds, works = dict.fromkeys(gpu_of(card.name) for card in state.here), waiting(plan, state)
    large = [str(each) for gpu in kinds for each in too_large(works, gpu, state.profiles)]
    return [*held, *large, *([] if counted() else [NO_UTILIZATION])]


def fleet_json(line: Timeline) -> dict[str, Any]:
    """Makespan in hours, use, trials by GPU share, cost."""
    return {
        "makespan_hours": round(line.makespan / 3600, 4),
        "busy": round(line.busy, 3),
        "trials_per_device": {f"{1 / share:g}": n for share, n in sorted(line.packed.items())},
        "cost": round(line.cost, 2),
    }


def plan_json(plan: Plan, state: PlanStatus = PlanStatus()) -> dict[str, Any]:
    """Trials, derived rows, skips with reasons, artifacts, estimates, marks, the fleet's run."""
    known = state.known
    found: dict[str, Any] = {
        "trials": [{"spec": str(t.spec), "key": t.key if known else None} for t in plan.trials],
        "derived": [{"spec": str(t.spec), "from": [str(b) for b in t.bases]} for t in plan.derived],
        "skips": [{"spec": s.spec, "reason": s.reason} for s in plan.skips],
        "artifacts": [
            {"kind": a.kind, "label": a.label, "key": a.key if known else None}
            for a in plan.artifacts
        ],
        "estimates": estimates(plan, state.keep),
        "there": {"trials": sum(map(state.done, plan.trials)), "artifacts": len(state.made)},
        "left": left(plan, state),
        "marks": [*state.marks, *plan_marks(plan), *notes_of_here(plan, state)],
    }
    if state.fleet is not None:
        large = [dataclasses.asdict(each) for each in unfit(plan, state, state.fleet)]
        found["fleet"] = {**fleet_json(simulated(plan, state, state.fleet)), "too_large": large}
    return found


def left(plan: Plan, state: PlanStatus) -> dict[str, float]:
    """Estimated hours on one CPU core and on one GPU of what is left of a plan."""
    jobs = state.agenda(plan, CPU).jobs.values()  # which they are does not depend on the speed
    speeds = {"cpu_core_hours": CPU, "gpu_hours": GPU}
    return {
        name: round(sum(_seconds(job, speed) for job in jobs) / 3600, 4)
        for name, speed in speeds.items()
    }


def _seconds(job: Job, speed: Speed) -> float:
    if job.trial is not None:
        return trial_seconds(job.trial, speed)
    assert job.artifact is not None
    return job.artifact.seconds(speed)


def estimates(plan: Plan, keep: Sequence[str] = ()) -> dict[str, float]:
    """Rough: hours on one CPU core and on one GPU, gigabytes of artifacts and of what is kept."""
    found = left(plan, PlanStatus())
    found["disk_gb"] = round(sum(a.nbytes for a in plan.artifacts) / 1e9, 4)
    found["kept_gb"] = round(sum(left_nbytes(t, keep) for t in plan.trials) / 1e9, 4)
    return found


def kept_text(plan: Plan, keep: Sequence[str]) -> str:
    """What trials are to leave, and the disk that it takes."""
    size = sum(left_nbytes(trial, keep) for trial in plan.trials) / 1e9
    return f"{', '.join(keep)} of {len(plan.trials)} trials, about {size:.2f} GB of disk"


def skipped_text(plan: Plan) -> list[str]:
    """Why trials are left out, a line a reason, the most frequent first."""
    reasons = Counter(skip.reason for skip in plan.skips)
    return [f"skipped {n}: {reason}" for reason, n in reasons.most_common()]


def plan_marks(plan: Plan) -> list[str]:
    """What the rows of a plan will say: data that are not the official ones, too large batches."""
    return list(dict.fromkeys(mark for trial in plan.trials for mark in trial_marks(trial)))


def plan_text(plan: Plan, state: PlanStatus = PlanStatus()) -> str:
    """The same for a person."""
    costs = estimates(plan, state.keep)
    kinds = Counter(a.kind for a in plan.artifacts)
    made = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) or "none"
    lines = [
        f"{len(plan.trials)} trials, {len(plan.derived)} rows derived from them, "
        f"{len(plan.skips)} skipped",
        f"artifacts: {made}",
        f"estimate: {about(3600 * costs['cpu_core_hours'])} on one CPU core or "
        f"{about(3600 * costs['gpu_hours'])} on one GPU, {costs['disk_gb']:.2f} GB of disk",
    ]
    done = sum(map(state.done, plan.trials))
    if done or any(a.kind != "dataset" and a.key in state.made for a in plan.artifacts):
        cpu, gpu = (about(3600 * hours) for hours in left(plan, state).values())
        lines.append(
            f"there already: {done} trials, {len(state.made)} artifacts; left: {cpu} on one CPU "
            f"core or {gpu} on one GPU"
        )
    if state.keep:
        lines.append(f"kept: {kept_text(plan, state.keep)}")
    lines += skipped_text(plan)
    lines += [f"note: {mark}" for mark in state.marks]
    lines += [f"note: {line}" for line in (*plan_marks(plan), *notes_of_here(plan, state))]
    if state.fleet is not None:
        lines.append(_fleet_line(simulated(plan, state, state.fleet), state.fleet))
        lines += [f"note: {each}" for each in unfit(plan, state, state.fleet)]
    if not state.known:
        lines.append("the data were not found here, so what is done already is not known")
    return "\n".join(lines)


def _fleet_line(line: Timeline, fleet: Fleet) -> str:
    unit = "GPU" if fleet.gpus else "core"
    packed = [f"{n} trials {1 / share:g} to a {unit}" for share, n in sorted(line.packed.items())]
    text = f"on {line.slots} x {fleet.name}: {about(line.makespan)}, {line.busy:.0%} in use"
    text += f"; {', '.join(packed) or 'no trial is left'}"
    price = f"; ${line.cost:,.2f} at ${line.price:.2f} an hour and {unit}"
    return text + (price if line.price else "")


def show_plan(
    specs: Sequence[TrialSpec | str], options: Options, as_json: bool, fleet: Fleet | None = None
) -> int:
    """Print what a grid comes to, and what a fleet makes of it; works without the data too."""
    log = log_of(options.out)
    rows = {row["key"]: row for row in log.rows()}
    say_broken(log)
    note = ""
    try:
        plan, store, _ = make_plan(specs, options)
        profiles = known_profiles(plan, log, ProfileStore(store))
        made = there(plan, store)
        state = PlanStatus(True, rows, made, fleet, profiles, options.keep, local_gpus())
    except (DataError, SpecError) as error:  # the plan without data finds every other fault
        plan = plan_specs(specs, None)
        if not _lacks_data(plan, options):
            raise
        if options.strict:
            plan = plan_specs(specs, None, strict=True)
        state = PlanStatus(False, rows, fleet=fleet, keep=options.keep, here=local_gpus())
        note = f"note: {error}"
    if note:
        print(note, file=sys.stderr)
    if as_json:
        print(json.dumps(plan_json(plan, state), indent=1))
    else:
        say(plan_text(plan, state))
    return 0


def _lacks_data(plan: Plan, options: Options) -> bool:
    """Whether some data are not there; a DataError of data that are and cannot be taken."""
    catalog = Catalog(open_store(options.store_url), options.data)
    lacking = False
    skipped = (DATASETS.make(TrialSpec.parse(skip.spec).dataset) for skip in plan.skips)
    for dataset in dict.fromkeys([*(trial.dataset for trial in plan.trials), *skipped]):
        try:
            catalog.content(catalog.artifact(dataset, 0.0))
        except MissingDataError:
            lacking = True
    return lacking
