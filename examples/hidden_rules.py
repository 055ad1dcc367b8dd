"""Five trials with a hidden rule: the shipped agent tries things in the first and knows by the second."""

import sys

import rekindle

agent = rekindle.load("shipped/foundation")
tasks = rekindle.tasks("hold black cube", "hold purple sphere -> black cube", hide="rules", count=16)
rewards = rekindle.play(agent, tasks, trials=5, repetitions=4)  # [task, repetition, trial]

for trial, reward in enumerate(rewards.mean(axis=(0, 1)), start=1):
    sys.stdout.write(f"trial {trial}: the goal held in {reward:.1f} of 40 steps\n")
