"""Publication of study pages in a folder whose README.md lists the answers."""

from __future__ import annotations

import shutil
from pathlib import Path

from geovlm_ray.core.files import read_object, read_text, write_atomically, writing
from geovlm_ray.evaluation.studies.page import PAGE, RESULTS_FILE

README = "README.md"


def publish(out: Path, folder: Path) -> None:
    """Copy the page of the study in ``out``, its figures and results to a subfolder of ``folder``, and list its answer.

    The list item of the study in ``folder/README.md`` is replaced, or added at the end.
    """
    results = read_object(out / RESULTS_FILE)
    target, index = folder / results["study"], folder / README
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(out / PAGE, target / README)
        for file in (out / RESULTS_FILE, *out.glob("*.png")):
            shutil.copyfile(file, target / file.name)
    link = f"]({results['study']}/{README})"
    item = f"- **[{results['title']}{link}.** {results['answer']}"
    lines = read_text(index).splitlines() if index.is_file() else ["# Studies", ""]
    if any(link in line for line in lines):
        lines = [item if link in line else line for line in lines]
    else:
        lines.append(item)
    write_atomically(index, "\n".join(lines) + "\n")
