"""Steps as Minari's episodes and back: what the cut makes of them, and the real thing where it is installed."""

import json
import sys

import numpy as np
import pytest

from rekindle.cli.main import main
from rekindle.core.errors import ConfigError, LibraryError
from rekindle.library import bundle
from rekindle.library.dataset import read_dataset, save_dataset
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.library.test_artefact import save
from rekindle.library.test_dataset import SPEC
from rekindle.reincarnation.minari import Episode, cut, joined

FLAGS = {"terminated": [(1, 0)], "truncated": [(2, 1)]}
"""Of four steps in two rows: an end after two steps, and a time limit after three."""


def steps():
    flags = {name: np.zeros((4, 2), bool) for name in FLAGS}
    for name, places in FLAGS.items():
        for place in places:
            flags[name][place] = True
    return {"obs.x": np.arange(24, dtype=np.uint8).reshape(4, 2, 3), "action": np.arange(8).reshape(4, 2) % 2,
            "reward": np.arange(8, dtype=np.float32).reshape(4, 2), **flags}  # fmt: skip


def wide():
    return {**SPEC, "action": {"kind": "discrete", "n": 2, "dtype": "int64"}}


def test_rows_are_cut_where_episodes_end_and_the_last_observation_is_there_twice():
    episodes = list(cut(steps()))
    assert [episode.reward.tolist() for episode in episodes] == [[0, 2], [4, 6], [1, 3, 5], [7]]
    assert [episode.terminated[-1] for episode in episodes] == [True, False, False, False]
    assert [episode.truncated[-1] for episode in episodes] == [False, True, True, True]
    for episode in episodes:
        assert len(episode.obs["x"]) == len(episode.action) + 1
        np.testing.assert_array_equal(episode.obs["x"][-1], episode.obs["x"][-2])
        assert not episode.terminated[:-1].any() and not episode.truncated[:-1].any()


def test_episodes_follow_each_other_in_one_row():
    back = joined(cut(steps()), wide(), 8)
    for name, array in steps().items():
        if name != "truncated":
            np.testing.assert_array_equal(back[name][:, 0], np.concatenate([array[:, 0], array[:, 1]]))
    assert back["truncated"][:, 0].tolist() == [False] * 3 + [True] + [False] * 2 + [True] * 2


@pytest.mark.parametrize(
    ("change", "promised", "words"),
    [
        ({}, 9, "there are 8 steps, its facts promise 9"),
        ({}, 7, "more than the 7 steps"),
        (
            {"obs": {"x": np.zeros((3, 4), np.uint8)}},
            8,
            r"episode 0 has uint8\[2, 4\] for 'obs.x', expected uint8\[2, 3\]",
        ),
        ({"obs": {"y": np.zeros((3, 3), np.uint8)}}, 8, "for 'obs.x', expected"),
        ({"action": np.zeros(2)}, 8, r"episode 0 has float64\[2\] for 'action', expected int64"),
    ],
)
def test_episodes_that_are_not_as_their_facts_say(change, promised, words):
    episodes = [episode._replace(**(change if number == 0 else {})) for number, episode in enumerate(cut(steps()))]
    with pytest.raises(LibraryError, match=words):
        joined(episodes, wide(), promised)


@pytest.fixture
def minari(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return pytest.importorskip("minari", reason="pip install -e '.[minari]'")


@pytest.fixture
def library(tmp_path, monkeypatch):
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path / "home"))
    return Library.open()


@pytest.fixture
def answer(library, capsys):
    def ask(*words, code=0):
        assert main([*words, "--json"]) == code
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return ask


@pytest.fixture
def run(library):
    run = Run.create(library, "train", name="a", config={}, seed=0)
    save_dataset(run.path / "replay", spec=wide(), arrays=steps(), recipe={"options": {"sticky": 0.1}})
    save(run.path / "policy", spec=wide())
    run.finish("done")
    return run


def test_a_replay_goes_to_minari_and_comes_back(minari, library, run, answer, tmp_path):
    told = answer("library", "export", run.id, "--minari", "catch/ours-v0")
    assert (told["episodes"], told["steps"]) == (4, 8)
    theirs = minari.load_dataset("catch/ours-v0")
    assert [len(episode) for episode in theirs] == [2, 2, 3, 1] and "repeats" in theirs.storage.metadata["description"]
    assert all(episode.observations["x"].shape == (len(episode) + 1, 3) for episode in theirs)
    assert list(minari.list_local_datasets()) == ["catch/ours-v0"]
    assert (
        "already; choose another name"
        in answer("library", "export", run.id, "--minari", "catch/ours-v0", code=2)["error"]
    )
    kept = answer("library", "import", "--minari", "catch/ours-v0")
    data = read_dataset(library.find(kept["id"]).path)
    assert data.meta.spec == wide() and data.meta.recipe["options"] == {"sticky": 0.1} and kept["transitions"] == 8
    for name, array in joined(cut(steps()), wide(), 8).items():
        np.testing.assert_array_equal(data.arrays[name], array)
    (listed,) = answer("library", "ls", "--kind", "dataset")["runs"]
    assert listed["id"] == kept["id"] and answer("library", "verify")["ok"]
    assert answer("library", "show", kept["id"])["replay"]["transitions"] == 8
    file = bundle.export(library, kept["id"], tmp_path / "data.rekindle").path
    assert bundle.load(Library(tmp_path / "there", shipped=tmp_path / "none"), file).new
    wrong = answer("reincarnate", "--teacher", kept["id"], "--env", "gymnax/Catch-bsuite", code=2)["error"]
    assert "holds no policy, so it cannot teach; give it as --data beside a teacher that does" in wrong


def made_by_minari(minari, reward=1.0):
    gymnasium = pytest.importorskip("gymnasium")
    from minari.data_collector.episode_buffer import EpisodeBuffer

    env = gymnasium.make("CartPole-v1")
    buffers = []
    for seed in range(3):
        seen, acted, over = [env.reset(seed=seed)[0]], [], False
        while not over:
            acted.append(len(acted) % 2)
            obs, _, over, _, _ = env.step(acted[-1])
            seen.append(obs)
        ends = [False] * (len(acted) - 1) + [True]
        buffers.append(EpisodeBuffer(observations=seen, actions=acted, rewards=[reward] * len(acted), terminations=ends,
                                     truncations=[False] * len(acted)))  # fmt: skip
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers("cartpole/swing-v3", buffers, env="CartPole-v1", algorithm_name="swing")
    return buffers


def test_a_dataset_of_others_becomes_a_run(minari, library, answer):
    buffers = made_by_minari(minari)
    kept = answer("library", "import", "--minari", "cartpole/swing-v3")
    record = library.find(kept["id"])
    data = read_dataset(record.path)
    assert (record.manifest.kind, record.manifest.env_id) == ("dataset", "gymnasium/CartPole-v1")
    assert data.meta.spec["kind"] == "host" and data.meta.spec["obs"]["obs"]["shape"] == [4]
    assert data.meta.recipe["algorithm_name"] == "swing" and data.arrays["terminated"].sum() == 3
    assert data.transitions == sum(map(len, buffers)) and not data.arrays["truncated"].any()
    acted_on = np.concatenate([buffer.observations[:-1] for buffer in buffers])
    np.testing.assert_array_equal(data.arrays["obs.obs"][:, 0], acted_on)


def test_what_cannot_be_used_is_one_sentence_and_nothing_is_kept(minari, library, run, answer, tmp_path):
    made_by_minari(minari, reward=float("nan"))
    importing = ("library", "import", "--minari")
    assert "'reward' holds numbers that are not finite" in answer(*importing, "cartpole/swing-v3", code=2)["error"]
    file = tmp_path / "minari" / "cartpole" / "swing-v3" / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:3000])
    assert "Minari cannot read cartpole/swing-v3" in answer(*importing, "cartpole/swing-v3", code=2)["error"]
    assert "`minari download no/such-v0` fetches" in answer(*importing, "no/such-v0", code=2)["error"]
    for name in ("../evil-v0", "plain", "/etc/x-v0"):
        assert "is called NAMESPACE/NAME-v0" in answer("library", "export", run.id, "--minari", name, code=2)["error"]
    assert "takes a file" in answer("library", "import", code=2)["error"]
    assert "neither a file" in answer(*importing, "no/such-v0", "x.rekindle", code=2)["error"]
    assert [record.id for record in library.runs()] == [run.id]


def test_without_minari_a_sentence_says_what_to_install(monkeypatch):
    from rekindle.reincarnation import minari

    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(ConfigError, match=r"not installed; pip install -e '\.\[minari\]'"):
        minari.read("a/b-v0")


def test_an_episode_without_an_end_is_cut_off():
    (whole,) = list(cut({name: array[2:, :1] for name, array in steps().items()}))
    loose = Episode(whole.obs, whole.action, whole.reward, whole.terminated, np.zeros(2, bool))
    assert joined([loose, loose], wide(), 4)["truncated"][:, 0].tolist() == [False, True, False, True]
