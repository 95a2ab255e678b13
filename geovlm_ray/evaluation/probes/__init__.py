"""Reward-hacking probes: what degenerate answers earn, beside an honest but imperfect one."""
