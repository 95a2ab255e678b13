"""Publishing of folders on the Hugging Face Hub, with the token of ``hf auth login`` or of ``HF_TOKEN``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from geovlm_ray.core.errors import ConfigError, DataError, RunError

Kind = Literal["model", "dataset"]


@dataclass(frozen=True)
class Publication:
    """A folder that is to become a repository ``owner/name`` of the Hub, without its hidden files.

    ``replaced`` has the content of files that differ from those in the folder, or are only published; ``left_out`` are
    names of files that stay.

    Raises:
        ConfigError: the name is no name of a repository.
    """

    folder: Path
    repository: str
    kind: Kind
    replaced: Mapping[str, bytes] = field(default_factory=dict)
    left_out: Collection[str] = ()

    def __post_init__(self) -> None:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id

        try:
            validate_repo_id(self.repository)
            is_valid = "/" in self.repository
        except HFValidationError:
            is_valid = False
        if not is_valid:
            raise ConfigError(f"--push: expected owner/name on the Hugging Face Hub, found {self.repository!r:.200}")

    @property
    def files(self) -> Mapping[str, int]:
        """Paths below the folder, with their sizes in bytes.

        Raises:
            DataError: one is a symbolic link out of the folder.
        """
        root = self.folder.resolve()
        sizes = {name: len(content) for name, content in self.replaced.items()}
        for path in self.folder.rglob("*"):
            below = path.relative_to(self.folder)
            name = below.as_posix()
            is_hidden = any(part.startswith(".") for part in below.parts)
            if is_hidden or name in self.left_out or name in self.replaced or not path.is_file():
                continue
            if not path.resolve().is_relative_to(root):
                raise DataError(f"{path}: expected a file of the folder, found a symbolic link to {path.resolve()}")
            sizes[name] = path.stat().st_size
        return dict(sorted(sizes.items()))

    @property
    def description(self) -> str:
        """What `push` would do, in one sentence."""
        total = sum(self.files.values())
        return f"{len(self.files):,} files, {total / 1e6:,.1f} MB, to the {self.kind} {self.repository}"

    def push(self, *, private: bool) -> str:
        """Create the repository, if it does not exist, and upload the files in one commit; returns its address.

        Raises:
            DataError: as `files` does; then nothing is created.
            RunError: the Hub cannot be reached or refuses, for instance without a token.
        """
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
        from huggingface_hub.utils import httpx

        api = HfApi(library_name="geovlm_ray")
        contents = {name: self.replaced.get(name, self.folder / name) for name in self.files}
        try:
            url = api.create_repo(self.repository, repo_type=self.kind, private=private, exist_ok=True)
            operations = [CommitOperationAdd(name, content) for name, content in contents.items()]
            message = "Upload by geovlm_ray"
            api.create_commit(url.repo_id, operations, commit_message=message, repo_type=self.kind)
        except (LocalTokenNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError) as error:
            reason = " ".join(str(error).split())
            raise RunError(
                f"--push {self.repository}: expected the Hub to accept {self.folder}, found: {reason:.500}; "
                "`hf auth login` stores a token that may write"
            ) from error
        return str(url)
