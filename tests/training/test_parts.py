"""Where the slices of a run come from."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from slice_sets import slice_set
from tiny_runs import tiny

from ichfast import train
from ichfast.data import SCHEMES
from ichfast.data.phantom import write_phantom
from ichfast.data.prepare import prepare_pool
from ichfast.errors import DataError, RecipeError
from ichfast.evaluation import Evaluation, tabulate
from ichfast.evaluation.surface import Surface
from ichfast.training.parts import load_parts, split

CT_WINDOW = "data.window=[40, 120]"


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")
    write_phantom(
        root,
        patients=7,
        unlabelled_patients=3,
        size=64,
        slices=4,
        seed=0,
        progress=False,
        workers=1,
    )
    return root


def patients_of(parts):
    return {name: set(slices.patients) for name, slices in parts.sets.items()}


@pytest.mark.parametrize(
    ("scheme", "folds", "train", "test"), [(80, 5, 5, 1), (50, 2, 3, 3), (20, 5, 1, 5)]
)
def test_folds_are_apart_and_test_everybody_as_often(phantom, scheme, folds, train, test) -> None:
    tested = []
    for fold in range(folds):
        recipe = tiny(
            f"data.labelled={str(phantom / 'labelled')!r}",
            "training.strategy=supervised",
            f"data.scheme={scheme}",
            f"data.fold={fold}",
            "data.slices=all",
            CT_WINDOW,
        )
        if scheme == 20 and fold > 1:
            with pytest.raises(DataError, match="1 patients cannot be split into 2 parts"):
                load_parts(recipe, phantom)
            continue
        names = patients_of(load_parts(recipe, phantom))
        assert not names["train"] & names["test"]
        assert not names["train"] & names["validation"]
        assert not names["validation"] & names["test"]
        assert len(set.union(*names.values())) == 7
        assert len(names["train"] | names["validation"]) >= train
        assert len(names["test"]) >= test
        tested += names["test"]
    if scheme != 20:
        assert len(tested) == len(set(tested)) == 7


def test_slices_on_both_sides_are_warned_of(phantom, tmp_path, capsys) -> None:
    out = tmp_path / "run"
    settings = [
        "training.epochs=1", "training.strategy=supervised", "data.scheme=50",
        "data.split_by=slice", "data.slices=all", "data.size=16",
        "model.channels=[2, 3, 4]", "lbfgs.max_iter=2",
    ]  # fmt: skip
    sets = [word for setting in settings for word in ("--set", setting)]
    labelled = ["--labelled", str(phantom / "labelled"), "--preset", "demo", "--out", str(out)]
    assert train.main([*labelled, *sets]) == 0
    assert "warning: slice-wise folds" in capsys.readouterr().err
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["data"]["split_by"] == "slice"
    assert "slice-wise folds" in (out / "report.html").read_text().lower()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["data.scheme=30"], "data.scheme = 30 must be 0, 20, 50 or 80"),
        (["data.scheme=50", "data.fold=2"], "scheme 50 has the folds 0 to 1"),
        (["data.fold=1"], "set data.scheme to 20, 50 or 80"),
        (["data.split_by=slice"], "set data.scheme to 20, 50 or 80"),
        (["augmentation.width=2000"], "the window's width would fall to"),
    ],
)
def test_folds_and_augmentation_that_cannot_be(settings, reason) -> None:
    with pytest.raises(RecipeError, match=reason):
        tiny(*settings)


def half_healthy():
    """24 patients with 4 slices each; 12 have haemorrhage, in 2 of theirs."""
    masks = torch.zeros(24, 4, 1, 16, 16, dtype=torch.uint8)
    masks[::2, 1:3, :, 4:8, 4:8] = 1
    masks = masks.flatten(0, 1)
    return slice_set(masks.float(), masks, tuple(f"{i // 4:02}" for i in range(96)))


@pytest.mark.parametrize(
    ("settings", "healthy"),
    [
        ([], 7),  # 0.6 of 12
        (["data.scheme=80", "data.fold=1"], 3),
        (["data.scheme=50", "data.fold=1"], 6),
        (["data.scheme=20", "data.fold=1", "data.validation=0.5", "data.test=0.25"], 9),
    ],
)
def test_testing_on_all_slices_moves_nobody_with_haemorrhage(settings, healthy) -> None:
    whole = half_healthy()
    with_blood = whole.positive.nonzero()[:, 0].tolist()
    positive = split(whole.select(with_blood), tiny(*settings).data)
    every = split(whole, tiny(*settings, "data.test_slices=all").data)
    for name in ("train", "validation"):
        assert every[name] == [with_blood[i] for i in positive[name]]
    assert {*every["test"]} & {*with_blood} == {with_blood[i] for i in positive["test"]}
    patients = {name: {whole.patients[i] for i in places} for name, places in every.items()}
    assert not patients["test"] & (patients["train"] | patients["validation"])
    assert len(every["test"]) == 4 * len(patients["test"])
    assert sum(int(name) % 2 for name in patients["test"]) == healthy


@pytest.mark.parametrize(
    ("scheme", "by", "times"),
    [(80, "patient", 1), (50, "patient", 1), (20, "patient", 4), (80, "slice", 1)],
)
def test_folds_test_every_slice_as_often(scheme, by, times) -> None:
    whole = half_healthy()
    tested = Counter()
    for fold in range(SCHEMES[scheme]):
        settings = (f"data.scheme={scheme}", f"data.fold={fold}", f"data.split_by={by}")
        found = split(
            whole,
            tiny(*settings, "data.validation=0.5", "data.test=0.25", "data.test_slices=all").data,
        )
        tested.update(found["test"])
    assert set(tested.values()) == {times}
    assert len(tested) == len(whole)


def test_all_slices_are_tested_on_where_all_are_trained_on() -> None:
    whole = half_healthy()
    one, other = (
        split(whole, tiny("data.slices=all", f"data.test_slices={which}").data)
        for which in ("positive", "all")
    )
    assert one == other
    assert len({whole.patients[i] for i in one["test"]}) * 4 == len(one["test"])


def test_a_run_can_test_on_all_slices_of_a_folder(phantom) -> None:
    settings = f"data.labelled={str(phantom / 'labelled')!r}", "training.strategy=supervised"
    positive, every = (
        load_parts(tiny(*settings, CT_WINDOW, "data.size=64", f"data.test_slices={which}"), phantom)
        for which in ("positive", "all")
    )
    assert every.train.sources == positive.train.sources
    assert every.train.positive.all()
    assert len(every.test) > len(positive.test)
    assert {*every.test.sources} > {*positive.test.sources}
    assert len(every.whole) == 28


def test_patients_have_the_same_number_in_every_fold() -> None:
    """And the place says which slice it is."""
    whole = half_healthy()
    for fold in range(5):
        settings = "data.scheme=80", f"data.fold={fold}", "data.test_slices=all"
        test = whole.select(split(whole, tiny(*settings).data)["test"])
        nothing = Surface(np.zeros(len(test)), np.zeros((len(test), 2)))
        counts = torch.zeros(len(test), 3, dtype=torch.int64)
        columns = tabulate(test, Evaluation(counts, counts[:, 0], {}, None, nothing), whole)
        assert columns["patient"] == [int(name) for name in test.patients]
        assert [whole.patients[place] for place in columns["slice"]] == list(test.patients)


def test_a_run_on_pools_is_the_run_on_their_sets(phantom, tmp_path) -> None:
    found = []
    for name in ("labelled", "unlabelled"):
        options = {"size": 16, "workers": 1, "progress": False}
        prepare_pool(phantom / name, tmp_path / "pools" / name, **options)
    settings = [
        "training.epochs=3", "data.size=16", "model.channels=[2, 3, 4]", "lbfgs.max_iter=2",
        "curriculum.k=0.5", "data.train=0.4", "data.validation=0.3", "data.test=0.3",
        "augmentation.flip=0.5", "data.slices=all", "data.unlabelled_slices=all",
    ]  # fmt: skip
    sets = [word for setting in settings for word in ("--set", setting)]
    for kind, parent in (("sets", phantom), ("pools", tmp_path / "pools")):
        folders = [
            word
            for name in ("labelled", "unlabelled")
            for word in (f"--{name}", str(parent / name))
        ]
        out = tmp_path / "runs" / kind
        assert train.main([*folders, "--out", str(out), *sets]) == 0
        found.append((out / "model.safetensors").read_bytes())
        log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        assert {line["step"] for line in log} == {"supervised", "unsupervised"}
    assert found[0] == found[1]


def test_patients_of_the_pool_that_are_tested_on_stop_the_run(tmp_path):
    write_phantom(tmp_path, patients=4, unlabelled_patients=1, size=64, slices=3, seed=0, workers=1)
    root = tmp_path / "labelled"
    folders = [f"data.{name}={str(root)!r}" for name in ("labelled", "unlabelled")]
    recipe = tiny(*folders, CT_WINDOW)
    with pytest.raises(DataError, match=r"in both 'unlabelled' and 'validation': 0\d\d\. The"):
        load_parts(recipe, tmp_path)
