"""Reward-hacking probes: rewards of degenerate answers relative to an honest, imperfect baseline."""
