"""A training as its run's folder tells of it, from scratch or from a teacher; all that reports know of one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from rekindle.core.errors import ConfigError
from rekindle.library.manifest import Manifest, first_problem
from rekindle.library.run import Run
from rekindle.library.verify import OFFLINE
from rekindle.report.plots import Curve
from rekindle.train.order import Order

FILE, VIDEO, CAPTION = "report.html", "film.mp4", "film.txt"
"""In a run's folder."""
POINTS = 400
"""Of a curve that is drawn, at most."""
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Training:
    """One run."""

    manifest: Manifest
    order: Order
    rows: Rows
    """Of its curves."""

    @property
    def name(self) -> str:
        """Algorithm and, unless it follows from what is seen, network."""
        network = str(self.order.settings.get("network", "auto"))
        return self.order.agent if network == "auto" else f"{self.order.agent}:{network}"

    @property
    def teacher(self) -> tuple[str, str]:
        """What it is called, and the hash of its weights or file, which may be empty."""
        for parent in self.manifest.parents:
            if parent.role == "teacher":
                return parent.id, parent.sha256 or ""
        return str(self.order.teacher), self.order.teacher_sha256 or ""

    @property
    def data(self) -> str:
        """The hash of the replay that it was told to learn from first; empty where that is the teacher's own."""
        return next((parent.sha256 or "" for parent in self.manifest.parents if parent.role == "replay"), "")

    @cached_property
    def scores(self) -> dict[str, float]:
        """What the manifest says that was reached."""
        return {score.name: score.value for score in self.manifest.scores if score.value is not None}

    @property
    def evaluations(self) -> list[Mapping[str, Any]]:
        """The rows of evaluations beside a teacher."""
        return [row for row in self.rows if all(numeric(row.get(f"score/{name}")) for name in ("return", "normalised"))]

    @property
    def offline_updates(self) -> int:
        """Updates on a teacher's data."""
        return max((row.get(OFFLINE, 0) for row in self.rows), default=0)

    @property
    def updates(self) -> int:
        """Of all phases."""
        last = {row.get("tag"): row["phase/updates"] for row in self.rows if numeric(row.get("phase/updates"))}
        return round(sum(last.values()))

    def at(self, row: Mapping[str, Any]) -> float:
        """Where a row lies on the joined axis: environment steps, or updates less all that are made before those."""
        offline = row.get(OFFLINE, 0)
        return row["env_steps"] if row["env_steps"] > 0 else offline - self.offline_updates

    def curve(self, metric: str, label: str = "") -> Curve:
        """A metric over the joined axis."""
        rows = [row for row in self.rows if numeric(row.get(metric))]
        if len(rows) > POINTS:
            rows = [rows[i] for i in np.linspace(0, len(rows) - 1, POINTS).round().astype(int)]
        return Curve(label, [self.at(row) for row in rows], [float(row[metric]) for row in rows])


def numeric(value: Any) -> bool:
    """Whether a value of a row can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read(run: Run) -> Training:
    """What a run's folder tells.

    Raises:
        ConfigError: it is no training, or its config is none of ours.
    """
    if run.manifest.kind != "train":
        raise ConfigError(f"{run.id} is a run of kind {run.manifest.kind!r}; reports are of what was trained.")
    try:
        order = TypeAdapter(Order).validate_python(dict(run.manifest.config))
    except ValidationError as error:
        raise ConfigError(f"the config of {run.id} is damaged: {first_problem(error)}.") from None
    return Training(run.manifest, order, run.metrics())
