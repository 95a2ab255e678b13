"""Class names of a dataset, found in what models write."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from geovlm_ray.tasks.labels import label_key


@dataclass(frozen=True)
class Synonyms:
    """Other names of classes, beside the shipped ones: ``groups`` of names that mean the same class."""

    groups: tuple[tuple[str, ...], ...] = ()


class ClassNames:
    """A vocabulary of class names; names that mean the same class have the same key."""

    def __init__(self, names: tuple[str, ...], synonyms: Synonyms) -> None:
        self._keys = {label_key(name): label_key(name) for name in names}

    def key_of(self, text: str) -> str | None:
        """Key of the one class that a text names; None if it names none or several."""
        return self._keys.get(label_key(text))


@functools.lru_cache(maxsize=4096)
def class_names(names: tuple[str, ...], synonyms: Synonyms = Synonyms()) -> ClassNames:
    """The vocabulary of these names; vocabularies are kept, because the examples of a dataset share one."""
    return ClassNames(names, synonyms)
