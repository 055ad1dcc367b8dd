import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rekindle.cli import train
from rekindle.cli.main import main
from rekindle.core.errors import ConfigError
from rekindle.library.library import Library
from rekindle.library.run import Run


@pytest.mark.parametrize(("text", "ends"), [(None, (1, None)), ("4", (4, 4)), ("1-4", (1, 4)), ("32767", (32767,) * 2)])
def test_ranges_of_trials(text, ends):
    assert train.trial_range(text) == ends


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "0",
        "4-",
        "-4",
        "4-1",
        "1-2-3",
        "1.5",
        "٣",
        "1-٣",
        "²",
        "1-32768",
        "9" * 5000,
        "1-" + "9" * 5000,
        "4\n",
    ],
)
def test_what_is_no_range_of_trials_is_refused(text):
    with pytest.raises(
        ConfigError, match="--trials takes a number or a range such as 1-4, up to 32767; got"
    ) as refused:
        train.trial_range(text)
    assert len(str(refused.value)) < 200 and str(refused.value).isprintable()


def test_settings_take_the_types_of_their_defaults():
    words = ("learning_rate=5e-4", "epochs=3", "memory=none", "epochs=4")
    assert train.settings("ppo", words) == {"learning_rate": 5e-4, "epochs": 4, "memory": "none"}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("epochs", "--set takes name=value, such as gamma=0.97; got 'epochs'"),
        ("epochs=1.5", "--set epochs takes a whole number below 2147483648; got '1.5'"),
        ("epochs=٣", "--set epochs takes a whole number below 2147483648; got '٣'"),
        ("num_envs=2147483648", "--set num_envs takes a whole number below 2147483648; got '2147483648'"),
        ("clip=much", "--set clip takes a number; got 'much'"),
        ("epoch=3", "ppo has no setting 'epoch'; did you mean 'epochs'"),
        ("=3", "ppo has no setting ''; known are"),
        ("epochs=" + "9" * 5000, "--set epochs takes"),
        ("memory=" + "x" * 5000, "--set memory takes"),
        ("memory=a\nb", "--set memory takes"),
        ("memory=\udcff", "--set memory takes"),
        ("x" * 5000 + "=1", "ppo has no setting 'xxx"),
        ("x" * 5000, "--set takes name=value"),
        ("\0=1", "ppo has no setting"),
    ],
)
def test_what_is_no_setting_is_refused(word, said):
    with pytest.raises(ConfigError) as refused:
        train.settings("ppo", (word,))
    assert said in str(refused.value)
    assert len(str(refused.value)) < 400 and str(refused.value).isprintable()


@dataclasses.dataclass(frozen=True)
class Other:
    """Settings of types that ppo has not."""

    fast: bool = True
    sizes: tuple[int, ...] = (1, 2)
    seed: int | None = None


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("fast=False", False),
        ("fast=true", True),
        ("fast=0", "--set fast takes true or false; got '0'"),
        ("sizes=3", "--set cannot change sizes, which is a tuple"),
        ("seed=3", "--set cannot change seed, which is a NoneType"),
    ],
)
def test_settings_of_other_types(word, value, monkeypatch):
    monkeypatch.setattr(train, "module_of", lambda name: SimpleNamespace(Config=Other))
    if isinstance(value, bool):
        assert train.settings("other", (word,)) == {"fast": value}
    else:
        with pytest.raises(ConfigError, match=value):
            train.settings("other", (word,))


TINY = ["--env", "probe/bandit-trials", "--budget", "600steps", "--set", "num_envs=8", "--set", "rollout_length=16",
        "--set", "hidden=8", "--set", "width=8"]  # fmt: skip


def test_curves_go_to_a_tracker_too(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    assert main(["train", "ppo", *TINY, "--log", "tensorboard", "--json"]) == 0
    jax.config.update("jax_compilation_cache_dir", before)
    told = json.loads(capfd.readouterr().out.splitlines()[-1])
    (events,) = (Path(told["path"]) / "tensorboard").iterdir()
    loaded = EventAccumulator(str(events))
    loaded.Reload()
    rows = Run.open(Library.open(), told["run"]).metrics()
    assert [event.step for event in loaded.Tensors("trial/reward")] == [row["env_steps"] for row in rows]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--log", "tensorbord"], "'tensorboard'"),
        (["--checkpoint-every", "-1"], "--checkpoint-every takes seconds"),
        (["--checkpoint-every", "nan"], "--checkpoint-every takes seconds"),
    ],
)
def test_what_cannot_be_is_refused_before_a_run_is_opened(words, said, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    assert main(["train", "ppo", *TINY, *words]) == 2
    jax.config.update("jax_compilation_cache_dir", before)
    assert said in capfd.readouterr().err and Library.open().runs() == []
