"""A model's answers about whole scenes, as features on a map."""
