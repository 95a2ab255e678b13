"""Questions and answers about synthetic scenes, with one builder per task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from geovlm_ray.core.schema import Box, GroundedText, Target
from geovlm_ray.data.scene_draw import COVERS, GROUND, OBJECTS, PAINT, SCENE_SIZE, DrawnScene, Sensor, Thing

Rng = np.random.Generator
T = TypeVar("T")
COUNT_WORDS = ("no", "one", "two", "three")
ASPECT = {"ship": 2.2, "plane": 1.0, "storage tank": 1.0, "vehicle": 1.7, "building": 1.3}
DAMAGE = ("no damage", "destroyed")
EVENTS = ("no change", "construction", "demolition", "flood")
SENSORS: dict[Sensor, float] = {"optical": 0.8, "grey": 0.1, "sar": 0.1}
"""Share of each sensor among the scenes whose questions and answers name no colour."""


@dataclass(frozen=True)
class Record:
    """One synthetic record: scenes of its images, question, target and reference response."""

    scenes: tuple[DrawnScene, ...]
    question: str
    target: Target
    reasoning: str
    answer: str
    labels: tuple[str, ...] = ()


def scene_classification(rng: Rng) -> Record:
    """Classify an image with one land cover."""
    cover = _pick(rng, COVERS)
    question = _pick(rng, ("which land cover is this ?", "classify the scene .", "what kind of land is shown ?"))
    return Record(
        (_any_sensor(rng, _scene(rng, (cover,))),), question, (cover,), f"the image shows {cover} .", cover, COVERS
    )


def multilabel_classification(rng: Rng) -> Record:
    """List the one or two land covers and, in some images, a kind of object."""
    covers = tuple(str(c) for c in rng.permutation(COVERS)[: rng.integers(1, 3)])
    things = _things(rng, _pick(rng, _kinds_on(covers[0])), 1) if len(covers) == 1 and rng.random() < 0.5 else ()
    names = (*covers, *dict.fromkeys(t.kind for t in things))
    names = tuple(n for n in (*COVERS, *OBJECTS) if n in names)
    question = _pick(rng, ("which classes are present ?", "list all classes in the image ."))
    seen = " and ".join(names)
    return Record(
        (_any_sensor(rng, _scene(rng, covers, things)),),
        question,
        names,
        f"there is {seen} .",
        ", ".join(names),
        (*COVERS, *OBJECTS),
    )


def vqa(rng: Rng) -> Record:
    """Ask for presence, count, or rural versus urban."""
    return _pick(rng, (_presence, _count, _rural_urban))(rng)


def _presence(rng: Rng) -> Record:
    kind = _pick(rng, OBJECTS)
    present = bool(rng.random() < 0.5)
    things = _things(rng, kind, int(rng.integers(1, 3))) if present else ()
    question = _pick(rng, (f"is there a {kind} ?", f"can you see a {kind} in the image ?"))
    reasoning = f"{COUNT_WORDS[len(things)]} {_plural(kind, len(things))} on {GROUND[kind]} ."
    answer = "yes" if present else "no"
    return Record((_scene(rng, (GROUND[kind],), things),), question, *_text_answer(answer, reasoning))


def _count(rng: Rng) -> Record:
    kind, n = _pick(rng, OBJECTS), int(rng.integers(1, 4))
    things = _things(rng, kind, n)
    question = _pick(rng, (f"how many {_plural(kind, 2)} are there ?", f"count the {_plural(kind, 2)} ."))
    reasoning = f"{COUNT_WORDS[n]} {_plural(kind, n)} on {GROUND[kind]} ."
    return Record((_scene(rng, (GROUND[kind],), things),), question, *_text_answer(str(n), reasoning))


def _rural_urban(rng: Rng) -> Record:
    cover = "urban" if rng.random() < 0.5 else _pick(rng, ("farmland", "forest"))
    answer = "urban" if cover == "urban" else "rural"
    question = _pick(rng, ("is this area rural or urban ?", "rural or urban ?"))
    return Record((_scene(rng, (cover,)),), question, *_text_answer(answer, f"the image shows {cover} ."))


def object_detection(rng: Rng) -> Record:
    """Detect all objects of one kind."""
    kind, n = _pick(rng, OBJECTS), int(rng.choice(3, p=(0.5, 0.35, 0.15))) + 1
    things = _things(rng, kind, n)
    question = _pick(rng, (f"find all {_plural(kind, 2)} .", f"detect every {kind} ."))
    places = " and ".join(dict.fromkeys(place(t) for t in things))
    reasoning = f"{COUNT_WORDS[n]} {_plural(kind, n)} , {places} ."
    return Record(
        (_any_sensor(rng, _scene(rng, (GROUND[kind],), things)),), question, *_boxes_answer(things, reasoning)
    )


def referred_object_detection(rng: Rng) -> Record:
    """Detect one of two objects of a kind, identified by its colour."""
    kind = _pick(rng, OBJECTS)
    paints = rng.permutation(PAINT[kind])
    things = tuple(replace(t, paint=str(p)) for t, p in zip(_things(rng, kind, 2), paints, strict=False))
    referred = things[int(rng.integers(2))]
    question = _pick(rng, (f"where is the {referred.paint} {kind} ?", f"find the {referred.paint} {kind} ."))
    reasoning = f"the {referred.paint} {kind} is at the {place(referred)} ."
    return Record((_scene(rng, (GROUND[kind],), things),), question, *_boxes_answer((referred,), reasoning))


def visual_grounding(rng: Rng) -> Record:
    """Locate the only object in the image."""
    kind = _pick(rng, OBJECTS)
    (thing,) = _things(rng, kind, 1)
    question = _pick(rng, (f"locate the {thing.paint} {kind} .", f"give the box of the {kind} ."))
    reasoning = f"one {thing.paint} {kind} at the {place(thing)} ."
    return Record((_scene(rng, (GROUND[kind],), (thing,)),), question, *_boxes_answer((thing,), reasoning))


def region_captioning(rng: Rng) -> Record:
    """Caption the object in a box."""
    ground = _pick(rng, tuple(dict.fromkeys(GROUND.values())))
    kinds = [_pick(rng, _kinds_on(ground)) for _ in range(2)]
    things = tuple(
        replace(t, kind=k, paint=_pick(rng, PAINT[k])) for t, k in zip(_things(rng, kinds[0], 2), kinds, strict=True)
    )
    thing = things[int(rng.integers(2))]
    question = f"what is at {_format_box(thing)} ?"
    text = f"a {thing.paint} {thing.kind} on {ground}"
    references = (text, f"{thing.paint} {thing.kind} on {ground}", f"a {thing.kind} painted {thing.paint} on {ground}")
    reasoning = f"the box is at the {place(thing)} ."
    return Record((_scene(rng, (ground,), things),), question, references, reasoning, text)


def image_captioning(rng: Rng) -> Record:
    """Caption the image."""
    kind, n = _pick(rng, OBJECTS), int(rng.integers(0, 4))
    things, ground = _things(rng, kind, n), GROUND[kind]
    question = _pick(rng, ("describe the image .", "write a caption ."))
    if not things:
        cover = _pick(rng, COVERS)
        references = (f"an image of {cover}", f"there is only {cover}", f"{cover} without objects")
        return Record((_scene(rng, (cover,)),), question, references, f"only {cover} is seen .", references[0])
    objects = f"{COUNT_WORDS[n]} {_plural(kind, n)}"
    verb = "is" if n == 1 else "are"
    references = (
        f"{objects} on {ground}",
        f"there {verb} {objects} on {ground}",
        f"an image of {ground} with {objects}",
    )
    return Record((_scene(rng, (ground,), things),), question, references, f"{objects} on {ground} .", references[0])


def grounded_description(rng: Rng) -> Record:
    """Caption the image with the boxes of the objects."""
    kind, n = _pick(rng, OBJECTS), int(rng.integers(1, 3))
    things, ground = _sorted_by_box(_things(rng, kind, n)), GROUND[kind]
    objects = f"{COUNT_WORDS[n]} {_plural(kind, n)}"
    question = _pick(rng, ("describe the image with boxes .", "describe and locate the objects ."))
    target = GroundedText(f"{objects} on {ground}", tuple(percent_box(t) for t in things))
    answer = f"<ref>{objects}</ref><box>{_format_boxes(things)}</box> on {ground}"
    reasoning = f"{objects} , {' and '.join(dict.fromkeys(place(t) for t in things))} ."
    return Record((_scene(rng, (ground,), things),), question, target, reasoning, answer)


def change_captioning(rng: Rng) -> Record:
    """Caption the change between two images."""
    question = _pick(rng, ("what changed between the two images ?", "describe the change ."))
    event = _pick(rng, EVENTS[:3])
    before, after, thing = _pair(rng, event)
    if event == "no change":
        references: tuple[str, ...] = ("nothing has changed", "the two images are the same", "there is no change")
        reasoning = "both images look the same ."
    else:
        where, verb = place(thing), "built" if event == "construction" else "removed"
        references = (
            f"a {thing.paint} building was {verb} at the {where}",
            f"a {thing.paint} building at the {where} has been {verb}",
            f"at the {where} a {thing.paint} building was {verb}",
        )
        reasoning = f"the {where} looks different ."
    return Record((before, after), question, references, reasoning, references[0])


def temporal_classification(rng: Rng) -> Record:
    """Classify the event in a sequence of two or three images."""
    event = _pick(rng, EVENTS)
    before, after, thing = _pair(rng, event)
    third = (_relight(rng, after),) if rng.random() < 0.5 else ()
    question = _pick(rng, ("which event does the sequence show ?", "classify the change over time ."))
    reasoning = {
        "no change": "all images look the same .",
        "flood": "the land turns to water .",
        "construction": f"a building appears at the {place(thing)} .",
        "demolition": f"a building vanishes at the {place(thing)} .",
    }[event]
    return Record((before, after, *third), question, (event,), reasoning, event, EVENTS)


def damage_assessment(rng: Rng) -> Record:
    """Classify whether the building in a box was destroyed between two images."""
    (thing,) = _things(rng, "building", 1)
    destroyed = bool(rng.random() < 0.5)
    before = _scene(rng, (_pick(rng, ("farmland", "forest")),), (thing,))
    after = _relight(rng, replace(before, things=(replace(thing, destroyed=destroyed),)))
    level = DAMAGE[destroyed]
    question = f"how damaged is the building at {_format_box(thing)} ?"
    reasoning = f"the building at the {place(thing)} {'lies in ruins' if destroyed else 'is intact'} ."
    return Record((before, after), question, (level,), reasoning, level, DAMAGE)


BUILDERS: dict[str, Callable[[Rng], Record]] = {
    builder.__name__: builder
    for builder in (
        scene_classification,
        multilabel_classification,
        temporal_classification,
        damage_assessment,
        vqa,
        object_detection,
        referred_object_detection,
        visual_grounding,
        region_captioning,
        image_captioning,
        grounded_description,
        change_captioning,
    )
}


def place(thing: Thing) -> str:
    """Coarse position of an object: left, right, top, bottom or center."""
    x, y = ((thing.box[i] + thing.box[i + 2]) / 2 / SCENE_SIZE - 0.5 for i in (0, 1))
    if max(abs(x), abs(y)) < 0.1:
        return "center"
    if abs(x) >= abs(y):
        return "left" if x < 0 else "right"
    return "top" if y < 0 else "bottom"


def percent_box(thing: Thing) -> Box:
    """Box of an object in integer percent of the side."""
    return Box(tuple(float(min(99, round(100 * v / SCENE_SIZE))) for v in thing.box))


def _pick(rng: Rng, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _kinds_on(cover: str) -> tuple[str, ...]:
    return tuple(k for k in OBJECTS if GROUND[k] == cover) or ("building",)


def _plural(kind: str, n: int) -> str:
    return kind if n == 1 else f"{kind}s"


def _scene(rng: Rng, covers: tuple[str, ...], things: tuple[Thing, ...] = ()) -> DrawnScene:
    seeds = rng.integers(0, 2**31, 2)
    side = _pick(rng, ("left", "right", "top", "bottom"))
    return DrawnScene(covers, things, side, texture_seed=int(seeds[0]), light_seed=int(seeds[1]))


def _any_sensor(rng: Rng, scene: DrawnScene) -> DrawnScene:
    """The same scene seen by a sensor of `SENSORS`."""
    index = int(rng.choice(len(SENSORS), p=list(SENSORS.values())))
    return replace(scene, sensor=list(SENSORS)[index])


def _relight(rng: Rng, scene: DrawnScene) -> DrawnScene:
    """The same scene with a different illumination."""
    return replace(scene, light_seed=int(rng.integers(0, 2**31)))


def _pair(rng: Rng, event: str) -> tuple[DrawnScene, DrawnScene, Thing]:
    """Scenes before and after an event, and the building that may appear or vanish."""
    (thing,) = _things(rng, "building", 1)
    empty = _scene(rng, (_pick(rng, ("farmland", "forest", "bare ground")),))
    built = replace(empty, things=(thing,))
    unchanged = built if rng.random() < 0.5 else empty
    before, after = {
        "no change": (unchanged, unchanged),
        "construction": (empty, built),
        "demolition": (built, empty),
        "flood": (unchanged, replace(unchanged, covers=("water",), things=())),
    }[event]
    return before, _relight(rng, after), thing


def _things(rng: Rng, kind: str, n: int) -> tuple[Thing, ...]:
    """``n`` objects of a kind with gaps between them."""
    while True:
        things: list[Thing] = []
        for _ in range(60):
            if len(things) == n:
                return tuple(things)
            box = _random_box(rng, kind, n)
            if all(_separated(box, t.box) for t in things):
                things.append(Thing(kind, str(_pick(rng, PAINT[kind])), box))


def _random_box(rng: Rng, kind: str, n: int) -> tuple[int, int, int, int]:
    max_side = 56 if n == 1 else 44
    long = int(rng.integers(28, max_side))
    short = max(16, round(long / ASPECT[kind]))
    w, h = (long, short) if rng.random() < 0.5 else (short, long)
    x, y = int(rng.integers(3, SCENE_SIZE - w - 6)), int(rng.integers(3, SCENE_SIZE - h - 6))
    return x, y, x + w, y + h


def _separated(a: tuple[int, int, int, int], b: tuple[int, int, int, int], gap: int = 6) -> bool:
    return a[2] + gap <= b[0] or b[2] + gap <= a[0] or a[3] + gap <= b[1] or b[3] + gap <= a[1]


def _sorted_by_box(things: tuple[Thing, ...]) -> tuple[Thing, ...]:
    return tuple(sorted(things, key=lambda t: t.box))


def _format_box(thing: Thing) -> str:
    return "[" + ", ".join(f"{int(v):02d}" for v in percent_box(thing).coords) + "]"


def _format_boxes(things: tuple[Thing, ...]) -> str:
    return "[" + ", ".join(_format_box(t) for t in _sorted_by_box(things)) + "]"


def _text_answer(answer: str, reasoning: str) -> tuple[str, str, str]:
    return answer, reasoning, answer


def _boxes_answer(things: tuple[Thing, ...], reasoning: str) -> tuple[tuple[Box, ...], str, str]:
    return tuple(percent_box(t) for t in _sorted_by_box(things)), reasoning, _format_boxes(things)
