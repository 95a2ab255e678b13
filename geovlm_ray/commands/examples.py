"""Examples of every command, which its help shows."""

from __future__ import annotations

EXAMPLES = {
    "train": (
        "geovlm-ray train demo",
        "geovlm-ray train demo --local run.name=second learner.lr=5e-5",
        "geovlm-ray train geovlm-r1 --dry-run data.path=/shared/data model.path=/shared/models/sft",
    ),
    "sft": ("geovlm-ray sft geovlm-r1 --out models/sft data.path=data sft.steps=2000",),
    "evaluate": (
        "geovlm-ray evaluate runs/demo --benchmarks drawn",
        "geovlm-ray evaluate MODEL --benchmarks all --data ROOT",
        "geovlm-ray evaluate --predictions answers.jsonl --task vqa",
        "geovlm-ray evaluate ships.geojson --geo truth.gpkg --scene scene.tif",
    ),
    "predict": (
        "geovlm-ray predict runs/demo scene.tif --task object_detection --prompt 'Find all ships.' --out ships.geojson",
    ),
    "compare": ("geovlm-ray compare runs/first runs/second",),
    "study": ("geovlm-ray study --list", "geovlm-ray study kl --short"),
    "export": (
        "geovlm-ray export runs/demo model",
        "geovlm-ray export runs/demo model --push OWNER/NAME --dry-run",
    ),
    "chat": ("geovlm-ray chat runs/demo image.png --question 'Is there a ship?'",),
    "web": ("geovlm-ray web runs/demo",),
    "score": ("geovlm-ray score responses.jsonl", "geovlm-ray score --probe reward.preset=paper"),
    "top": ("geovlm-ray top runs/demo",),
    "report": ("geovlm-ray report runs/demo",),
    "data": (
        "geovlm-ray data convert auto downloads/DIOR data/dior",
        "geovlm-ray data validate data/dior",
        "geovlm-ray data preview data/dior --out dior.html",
    ),
    "config": (
        "geovlm-ray config geovlm-r1 > mine.yaml",
        "geovlm-ray config --grep clip",
        "geovlm-ray config geovlm-r1 --diff demo",
    ),
    "plan": ("geovlm-ray plan runs/demo --gpus 8",),
    "doctor": ("geovlm-ray doctor", "RAY_ADDRESS=auto geovlm-ray doctor"),
}
"""Command lines, by command."""
