"""table1.json and table1.html in the folder of the cells."""

import json
from pathlib import Path
from typing import Any

from ichfast.files import write_whole
from ichfast.report.table1 import write_table
from ichfast.reproduce.examples import make_examples
from ichfast.reproduce.plan import Plan
from ichfast.training.parts import Load

RESULT = "table1.json"


def write_result(result: dict[str, Any], plan: Plan, out: Path, load: Load) -> Path:
    """Both files; the path of the page."""
    fix = "Make room or allow writing there, then give the same command again."
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(out / RESULT, f"{text}\n".encode(), lasting=False, fix=fix)
    return write_table(result, make_examples(plan, out, load), out)
