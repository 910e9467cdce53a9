"""One trial from data to result. It reads like the way of the data and knows no method by name."""

from __future__ import annotations

import functools
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from raygrid.core.device import Meter, device_name, memory_limit, release
from raygrid.core.device_errors import trouble
from raygrid.core.errors import DivergedError, StoreError, told
from raygrid.core.images import Images
from raygrid.core.lazy import torch
from raygrid.datasets.base import Dataset
from raygrid.defenses.base import Study
from raygrid.learners.base import Session, Task
from raygrid.nn import augment
from raygrid.nn.recipes import precision_of
from raygrid.trials import evaluate, outputs
from raygrid.trials.artifacts import World, features, hold_out, mix, poison_of, purified_of
from raygrid.trials.context import Checkpoint, Fetch, TrialContext
from raygrid.trials.evaluate import epoch_metrics, told_by
from raygrid.trials.result import OTHER_DATA, OTHER_FILES, History, Result, peak_of
from raygrid.trials.trial import Trial

log = logging.getLogger(__name__)
HELD_SHARE = 0.5
"""The part of a process's memory on a GPU that a set of images may fill for good."""


def run_trial(trial: Trial, fetch: Fetch, context: TrialContext) -> Result:
    """Run a trial to its end. Its own errors become a row with status `failed` or `diverged`."""
    started = time.perf_counter()
    result = Result(str(trial.spec), trial.key, resolved=trial.resolved())
    result.commit, result.versions = context.commit, dict(context.versions)
    result.device = device_name(context.device)
    result.epochs_planned = trial.recipe.epochs
    result.artifacts = {a.kind: a.key for a in trial.artifacts}
    meter = context.meter or Meter(context.device)
    try:
        _run(trial, fetch, context, result, meter)
    except DivergedError as error:
        result.status, result.error = "diverged", str(error)
    except Exception as error:
        # A fault of the device is no property of the trial: the caller may have more memory or
        # another device to give. Everything else is the trial's own, and becomes its row.
        if context.raise_device and trouble(error):
            release(context.device)
            raise
        _fail(result, error)
    result.summarize()
    result.seconds += time.perf_counter() - started
    result = replace(result, **meter.facts(), finished=time.time())
    release(context.device)
    return result


def data_marks(dataset: Dataset) -> list[str]:
    """Says that the data at hand are not the official ones; empty if they are."""
    other, files = dataset.other_data(), dataset.other_files()
    said = ", ".join(filter(None, (other, files)))
    return [f"{OTHER_DATA if other else OTHER_FILES}{dataset.part()} ({said})"] if said else []


def trial_marks(trial: Trial) -> list[str]:
    """What a trial's row says beside its number, as far as it is known before it is run."""
    size, images = trial.protocol.batch_size, trial.combination().train_size
    taken = trial.recipe.batch_for(images)
    marks = data_marks(trial.data.dataset)
    if size is not None and taken < size:
        said = f"batch_size is {size:,}, but of the {images:,} images of {trial.spec.dataset}"
        marks.append(f"{said} a batch has {taken:,}")
    origin = trial.pretraining.data.dataset.id if trial.pretraining is not None else ""
    if trial.learner.pretrained and origin == trial.dataset.id and trial.protocol.given is None:
        marks.append(f"its victim was pre-trained on clean images of {origin} itself")
    return marks


def idle_marks(facts: Mapping[str, Any]) -> list[str]:
    """Says that a poison changed no image at all, as rounding may have it; empty if it did.

    facts: those that are kept beside the poison.
    """
    changed = facts.get("size", {}).get("l0", {}).get("max")
    return ["its poison changed no image at all"] if changed == 0 else []


def _run(trial: Trial, fetch: Fetch, context: TrialContext, result: Result, meter: Meter) -> None:
    if context.device.type == "cpu":
        torch.set_num_threads(1)  # the same sums in the same order, whoever runs the trial
    # The poison is of the whole training set and the ratio picks rows of it, a larger one all rows
    # of a smaller: trials at any ratio share one poison.
    world = World.of(fetch(trial.data), trial.setup)
    made = fetch(trial.poison)
    poison = poison_of(made)
    result.marks = [*made.facts.get("marks", ()), *idle_marks(made.facts), *trial_marks(trial)]
    context.examples(trial.poison.key, world.train, poison)
    mixed, mask = mix(world, poison, trial.poison, trial.spec.poison_ratio)
    purified = _purified(trial, fetch, result) or mixed
    # What was flagged is read off the changed images, so this needs one purifier that changes
    # flagged images alone, and a poison that is there.
    if [link.detects for link in trial.defense.purifiers] == [True] and not poison.withheld:
        result.detection = evaluate.detection(mixed, purified, mask)
    # Held out is a part of what the victim is given: nobody has clean images to choose by.
    train, held = hold_out(purified, trial.protocol.holdout)
    probes = evaluate.probes_for(world, poison, mask)
    if held is not None:
        probes.append(evaluate.Probe("poison_val", held))
    task = _task(trial, fetch, world, train, context.device)
    start = functools.partial(trial.learner.start, task)
    peak = outputs.Peak() if "peak" in context.options.keep else None
    session, first = _begin(start, result, context.checkpoint, peak)
    probed = [_probed(trial, session, probe, context.device) for probe in probes]
    precision = precision_of(trial.recipe, trial.architecture.convolutional)

    def ask(model: torch.nn.Module) -> dict[str, evaluate.Score]:
        return evaluate.ask(model, probed, precision)

    for epoch in range(first, trial.recipe.epochs):
        if trial.protocol.stops([past["test_acc"] for past in result.history]):
            break
        # Questions are put after every epoch, so that peak and final accuracy come from one run.
        began = time.perf_counter()
        metrics = {"epoch": epoch + 1.0, **told_by(trial.learner.id, session.epoch(epoch))}
        meter.sample()
        metrics |= epoch_metrics(ask(session.classifier()))
        metrics["epoch_seconds"] = time.perf_counter() - began
        result.history.append(metrics)
        state = {"session": session.state_dict(), "history": result.history}
        if peak is not None:
            peak.see(metrics["test_acc"], session.classifier())
            state["peak"] = vars(peak)
        context.checkpoint.save(state)
        context.report({**metrics, **_peak(result.history)})
    result.stopped_early = len(result.history) < trial.recipe.epochs
    # What is tested at the end may be another network than after the last epoch: contrastive
    # learners fit their probe now.
    model = session.finish()
    result.probes = {name: s.row() for name, s in ask(model).items()}
    test = world.test.beside(context.device)
    _note_probe(trial, session, test, result)
    for kind in context.options.keep:
        if peak is not None and kind == "peak":
            context.leave(kind, peak.bundle())
        else:
            context.leave(kind, outputs.left_by(kind, model, test, trial.defense.view, precision))


def _note_probe(trial: Trial, session: Session, test: Images, result: Result) -> None:
    """The best and the last accuracy of the linear probe, if the learner fits one."""
    given = trial.learner.probe_accuracies(session, test, trial.defense.view)
    accuracies = [float(accuracy) for accuracy in given]
    if accuracies:
        result.probe_peak, result.probe_final = max(accuracies), accuracies[-1]


def _probed(
    trial: Trial, session: Session, probe: evaluate.Probe, device: torch.device
) -> evaluate.Probed:
    """A question as the learner's classifier is shown it."""
    images = probe.images.beside(device)  # asked once an epoch: sent then, and never held
    inputs, view = trial.learner.shown(session, images, trial.defense.view)
    return evaluate.Probed(probe.name, inputs, view, probe.odds)


def pretrained(
    trial: Trial, fetch: Fetch, world: World, train: Images, device: torch.device
) -> dict[str, Any]:
    """The parts of a task that come from pre-training; none for fresh victims."""
    if trial.extractor is None:
        return {}
    extractor = trial.extractor
    found = {"extractor": extractor.network(fetch(extractor), extractor.blank(), device)}
    # Kept features belong to the rows of the whole set; images that are held out shift them.
    if trial.features is None or len(train) != len(world.train):
        return found
    return {**found, "kept": features.features_for(fetch(trial.features), world, train, device)}


def studied(trial: Trial, fetch: Fetch) -> Study:
    """What the defense found out about the training set; nothing if it did not look."""
    return {} if trial.study is None else fetch(trial.study).tensors


def _purified(trial: Trial, fetch: Fetch, result: Result) -> Images | None:
    """What the purifying links leave, if there are any, and what has to be known of it."""
    if trial.purified is None:
        return None
    made = fetch(trial.purified)
    result.marks += made.facts.get("marks", ())
    return purified_of(made)


def task_of(trial: Trial, train: Images, clean: Images, device: torch.device) -> Task:
    """What the learner is given. Clean data only where the protocol's probe is fitted on them."""
    on_device = placed(train, device)
    labeled = placed(clean, device) if trial.protocol.probe_data == "clean" else on_device
    return Task(
        train=on_device,
        labeled=labeled,
        architecture=trial.architecture,
        recipe=trial.recipe,
        defense=trial.defense,
        streams=trial.streams(),
        augmentation=augmentation_of(trial),
        normalization=(trial.dataset.mean, trial.dataset.std) if trial.recipe.normalize else None,
        probing=trial.probing,
    )


def augmentation_of(trial: Trial) -> augment.Augmentation | None:
    """What the learner does to images before the defense does."""
    if trial.defense.plain:
        return None
    standard = augment.standard(trial.augmentation, trial.dataset.image_size)
    if trial.defense.crops and standard is not None:
        return augment.CropFlip(0, standard.flip)
    return standard


def placed(images: Images, device: torch.device) -> Images:
    """Images for the device: there if they take no more than `HELD_SHARE` of the process's memory.

    Larger sets stay in the host's memory and come in batches of the same bytes.
    """
    limit = memory_limit(device)
    large = limit is not None and images.pixels.nbytes > HELD_SHARE * limit
    return images.beside(device) if large else images.to(device)


def _peak(history: History) -> dict[str, float]:
    found = peak_of(history)
    return {} if found is None else {"peak_acc": found[0], "peak_epoch": float(found[1])}


def _task(trial: Trial, fetch: Fetch, world: World, train: Images, device: torch.device) -> Task:
    """What the learner is given: the images to train on, and what has been made for it."""
    task = task_of(trial, train, world.train, device)
    more = pretrained(trial, fetch, world, train, task.device)
    return replace(task, study=studied(trial, fetch), **more)


def _begin(
    start: Callable[[], Session], result: Result, checkpoint: Checkpoint, peak: outputs.Peak | None
) -> tuple[Session, int]:
    """A session and the number of the epoch that it goes on with.

    A checkpoint of other code, such as a method of one's own that has changed since, is not gone on
    from: it would end every run that meets it.
    """
    session = start()
    try:
        return session, _restore(session, result, checkpoint, peak)
    except Exception as error:
        if isinstance(error, StoreError) or trouble(error):
            raise
        log.warning("%s begins anew: its checkpoint does not fit (%s)", result.spec, told(error))
        result.history, result.seconds = [], 0.0
        return start(), 0


def _restore(
    session: Session, result: Result, checkpoint: Checkpoint, peak: outputs.Peak | None
) -> int:
    """Go on from a checkpoint if there is one; returns the number of the epoch to go on with.

    A checkpoint without the peak, where the peak is to be kept, counts as none.
    """
    state = checkpoint.load()
    if state is None or (peak is not None and "peak" not in state):
        return 0
    session.load_state_dict(state["session"])
    result.history = state["history"]
    result.seconds = sum(epoch["epoch_seconds"] for epoch in result.history)
    if peak is not None:
        peak.accuracy, peak.weights = state["peak"]["accuracy"], state["peak"]["weights"]
    return len(result.history)


def _fail(result: Result, error: Exception) -> None:
    result.status = "failed"
    trace = traceback.format_exception(error)[-4:]
    result.error = f"{told(error)}\n{''.join(trace)}"
