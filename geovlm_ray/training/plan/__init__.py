"""GPU planning: measured rates, an analytic model of the step time, and a search over GPU splits and staleness."""
