import json

import pytest
from benchmarks import common
from benchmarks.common import Study


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    monkeypatch.setattr(common, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize(("flags", "kept"), [([], False), (["--resume"], False), (["--resume", "--anywhere"], True)])
def test_cells_of_another_machine_are_kept_if_asked_to(root, flags, kept):
    stamp = {"revision": "abc", "machine": "elsewhere", "tree": None}
    cell = root / "demo" / "cells" / "smoke" / "arm-seed0.json"
    cell.parent.mkdir(parents=True)
    cell.write_text(json.dumps({"stamp": stamp, "values": {"score": 1}}))
    study = Study("demo", about="", argv=["--json", *flags])
    assert study.cell("arm-seed0", lambda: {"score": 2})["score"] == (1 if kept else 2)
    study.cell("arm-seed1", lambda: {"score": 3})
    result = study.finish(seeds=[0, 1], values={}, bars=[])
    assert result["machine"].split("; ") == sorted({common.machine(), *(["elsewhere"] if kept else [])})
