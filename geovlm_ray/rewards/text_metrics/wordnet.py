"""WordNet 3.0 for METEOR: put it into the environment once, open it afterwards.

``python -m geovlm_ray.rewards.text_metrics.wordnet`` installs it under ``sys.prefix/nltk_data``, where nltk looks by
itself: with nltk's own downloader, or, where that cannot reach out, from Debian's packages ``wordnet-base``
and ``wordnet-sense-index``, which are unpacked there and not installed in the system.
"""

from __future__ import annotations

import functools
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from geovlm_ray.core.errors import UserError

INSTALL_COMMAND = "python -m geovlm_ray.rewards.text_metrics.wordnet"
DEBIAN_PACKAGES = ("wordnet-base", "wordnet-sense-index")
DOWNLOAD_SECONDS = 120

# The one file that Debian leaves out; names and numbers are those of the manual page lexnames(5WN).
LEXNAMES = (
    *("adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact", "noun.attribute"),
    *("noun.body", "noun.cognition", "noun.communication", "noun.event", "noun.feeling", "noun.food", "noun.group"),
    *("noun.location", "noun.motive", "noun.object", "noun.person", "noun.phenomenon", "noun.plant"),
    *("noun.possession", "noun.process", "noun.quantity", "noun.relation", "noun.shape", "noun.state"),
    *("noun.substance", "noun.time", "verb.body", "verb.change", "verb.cognition", "verb.communication"),
    *("verb.competition", "verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion"),
    *("verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather", "adj.ppl"),
)
SYNTACTIC_CATEGORY = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}

log = logging.getLogger(__name__)


class WordNetMissing(UserError):  # noqa: N818 - the name says what is wrong
    """WordNet is not in the environment, or cannot be put there."""


@functools.cache
def open_wordnet() -> Any:
    """nltk's WordNet reader, loaded (about 3 s and 400 MB, once per process).

    Raises:
        WordNetMissing: the corpus is not where nltk looks.
    """
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError as error:
        raise WordNetMissing(
            f"METEOR needs the WordNet corpus and nltk does not find it; `{INSTALL_COMMAND}` puts it into "
            f"{data_directory()}"
        ) from error
    return wordnet


def data_directory() -> Path:
    """Where ``install`` puts the corpus; one of the folders that nltk searches by itself."""
    return Path(sys.prefix) / "nltk_data" / "corpora" / "wordnet"


def is_installed() -> bool:
    """Whether nltk finds the corpus, here or anywhere else on its search path; loads nothing."""
    import nltk

    for place in ("corpora/wordnet/data.noun", "corpora/wordnet.zip/wordnet/data.noun"):
        try:
            nltk.data.find(place)
        except LookupError:
            continue
        return True
    return False


def install() -> str:
    """Put the corpus into the environment and return a sentence on what was done.

    Nothing is done where nltk finds it already. A half-made folder never remains: the files are gathered in
    a temporary one and moved.

    Raises:
        WordNetMissing: neither way worked; the message says what each of them answered.
    """
    if is_installed():
        return "WordNet is already in the environment"
    target = data_directory()
    target.parent.mkdir(parents=True, exist_ok=True)
    answers = []
    for name, fetch in (("nltk's downloader", _from_nltk), ("Debian's packages", _from_debian)):
        log.info("WordNet: trying %s", name)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".wordnet-") as folder:
            try:
                files = fetch(Path(folder))
            except (OSError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
                answers.append(f"{name}: {_last_line(error)}")
                continue
            shutil.rmtree(target, ignore_errors=True)
            files.rename(target)
        if not open_wordnet().synsets("ship"):
            raise WordNetMissing(f"{target}: the dictionary was unpacked but does not know the word 'ship'")
        return f"WordNet was put into {target} from {name}"
    raise WordNetMissing("WordNet could not be fetched; " + "; ".join(answers))


def _from_nltk(folder: Path) -> Path:
    """Let nltk download the corpus in a process of its own, so that a dead line costs a bounded time."""
    script = (
        "import socket, sys; socket.setdefaulttimeout(10); import nltk; "
        "sys.exit(0 if nltk.download('wordnet', download_dir=sys.argv[1]) else 'nltk could not download wordnet')"
    )
    _run([sys.executable, "-c", script, str(folder)], folder)
    archive = folder / "corpora" / "wordnet.zip"
    if archive.is_file():
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder / "corpora")
    return folder / "corpora" / "wordnet"


def _from_debian(folder: Path) -> Path:
    """Download and unpack Debian's packages; the package lists are refreshed only when they lack them."""
    download = ["apt-get", "download", *DEBIAN_PACKAGES]
    try:
        _run(download, folder)
    except subprocess.CalledProcessError:
        _run(["apt-get", "update"], folder)
        _run(download, folder)
    for package in sorted(folder.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(folder)], folder)
    files = folder / "usr" / "share" / "wordnet"
    lines = (
        f"{number:02d}\t{name}\t{SYNTACTIC_CATEGORY[name.split('.')[0]]}\n" for number, name in enumerate(LEXNAMES)
    )
    (files / "lexnames").write_text("".join(lines))
    return files


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS)


def _last_line(error: Exception) -> str:
    """What to tell of a failed command: the end of its own words, or the exception's."""
    said = getattr(error, "stderr", None) or str(error)
    return str(said).strip().splitlines()[-1] if str(said).strip() else type(error).__name__


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        log.info(install())
    except WordNetMissing as problem:
        sys.exit(str(problem))
