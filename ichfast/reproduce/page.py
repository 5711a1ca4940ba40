"""table1.json, table1.md and table1.html in the folder of the cells."""

import json
from pathlib import Path
from typing import Any

from ichfast.files import write_whole
from ichfast.report.table1 import write_table
from ichfast.report.table1_text import format_text
from ichfast.reproduce.examples import make_examples
from ichfast.reproduce.plan import Plan
from ichfast.training.parts import Load

RESULT, TEXT = "table1.json", "table1.md"


def write_result(result: dict[str, Any], plan: Plan, out: Path, load: Load) -> Path:
    """All three; the path of the page."""
    fix = "Make room or allow writing there, then give the same command again."
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(out / RESULT, f"{text}\n".encode(), lasting=False, fix=fix)
    write_whole(out / TEXT, format_text(result).encode(), lasting=False, fix=fix)
    return write_table(result, make_examples(plan, out, load), out)
