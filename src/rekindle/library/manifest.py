"""The facts of a run, as `manifest.json`. Any change of the fields is a new schema version; old ones stay readable."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from rekindle.core.errors import LibraryError
from rekindle.library import files
from rekindle.library.provenance import Code

SCHEMA_VERSION = 1
FILE = "manifest.json"
MAX_BYTES = 2**20
Kind = Literal["train", "master", "evaluate", "policy", "dataset"]
Status = Literal["running", "done", "interrupted", "failed"]
ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,79}$"
PARENT_PATTERN = r"^(shipped/)?[A-Za-z0-9][A-Za-z0-9_-]{0,79}$"
Model = TypeVar("Model", bound=BaseModel)


class Parent(BaseModel):
    """A run that this one was made from, and as what."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str = Field(pattern=PARENT_PATTERN)
    role: str
    """`init`, `teacher`, `replay`, `policy` and the like."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Hash of the parent's weights or data as they were used."""


class Score(BaseModel):
    """One number that the run reached, with its interval where it has one; further fields may say more."""

    model_config = ConfigDict(extra="allow", frozen=True, ser_json_inf_nan="strings")
    name: str
    value: float | None
    low: float | None = None
    high: float | None = None


class Manifest(BaseModel):
    """Everything that is known of a run beside its curves, decisions and weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")
    schema_version: Literal[1] = 1
    kind: Kind
    id: str = Field(pattern=ID_PATTERN)
    name: str
    created: Annotated[AwareDatetime, AfterValidator(lambda when: _in_our_time(when))]
    status: Status
    config: dict[str, JsonValue]
    command: list[str]
    seed: int | None
    parents: list[Parent] = []
    code: Code
    versions: dict[str, str]
    device: str
    env_id: str | None = None
    env_steps: int = Field(default=0, ge=0)
    wall_s: float = Field(default=0.0, ge=0.0)
    """Seconds of work, summed over resumptions."""
    scores: list[Score] = []
    notes: str = ""


def _in_our_time(when: datetime.datetime) -> datetime.datetime:
    if not 1970 < when.year < 9000:
        raise ValueError("the year is not of our time")
    return when


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run folder.

    Raises:
        LibraryError: it is missing, damaged, or of a schema that this version does not know.
    """
    return validated(Manifest, files.read_json(folder / FILE, most=MAX_BYTES), folder / FILE, LibraryError)


def manifest_from(data: bytes, where: Path | str) -> Manifest:
    """The manifest in some bytes; LibraryError as `read_manifest`, with `where` they came from."""
    return validated(Manifest, files.json_of(data, where), where, LibraryError)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a run folder, whole or not at all."""
    files.write_json(folder / FILE, manifest.model_dump(mode="json"))


def validated(model: type[Model], data: Any, where: Path | str, error: Callable[[str], Exception]) -> Model:
    """`data` as a `model` of the schema that this version writes; otherwise `error`, in one sentence."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION or isinstance(version, bool):
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        mend = "it was written by a newer rekindle: upgrade this one" if newer else "it is damaged or foreign"
        raise error(f"{where} has schema_version {version!r:.40}, this version reads {SCHEMA_VERSION}; {mend}.")
    try:
        return model.model_validate(data)
    except ValidationError as problem:
        raise error(f"{where} is damaged: {first_problem(problem)}.") from None


def first_problem(error: ValidationError) -> str:
    """The first thing that pydantic found wrong, in a few words."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) if str(part).isprintable() else repr(part) for part in first["loc"]) or "the whole"
    reason = first["msg"].lower() if first["msg"].isprintable() else repr(first["msg"].lower())
    return f"{place[:120]}: {reason[:160]}, got {first['input']!r:.80}"


def now() -> datetime.datetime:
    """The time, in UTC."""
    return datetime.datetime.now(datetime.UTC)
