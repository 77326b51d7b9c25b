"""SHA-256 of files, of several files together, and of a model's folder.  Loads no torch."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from tunelab.errors import ConfigError
from tunelab.language.translation import translate

WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json")
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.model", "*.jinja")


def sha256_file(path: Path) -> str:
    """The sha256 of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_files(files: Iterable[Path], folder: Path) -> str:
    """One sha256 over names and contents of files below a folder: that of the list which sha256sum prints."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{sha256_file(file)}  {file.relative_to(folder).as_posix()}\n".encode())
    return digest.hexdigest()


def sha256_folder(path: Path, patterns: Sequence[str] = WEIGHT_FILES) -> str:
    """One sha256 over the names and contents of the files of a model.

    Args:
        path: Folder of the base model.
        patterns: Glob patterns of the files; by default the weights and their config.

    Raises:
        ConfigError: If no file matches: the sha256 of nothing would match any model.
    """
    files = {file for pattern in patterns for file in path.glob(pattern) if file.is_file()}
    if not files:
        raise ConfigError(
            translate(
                "{path} holds none of {names}, so nothing can be vouched for; is it a model?",
                path=path,
                names=", ".join(patterns),
            )
        )
    return sha256_files(files, path)
