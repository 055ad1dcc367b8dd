"""Policies rebuilt from artefacts that others wrote."""

import json
import shutil

import pytest

from rekindle.agents.registry import load
from rekindle.core.errors import CheckpointError
from rekindle.library.home import shipped


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"agent": "sarsa"}, "an agent 'sarsa' that this version does not have"),
        ({"agent_version": 99}, "update rekindle"),
        ({"config": {"newer_setting": 1}}, "no setting 'newer_setting'"),
        ({"config": {"hidden": "abc"}}, "hidden takes a int; got 'abc'"),
        ({"config": {"hidden": True}}, "hidden takes a int; got True"),
        ({"config": {"learning_rate": "Infinity"}}, "learning_rate takes a float"),
    ],
)
def test_what_cannot_be_rebuilt_is_one_sentence_that_names_the_folder(change, said, tmp_path):
    folder = tmp_path / "policy"
    shutil.copytree(shipped() / "foundation" / "policy", folder)
    facts = json.loads((folder / "policy.json").read_text())
    (folder / "policy.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(CheckpointError, match=said) as caught:
        load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
