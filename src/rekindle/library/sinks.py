"""Where else a run's curves go besides its own metrics.jsonl: TensorBoard, Weights & Biases, MLflow.

None of the three packages is imported before it is asked for. What the user's environment says about them
(`WANDB_MODE`, `WANDB_PROJECT`, `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME`, …) holds.
"""

import importlib.util
import json
import os
import posixpath
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from rekindle.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAMES = ("tensorboard", "wandb", "mlflow")

_PROJECT = "rekindle"
_TAG = "rekindle.run"
# What the packages do unless the user's environment says otherwise: no chatter and no prompt in the middle of a
# training, no reports about its user, and a server that is gone costs a minute at most instead of many.
_DEFAULTS = {
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_INIT_TIMEOUT": "30",
    "WANDB_FINISH_TIMEOUT": "60",
    "WANDB_FINISH_TIMEOUT_RAISES": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
_MENDS = {
    "tensorboard": "look whether the run's folder can be written",
    "wandb": "run `wandb login`, or set WANDB_MODE=offline",
    "mlflow": "look at MLFLOW_TRACKING_URI, or unset it to keep the curves in the run's folder",
}
# MLflow's limits: characters of a name and of a parameter, parameters in a request.
_NAME_LENGTH, _PARAM_LENGTH, _PARAMS_AT_ONCE = 250, 6000, 100


def check(names: Sequence[str]) -> None:
    """Refuse what `Sinks.open` could never open, before anything begins; imports none of them.

    Raises:
        ConfigError: an unknown name, or a package that is not installed.
    """
    for name in names:
        if name not in NAMES:
            raise ConfigError(f"--log takes the name of a sink; got {name!r}; {did_you_mean(name, NAMES)}")
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"--log {name} needs the package {name}; install it with `pip install -e '.[track]'`.")


@runtime_checkable
class Sink(Protocol):
    """A place that takes one run's metrics; it may raise whatever it likes."""

    def log(self, env_steps: int, values: Mapping[str, float]) -> None:
        """Take the metrics after `env_steps` environment steps."""
        ...

    def close(self) -> None:
        """The run has ended, or is interrupted."""
        ...


class Sinks:
    """Several sinks; a sink that fails is closed and left out, and never stops a training.

    Args:
        sinks: open sinks by name.

    Attributes:
        problems: a sentence about each sink that failed, for people.
    """

    problems: list[str]

    def __init__(self, sinks: Mapping[str, Sink]) -> None:
        self.problems, self._sinks = [], dict(sinks)

    @classmethod
    def open(cls, names: Sequence[str], *, id: str, name: str, folder: Path, config: Mapping[str, Any]) -> "Sinks":
        """The sinks of these names, ready to log; a run that was logged before goes on in each.

        Args:
            names: some of `NAMES`; a name given twice counts once.
            id: the run's id.
            name: of the run, for people.
            folder: the run's folder on the local disk; it exists.
            config: what decides what happens in the run, as JSON data.

        Raises:
            ConfigError: an unknown name, a package that is not installed, or a sink that cannot begin.
        """
        check(names)
        kinds = {"tensorboard": _TensorBoard, "wandb": _Wandb, "mlflow": _MLflow}
        opened: dict[str, Sink] = {}
        for kind in dict.fromkeys(names):
            for variable in (v for v in _DEFAULTS if v.startswith(kind.upper())):
                os.environ.setdefault(variable, _DEFAULTS[variable])
            try:
                opened[kind] = kinds[kind](id, name, folder, config)
            except Exception as error:
                cls(opened).close()
                raise _cannot_begin(kind, error) from None
        return cls(opened)

    def log(self, env_steps: int, values: Mapping[str, float | int | str | None]) -> None:
        """Pass on the real numbers among `values`, finite or not; never raises.

        Args:
            env_steps: environment steps so far.
            values: metrics by name; what is a bool, text or None is left out.
        """
        numbers: dict[str, float] = {}
        for metric, value in values.items():
            if isinstance(value, Real) and not isinstance(value, bool):
                with suppress(OverflowError):  # a whole number beyond all floats
                    numbers[metric] = float(value)
        for name, sink in list(self._sinks.items()):
            try:
                sink.log(int(env_steps), numbers)
            except Exception as error:
                self._give_up(name, error)
                with suppress(Exception):
                    sink.close()

    def close(self) -> None:
        """End all that are left; never raises, and a second time does nothing."""
        for name, sink in list(self._sinks.items()):
            try:
                sink.close()
            except Exception as error:
                self._give_up(name, error)
        self._sinks.clear()

    def _give_up(self, name: str, error: Exception) -> None:
        del self._sinks[name]
        self.problems.append(
            f"{name} failed ({_why(error)}) and may lack some of this run's metrics; "
            "the run's own metrics.jsonl is whole."
        )


class _TensorBoard:
    """Event files in the run's folder; a run that goes on adds a file."""

    def __init__(self, id: str, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        from tensorboard.summary import Writer

        self._folder = folder / "tensorboard"
        self._writer = Writer(str(self._folder))

    def log(self, env_steps: int, values: Mapping[str, float]) -> None:
        if not self._folder.is_dir():  # the writer's own thread would print a traceback
            raise FileNotFoundError(f"the folder {self._folder} is gone")
        with np.errstate(over="ignore"):  # it keeps single precision
            for metric, value in values.items():
                self._writer.add_scalar(metric, value, env_steps)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """A run of the same id in the project "rekindle", with env_steps as the x axis.

    wandb's own step only rises, and drops what comes below it: here a resumed run repeats some steps, and a run of
    several trainings counts from 0 in each. So its step counts rows.
    """

    def __init__(self, id: str, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=id,
            name=name,
            dir=str(folder),
            config=dict(config),
            resume="allow",
            reinit="create_new",
        )
        self._run.define_metric("env_steps")
        self._run.define_metric("*", step_metric="env_steps")

    def log(self, env_steps: int, values: Mapping[str, float]) -> None:
        self._run.log({"env_steps": env_steps, **values})

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """A run with the tag `rekindle.run`, on the user's server, or else in a database in the run's folder."""

    def __init__(self, id: str, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        with warnings.catch_warnings():
            # Its use of SQLAlchemy is of yesterday, which its user can do nothing about.
            warnings.simplefilter("ignore", DeprecationWarning)
            import mlflow
            from mlflow.entities import Metric, Param

            uri = artifacts = None
            if not mlflow.is_tracking_uri_set():
                # Its older store of plain files is closed to new users.
                store = folder.absolute() / "mlruns"
                if {"%", "?"} & set(str(store)):
                    raise ConfigError(f"--log mlflow needs a folder without % and ?; got {store}; set REKINDLE_HOME.")
                store.mkdir(exist_ok=True)
                uri, artifacts = f"sqlite:///{store.as_posix()}/mlflow.db", (store / "artifacts").as_uri()
            self._client, self._metric = mlflow.MlflowClient(tracking_uri=uri), Metric
            experiment = _experiment(self._client, os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT), artifacts)
            earlier = self._client.search_runs([experiment], f"tags.`{_TAG}` = '{id}'", max_results=1)
            run = earlier[0] if earlier else self._client.create_run(experiment, tags={_TAG: id}, run_name=name)
        self._id = run.info.run_id
        if earlier:
            self._client.update_run(self._id, status="RUNNING")
        params = [Param(k, v) for k, v in _flat(config).items() if k not in run.data.params]  # they never change
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._id, params=params[start : start + _PARAMS_AT_ONCE])

    def log(self, env_steps: int, values: Mapping[str, float]) -> None:
        now_ms = time.time_ns() // 1_000_000
        rows = [self._metric(_mlflow_name(metric), value, now_ms, env_steps) for metric, value in values.items()]
        self._client.log_batch(self._id, metrics=rows)

    def close(self) -> None:
        self._client.set_terminated(self._id, status="FINISHED")


def _experiment(client: "MlflowClient", name: str, artifacts: str | None) -> str:
    """The id of the experiment of this name, which is made if there is none."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=artifacts)
        except Exception:
            found = client.get_experiment_by_name(name)
            if found is None:  # else another process was faster
                raise
    return found.experiment_id


def _mlflow_name(name: str) -> str:
    """`name` with only the letters and the parts of a path that MLflow permits."""
    name = re.sub(r"[^\w/.\- ]", "_", name)[:_NAME_LENGTH]
    return posixpath.normpath(f"/{name}").strip("/") or "_"


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow's parameters: `{"agent": {"lr": 0.1}}` is `{"agent.lr": "0.1"}`."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            flat[_mlflow_name(f"{prefix}{key}")] = text[:_PARAM_LENGTH]
    return flat


def _cannot_begin(name: str, error: Exception) -> ConfigError:
    if isinstance(error, ConfigError):
        return error
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is not None and missing.partition(".")[0] == name:
        return ConfigError(f"--log {name} needs the package {name}; install it with `pip install -e '.[track]'`.")
    return ConfigError(f"--log {name} cannot begin ({_why(error)}); {_MENDS[name]}.")


def _why(error: Exception) -> str:
    """The first sentence of an error of another package, without what may be secret in it."""
    text = str(error).strip()
    for variable, value in os.environ.items():
        if re.search("KEY|TOKEN|PASSWORD|SECRET", variable) and len(value) >= 4:
            text = text.replace(value, "***")
    first = re.split(r"(?<=[.!?])\s|\n", text, maxsplit=1)[0].rstrip(".")
    first = re.sub(r"\?\S+=\S*", "?***", re.sub(r"://\S*@", "://***@", first))[:200]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
