"""What to type to repeat a run: the code as it was, and the command, built from the facts in its manifest."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from rekindle.library.provenance import PATCH
from rekindle.library.records import Record


def recipe(record: Record) -> list[str]:
    """Lines for a shell, comments among them; nothing in a manifest is taken for a command, so it may be foreign."""
    manifest = record.manifest
    versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))
    lines = [f"# {record.id}: {_shown(manifest.name)}, made with {_shown(versions)} on {_shown(manifest.device)}"]
    lines += [
        f"# made from {parent.id} ({_shown(parent.role)}), weights {(parent.sha256 or 'unknown')[:16]}"
        for parent in manifest.parents
    ]
    if manifest.code.revision is not None:
        lines.append(f"git checkout --detach {manifest.code.revision}")
    if manifest.code.dirty:
        patch = record.fetch(PATCH)
        kept = patch.is_file()
        digest = (manifest.code.difference_sha256 or "unknown")[:16]
        lines.append(
            f"git apply {shlex.quote(str(patch))}" if kept else f"# the tree differed ({digest}); that was not kept"
        )
    words = _words(manifest.kind, dict(manifest.config), manifest.seed)
    if words is None:
        lines.append(f"# begun by: {_shown(shlex.join(manifest.command))}")
    else:
        lines.append(_shown(shlex.join(["rekindle", *words])))
    return lines


def _words(kind: str, config: Mapping[str, Any], seed: int | None) -> list[str] | None:
    """The command line of a run that a command of ours can repeat; None for others."""
    try:
        maker = {"train": _train, "master": _master, "evaluate": _evaluate}.get(kind)
        return None if maker is None else [str(word) for word in maker(config, seed)]
    except (KeyError, TypeError, ValueError):  # begun by a program with a config of its own
        return None


def _train(config: Mapping[str, Any], seed: int | None) -> Iterator[Any]:
    if config.get("teacher") is not None:
        yield from _reincarnate(config, seed)
        return
    yield from ("train", config["agent"], "--env", config["env"], "--budget", config["budget"], "--seed", seed or 0)
    if config.get("curriculum", "none") != "none":
        yield from ("--curriculum", config["curriculum"])
    for name, value in dict(config.get("choice", {})).items():
        yield from ("--choose", f"{name}={_value(value)}")
    for name, value in dict(config.get("pool", {})).items():
        yield from ("--pool", f"{name}={_value(value)}")
    if config.get("init") is not None:
        yield from ("--from", config["init"])
    if "begin_with" in config.get("partners", {}):
        yield from ("--partner", config["partners"]["begin_with"])
    low, high = config.get("min_trials", 1), config.get("max_trials")
    if high is not None:
        yield from ("--trials", f"{low}-{high}")
    if "evaluate_steps" in config:
        yield from ("--evaluate-every", config["evaluate_steps"], "--episodes", config["episodes"])
    yield from _kept(config)
    for name, value in dict(config["settings"]).items():
        yield from ("--set", f"{name}={_value(value)}")


def _reincarnate(config: Mapping[str, Any], seed: int | None) -> Iterator[Any]:
    yield from ("reincarnate", "--teacher", config["teacher"], "--student", config["agent"], "--env", config["env"])
    yield from ("--method", config["method"], "--budget", config["budget"], "--seed", seed or 0)
    for option, values in (("--choose", "method_settings"), ("--pool", "pool"), ("--set", "settings")):
        for name, value in dict(config[values]).items():
            yield from (option, f"{name}={_value(value)}")
    if config.get("data") is not None:
        yield from ("--data", config["data"])
    if config.get("student_episodes") is not None:
        yield from ("--episodes", config["student_episodes"])
    yield from _kept(config)
    yield from _reading(config)


def _kept(config: Mapping[str, Any]) -> Iterator[Any]:
    """What is written of a training, and where."""
    if config.get("checkpoint_seconds", 60.0) != 60.0:
        yield from ("--checkpoint-every", config["checkpoint_seconds"])
    for tracker in config.get("log", ()):
        yield from ("--log", tracker)


def _master(config: Mapping[str, Any], seed: int | None) -> Iterator[Any]:
    if config.get("env") is not None:
        yield from ("master", "--env", config["env"], "--reach", config["reach"])
        for name, value in dict(config["pool"]).items():
            yield from ("--pool", f"{name}={_value(value)}")
    else:
        yield from ("master", config["goal"])
        for rule in config["rules"]:
            yield from ("--rule", rule)
        yield from ("--hide", config["hide"], "--world", config["world"], "--target", config["target"])
        if config["trials"] is not None:
            yield from ("--trials", config["trials"])
    yield from ("--budget", config["budget"], "--seed", seed or 0)
    if config["source"] is not None:
        yield from ("--from", config["source"])
    yield from _reading(config)
    if not config["reuse"]:
        yield "--no-reuse"
    for tracker in config.get("log", ()):
        yield from ("--log", tracker)


def _reading(config: Mapping[str, Any]) -> Iterator[str]:
    """How a teacher from elsewhere is read."""
    return (f"--{flag}" for flag in ("trust", "valued") if config.get(flag))


def _evaluate(config: Mapping[str, Any], seed: int | None) -> Iterator[Any]:
    yield from ("evaluate", config["agent"], "--tasks", config["tasks"], "--trials", config["trials"])
    yield from ("--count", config["count"], "--repetitions", config["repetitions"], "--seed", seed or 0)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _shown(text: str) -> str:
    """On one line, whatever it holds."""
    return "".join(char if char.isprintable() else "?" for char in text)
