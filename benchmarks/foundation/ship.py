"""Puts a finished training into the package as the shipped agent, with its score card where it has been measured.

`python -m benchmarks.foundation.ship RUN_FOLDER`; then `python -m benchmarks.foundation --preset cpu`, then this again.
"""

import json
import shutil
import sys
from pathlib import Path

from rekindle.agents.registry import load
from rekindle.core.tree import flatten_arrays
from rekindle.library.artefact import read_policy, save_policy
from rekindle.library.home import shipped

RESULTS = Path(__file__).parent / "results" / "cpu.json"


def main(run: Path) -> None:
    """Copy manifest and policy; the card holds the bars of the study's newest result."""
    target = shipped() / "foundation"
    target.mkdir(parents=True, exist_ok=True)
    if run.resolve() != target.resolve():
        shutil.copy(run / "manifest.json", target / "manifest.json")
    manifest = json.loads((target / "manifest.json").read_text())
    policy = read_policy(run / "policy")
    card = {"foundation": True, "title": "foundation agent: doors 2 to 4, F0 and F0t, rules visible or hidden",
            "env_steps": manifest["env_steps"]}  # fmt: skip
    if RESULTS.is_file():
        bars = json.loads(RESULTS.read_text())["bars"]
        bars = json.loads(RESULTS.read_text())["bars"]
        card["bars"] = {bar["name"]: [bar["value"], bar["low"], bar["high"]] for bar in bars}
    meta = policy.meta
    provenance = {"run": manifest["id"], "command": " ".join(manifest["command"])}
    facts = {"agent": meta.agent, "agent_version": meta.agent_version, "config": meta.config, "spec": meta.spec}
    save_policy(target / "policy", **facts, arrays=policy.arrays, card=card, provenance=provenance)
    assert flatten_arrays(load(target / "policy").policy).keys() == policy.arrays.keys()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
