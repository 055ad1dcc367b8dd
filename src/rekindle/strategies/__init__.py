"""Ways from a goal, priors and a budget to a policy: a folder for each kind of goal, a file for each strategy."""
