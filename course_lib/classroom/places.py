"""Where the course lies on disk, and which notebook a short name means."""

from __future__ import annotations

from pathlib import Path


class UnknownNotebook(ValueError):
    """No notebook of that name; the message lists those that exist."""


def course_root() -> Path:
    """The checkout (or unpacked bundle) around the current folder, else the one this package was installed from."""
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "lectures").is_dir() and (folder / "course_lib").is_dir():
            return folder
    return Path(__file__).resolve().parents[2]


def lecture_notebooks(root: Path) -> list[Path]:
    """``lectures/NN_topic.ipynb``, by number."""
    return sorted((root / "lectures").glob("*.ipynb"))


def solution_notebooks(root: Path) -> list[Path]:
    """``solutions/aNN_topic/aNN_topic.ipynb``, by number; a student's bundle has none."""
    return sorted(path for path in (root / "solutions").glob("*/*.ipynb") if path.stem == path.parent.name)


def by_name(name: str, notebooks: list[Path]) -> list[Path]:
    """The notebooks that ``name`` means: a whole stem (``04_vae``) or its number (``04``, ``4``, ``a04``)."""
    exact = [path for path in notebooks if path.stem == name]
    if exact:
        return exact
    number = f"{int(name):02d}" if name.isascii() and name.isdecimal() else name
    return [path for path in notebooks if path.stem.split("_")[0] == number]


def resolve(names: list[str], root: Path) -> list[Path]:
    """Paths of the notebooks called ``names``, each once; all lectures and solutions when ``names`` is empty.

    Args:
        names: a file, a folder of notebooks, or a name as in ``by_name``.
        root: of the course.

    Raises:
        UnknownNotebook: a name fits nothing; the message lists what exists.
    """
    known = lecture_notebooks(root) + solution_notebooks(root)
    found: list[Path] = [] if names else known
    for name in names:
        matches = _files(Path(name)) or by_name(name, known)
        if not matches:
            raise UnknownNotebook(f"no notebook {name!r}; {_existing(known, root)}")
        found += matches
    if not found:
        raise UnknownNotebook(_existing(known, root))
    return list(dict.fromkeys(path.resolve() for path in found))


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.ipynb")) if path.is_dir() else [path] * path.is_file()


def _existing(known: list[Path], root: Path) -> str:
    if not known:
        return f"there are no notebooks under {root}/lectures and {root}/solutions"
    return "there are " + ", ".join(path.stem for path in known)
