"""Which study of which zoo a folder holds: rows of another one would take the place of its own."""

import hashlib
from pathlib import Path

from pydantic import ValidationError

from studies.common.base import PlainConfig, StudyConfig
from zoo.config import StrictModel, first_error
from zoo.store.atomic import write_text
from zoo.store.bounds import read_json
from zoo.store.mapped import escape
from zoo.store.zoo import load

RECORD = ".study.json"


class Claim(StrictModel):
    """What a folder of a study belongs to.

    Attributes:
        study: Name of the study.
        zoo: Hash of the fingerprints of all populations of its zoo, None without a zoo.
    """

    study: str
    zoo: str | None


def claim_folder(out: Path, study: str, config: PlainConfig) -> None:
    """Write down whose a folder is, or check that it belongs to the same study of the same zoo.

    Args:
        out: Directory of the study, made if it is missing.
        study: Name of the study.
        config: Its config; the zoo must be there.

    Raises:
        ValueError: If the folder belongs to another study, or to a study of another zoo.
    """
    zoo = _identity(config.zoo) if isinstance(config, StudyConfig) else None
    claim, record = Claim(study=study, zoo=zoo), out / RECORD
    if not record.exists():
        write_text(record, claim.model_dump_json())
        return
    try:
        before = Claim.model_validate_json(read_json(record, "the record of a study"))
    except ValidationError as error:
        raise ValueError(f"{record}: {escape(first_error(error))}") from error
    if before != claim:
        other = "another zoo" if before.study == study else f"the study {before.study!r:.100}"
        raise ValueError(f"{out} holds rows of {other}; choose another --out or remove the folder")


def _identity(zoo: Path) -> str:
    """The same for equal zoos, wherever they lie."""
    prints = [f"{name} {population.fingerprint}" for name, population in load(zoo).items()]
    return hashlib.sha256("\n".join(prints).encode()).hexdigest()
