"""Facts of captions: what they say of their objects, and whether two captions agree."""

from geovlm_ray.rewards.facts.agreement import FLOOR, fact_agreement
from geovlm_ray.rewards.facts.extraction import MAX_CAPTION_CHARS, Facts, facts
from geovlm_ray.rewards.facts.vocabulary import states_fact

__all__ = ["FLOOR", "MAX_CAPTION_CHARS", "Facts", "fact_agreement", "facts", "states_fact"]
