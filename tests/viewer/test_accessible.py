"""Every page in headless Chromium under axe-core, wide and narrow, light and dark: no findings, and
nothing wider than the window."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from band import write_band_model
from chromium import Page, find_chromium, start_chromium
from dicom_series import write_ct_series
from published import ct_ich_100, nnunet, rsna
from test_report import change_metrics
from test_report import run as run

from ichfast import audit, predict
from ichfast.report import write_report
from ichfast.report.table1 import render
from ichfast.viewer import StudyPage, render_page

ROOT = Path(__file__).parents[2]
CHROMIUM = find_chromium()
LONG = "a-name-without-a-gap-" * 6
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OPTIONS = json.dumps({"runOnly": RULES, "resultTypes": ["violations"]})


@cache
def find_axe() -> Path | None:
    """Where npm has put axe-core: into the repository's folder, or for all."""
    npm = shutil.which("npm")
    roots = [ROOT / "node_modules"]
    if npm:
        found = subprocess.run([npm, "root", "--global"], capture_output=True, text=True)
        roots.append(Path(found.stdout.strip()))
    scripts = (root / "axe-core" / "axe.min.js" for root in roots)
    return next((script for script in scripts if script.is_file()), None)


pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.skipif(find_axe() is None, reason="no axe-core: npm install --no-save axe-core"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    assert CHROMIUM is not None
    with start_chromium(CHROMIUM, tmp_path_factory.mktemp("chromium") / "profile") as page:
        yield page


@pytest.fixture
def check(browser: Page) -> Callable[[Path], None]:
    axe = find_axe()
    assert axe is not None
    script = axe.read_text(encoding="utf-8")

    def check(file: Path) -> None:
        found: dict[str, list[str]] = {}
        for width in (1200, 380):
            for scheme in ("light", "dark"):
                browser.resize(width, 900, scheme)
                browser.open(file.as_uri(), "document.readyState == 'complete'")
                browser.wait("document.querySelector('main') !== null")
                browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
                browser.settle()
                browser.evaluate(script)
                result = browser.evaluate(f"axe.run({OPTIONS}).then(r => JSON.stringify(r))")
                lines = describe(json.loads(result)["violations"])
                wide = browser.evaluate("document.documentElement.scrollWidth")
                if wide > width:
                    lines.append(f"the page is {wide} px wide")
                for line in lines:
                    found.setdefault(line, []).append(f"{width} {scheme}")
        lines = [f"{' and '.join(where)}: {line}" for line, where in found.items()]
        assert not found, "\n".join([file.name, *lines])

    return check


def describe(violations: list[dict]) -> list[str]:
    return [
        f"{one['id']}: {one['help']}: {node['html'][:200]}"
        for one in violations
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("status", ["finished", "diverged"])
def test_a_run(status: str, run: Path, check: Callable[[Path], None]) -> None:
    change_metrics(run, status=status, reason=None if status == "finished" else "it did")
    run = run.rename(run.with_name(LONG))
    check(write_report(run))
    check(run / "examples.html")


def test_an_audit(tmp_path: Path, check: Callable[[Path], None]) -> None:
    """Of all kinds of findings."""
    pictures, pool = ct_ich_100(tmp_path / LONG), rsna(tmp_path / "pool")
    nifti = nnunet(tmp_path / "nifti")
    (pool / "stage_2_train" / f"{LONG}.dcm").touch()
    (tmp_path / "list.txt").write_text("ID_00000001\nnobody\n")
    sets = [str(root) for root in (pictures, pool, nifti)]
    more = ["--exclude-list", str(tmp_path / "list.txt"), "--pixels", "--workers", "1"]
    assert audit.main([*sets, "--out", str(tmp_path / "out"), *more]) == 1
    check(tmp_path / "out" / "audit.html")


def test_segmented_scans(tmp_path: Path, check: Callable[[Path], None]) -> None:
    model = write_band_model(tmp_path / "band.safetensors")
    written = write_ct_series(tmp_path / LONG, "both")
    (tmp_path / LONG / f"{LONG}.dcm").write_bytes(b"")
    out = tmp_path / "out"
    words = [str(written.root), "--model", str(model), "--out", str(out)]
    assert predict.main(words) == 0
    check(out / "index.html")
    (report,) = out.glob("*/report.html")
    check(report)


@pytest.mark.parametrize("one_scan", [True, False])
def test_the_viewer(
    one_scan: bool, study: StudyPage, tmp_path: Path, check: Callable[[Path], None]
) -> None:
    study = replace(study, title=LONG, one_scan=one_scan)
    if not one_scan:
        study = replace(study, spacing=None, slab_mm=None, interval=None)
    file = tmp_path / "study.html"
    file.write_text(render_page(study), encoding="utf-8")
    check(file)


def test_a_table(tmp_path: Path, check: Callable[[Path], None]) -> None:
    text = (ROOT / "benchmarks" / "results" / "table1-ct-ich.json").read_text()
    file = tmp_path / "table1.html"
    file.write_text(render(json.loads(text), None), encoding="utf-8")
    check(file)
