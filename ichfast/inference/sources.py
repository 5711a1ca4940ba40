"""Where a model comes from: a run folder, a file, or what ships with ichfast."""

from pathlib import Path
from typing import NamedTuple

from ichfast import weights
from ichfast.errors import CheckpointError
from ichfast.inference.description import Description, describe, describe_run
from ichfast.models import ReducedUNet
from ichfast.models.weights import read

RECIPE, WEIGHTS = "recipe.toml", "model.safetensors"
SHIPPED = "ct-ich"


class Member(NamedTuple):
    path: Path
    network: ReducedUNet
    description: Description


def read_member(path: Path) -> Member:
    """The network in a run folder or a file. CheckpointError where there is none to be used."""
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; give a run folder or a .safetensors file.")
    if path.is_dir():
        return read_run(path)
    network, about = read(path)
    return Member(path, network, describe(network, about, path))


def read_run(folder: Path) -> Member:
    recipe, path = folder / RECIPE, folder / WEIGHTS
    if not recipe.is_file():
        raise CheckpointError(
            f"{folder} is no run: it has no {RECIPE}; give the folder that training wrote (--out)."
        )
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no weights yet; give another run, or go on with this one: python -m "
            f"ichfast.train --resume {folder}."
        )
    network, about = read(path)
    name = folder.resolve().name
    if not about:
        return Member(folder, network, describe_run(network, recipe, name))
    description = describe(network, about, path)
    if description.name is None:
        description = description.model_copy(update={"name": name})
    return Member(folder, network, description)


def find_shipped() -> Path:
    """The weights that ship with ichfast."""
    path = Path(weights.__file__).parent / f"{SHIPPED}.safetensors"
    if not path.is_file():
        raise CheckpointError(
            "this installation of ichfast has no weights; give a run folder or a .safetensors file."
        )
    return path
