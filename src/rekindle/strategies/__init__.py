"""Ways from a goal, priors and a budget to a policy; one file per strategy, cheapest first in `master.STRATEGIES`."""
