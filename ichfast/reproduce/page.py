"""table1.json and table1.html in the folder of the cells."""

import json
from pathlib import Path
from typing import Any
def write_page(result, plan, out, load):
    (out/"table1.json").write_text(json.dumps(result, indent=1))
    return out/"table1.json"
