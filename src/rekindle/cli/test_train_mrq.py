"""`rekindle train mrq`: evaluations as they are asked for, a training that is stopped and goes on, and wrong words."""

import json
import signal

import gymnasium
import jax
import numpy as np
import pytest

from rekindle.cli import train
from rekindle.cli.live import Live
from rekindle.cli.main import INTERRUPTED, main
from rekindle.library.library import Library
from rekindle.library.run import Run

LENGTH = 9
TINY = {"state_width": 4, "pair_width": 4, "action_width": 4, "hidden": 4, "batch": 8, "warmup": 40, "period": 20,
        "encoder_updates": 2, "bins": 3, "encoder_horizon": 1, "value_horizon": 1}  # fmt: skip
WORDS = ["--env", "gymnasium/Walk-v0", "--budget", "200steps", "--checkpoint-every", "0", "--evaluate-every", "70",
         "--episodes", "2", *(f"--set={name}={value}" for name, value in TINY.items()), "--json"]  # fmt: skip


class Walk(gymnasium.Env):
    """Shows noise, pays for action 1, and ends after nine steps."""

    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = LENGTH
        return self.seen(), {}

    def step(self, action):
        self.left -= 1
        return self.seen(), float(action), self.left == 0, False, {}

    def seen(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path))
    monkeypatch.setitem(gymnasium.registry, "Walk-v0", gymnasium.envs.registration.EnvSpec("Walk-v0", Walk))
    before = jax.config.jax_compilation_cache_dir
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


def evaluations(run):
    """What was found at which step."""
    rows = [row for row in run.metrics() if "score/return" in row]
    return {row["env_steps"]: {name: row[name] for name in row if name.startswith("score/")} for row in rows}


def weights(run):
    (file,) = (run.path / "policy").glob("*.safetensors")
    return file.read_bytes()


def test_a_training_that_was_stopped_comes_to_the_same_policy_and_evaluations(monkeypatch, capfd):
    """By Ctrl-C at step 70, in an episode. Evaluations are before the first step, every 70, and after the last.

    Ctrl-C in the last of them comes too late to interrupt anything.
    """
    library = Library.open()

    def rekindle(*words, code=0, stop=lambda now: None):
        monkeypatch.setattr(Live, "progress", lambda self, strategy, now: stop(now))
        assert main([*words]) == code
        return json.loads(capfd.readouterr().out.splitlines()[-1])

    def ctrl_c(now):
        if now.env_steps:
            signal.raise_signal(signal.SIGINT)

    def too_late(now):
        if now.env_steps == 200:
            signal.raise_signal(signal.SIGINT)

    told = rekindle("train", "mrq", *WORDS, stop=too_late)
    whole = Run.open(library, told["run"])
    found = evaluations(whole)
    assert (told["status"], told["env_steps"], list(found)) == ("done", 200, [0, 70, 140, 200])
    assert found[200].items() <= told["metrics"].items()
    for evaluation in found.values():
        assert evaluation["score/env_steps"] == 2 * LENGTH
        assert 0 <= evaluation["score/low"] <= evaluation["score/return"] <= evaluation["score/high"] <= LENGTH
    go_on = rekindle("train", "mrq", *WORDS, code=INTERRUPTED, stop=ctrl_c)["error"]
    (other,) = [record.id for record in library.runs() if record.id != whole.id]
    assert f"rekindle resume {other}" in go_on and list(evaluations(Run.open(library, other))) == [0, 70]
    assert Run.open(library, other).latest_checkpoint()[0] == 70
    assert weights(Run.open(library, other)) != weights(whole)
    with monkeypatch.context() as patch:
        patch.setattr(Walk, "observation_space", gymnasium.spaces.Box(-1, 1, (3,)))
        changed = rekindle("resume", other, "--json", code=2)["error"]
    assert f"{other} cannot be gone on with, since gymnasium/Walk-v0 has changed: observation 'obs'" in changed
    told = rekindle("resume", other, "--json")
    assert (told["run"], told["status"], told["env_steps"]) == (other, "done", 200)
    resumed = Run.open(library, other)
    assert weights(resumed) == weights(whole) and evaluations(resumed) == found


@pytest.mark.parametrize(
    ("algorithm", "words", "said"),
    [
        ("mrq", ["--evaluate-every", "-1"], "--evaluate-every"),
        ("mrq", ["--episodes", "0"], "--episodes"),
        ("mrq:nosuch", [], "'nosuch'"),
        ("mrq", ["--trials", "3"], "gymnasium/Walk-v0 has no trials, only episodes; leave --trials out"),
        ("mrq", ["--choose", "capacity=500"], "leave --choose out"),
        ("mrq", ["--curriculum", "plr"], "leave --curriculum out"),
        ("mrq", ["--set", "exponent=90"], "exponent must be at most 80"),
    ],
)
def test_what_cannot_be_asked_of_it_is_refused_in_a_sentence(algorithm, words, said, capfd):
    assert main(["train", algorithm, *WORDS, *words]) == 2
    out, err = capfd.readouterr()
    assert said in err and err.startswith("rekindle: ") and err.count("\n") == 1 and err.endswith(".\n")
    assert json.loads(out.splitlines()[-1])["exit_code"] == 2 and Library.open().runs() == []


def test_ctrl_c_while_it_is_measured_how_long_it_takes_leaves_a_run_to_go_on_with(monkeypatch, capfd):
    def asked(order, made, library):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "forecast", asked)
    assert main(["train", "mrq", *WORDS]) == INTERRUPTED
    (record,) = Library.open().runs()
    assert record.manifest.status == "interrupted"
    assert f"rekindle resume {record.id}" in json.loads(capfd.readouterr().out.splitlines()[-1])["error"]


def test_too_little_memory_is_one_sentence(monkeypatch, capfd):
    def too_large(order, made, library):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 40000000000 bytes.")

    monkeypatch.setattr(train, "forecast", too_large)
    assert main(["train", "mrq", *WORDS]) == 2
    said = json.loads(capfd.readouterr().out.splitlines()[-1])["error"]
    assert said.startswith("not enough memory: RESOURCE_EXHAUSTED") and "bytes. Take smaller settings" in said
