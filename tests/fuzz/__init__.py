"""Coverage-guided fuzzing of everything that reads what strangers wrote; needs ``pip install atheris``."""
