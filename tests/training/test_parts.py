"""Where the slices of a run come from."""

import pytest
from tiny_runs import tiny

from ichfast.data.phantom import write_phantom
from ichfast.errors import DataError
from ichfast.training.parts import load_parts


def test_patients_of_the_pool_that_are_tested_on_stop_the_run(tmp_path):
    write_phantom(tmp_path, patients=4, unlabelled_patients=1, size=64, slices=3, seed=0, workers=1)
    root = tmp_path / "labelled"
    recipe = tiny(f"data.labelled={str(root)!r}", f"data.unlabelled={str(root)!r}")
    with pytest.raises(DataError, match=r"in both 'unlabelled' and 'validation': 0\d\d\. The"):
        load_parts(recipe, tmp_path)
