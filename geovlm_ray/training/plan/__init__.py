"""How a loop behaves that was not run yet: measured rates, a simulator of the loop, and a search over its settings."""
