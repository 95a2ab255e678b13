"""Installation and loading of WordNet 3.0 for METEOR.

``python -m geovlm_ray.rewards.text_metrics.wordnet`` installs it under ``sys.prefix/nltk_data``, which is on nltk's
search path: with nltk's downloader or, if that fails, from the Debian packages ``wordnet-base`` and
``wordnet-sense-index``, which are only unpacked there, not installed system-wide.
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

# The file `lexnames` is missing in the Debian packages; names and numbers are from the man page lexnames(5WN).
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


class WordNetMissing(UserError):  # noqa: N818 - the name states the problem
    """WordNet is not installed or cannot be installed."""


@functools.cache
def open_wordnet() -> Any:
    """Load nltk's WordNet reader (about 3 s and 400 MB, once per process).

    Raises:
        WordNetMissing: The corpus is not on nltk's search path.
    """
    from nltk.corpus import wordnet

    require_wordnet()
    wordnet.ensure_loaded()
    return wordnet


def require_wordnet() -> None:
    """Raise WordNetMissing if the corpus is not on nltk's search path; does not load it."""
    if not is_installed():
        raise WordNetMissing(
            f"METEOR needs the WordNet corpus, which nltk does not find; `{INSTALL_COMMAND}` installs it in "
            f"{data_directory()}"
        )


def data_directory() -> Path:
    """Folder in which `install` puts the corpus; on nltk's search path."""
    return Path(sys.prefix) / "nltk_data" / "corpora" / "wordnet"


def is_installed() -> bool:
    """Whether the corpus is on nltk's search path, as a folder or a zip file; does not load it."""
    if (data_directory() / "data.noun").is_file():
        return True
    # Slow to import.
    import nltk

    try:
        nltk.data.find("corpora/wordnet/data.noun")
    except LookupError:
        return False
    return True


def install() -> str:
    """Install the corpus unless nltk already finds it; returns a status message.

    Files are downloaded to a temporary folder and moved, so that a failure leaves no partial installation.

    Raises:
        WordNetMissing: Both sources failed; the message contains both errors.
    """
    if is_installed():
        return "WordNet is already installed"
    target = data_directory()
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for name, fetch in (("nltk's downloader", _from_nltk), ("the Debian packages", _from_debian)):
        log.info("WordNet: trying %s", name)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".wordnet-") as folder:
            try:
                files = fetch(Path(folder))
            except (OSError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
                failures.append(f"{name}: {_last_line(error)}")
                continue
            shutil.rmtree(target, ignore_errors=True)
            files.rename(target)
        if not open_wordnet().synsets("ship"):
            raise WordNetMissing(f"{target}: expected the word 'ship' in the installed WordNet, found no synset")
        return f"WordNet installed in {target} from {name}"
    raise WordNetMissing("WordNet could not be downloaded; " + "; ".join(failures))


def _from_nltk(folder: Path) -> Path:
    """Download the corpus with nltk in a subprocess, so that a stalled connection times out."""
    script = (
        "import socket, sys; socket.setdefaulttimeout(10); import nltk; "
        "sys.exit(0 if nltk.download('wordnet', download_dir=sys.argv[1]) else 'nltk could not download wordnet')"
    )
    _run([sys.executable, "-c", script, str(folder)], folder)
    archive = folder / "corpora" / "wordnet.zip"
    if archive.is_file():
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(folder / "corpora")
    return folder / "corpora" / "wordnet"


def _from_debian(folder: Path) -> Path:
    """Download and unpack the Debian packages; updates the package lists only if the download fails."""
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
    """Last line of the command's stderr or of the exception message; else the exception type."""
    output = str(getattr(error, "stderr", None) or error).strip()
    return output.splitlines()[-1] if output else type(error).__name__


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        log.info(install())
    except WordNetMissing as problem:
        sys.exit(str(problem))
