"""`ichfast COMMAND` and `python -m ichfast COMMAND` are `python -m ichfast.COMMAND`."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ichfast
from ichfast.__main__ import COMMANDS, main

PACKAGE = Path(ichfast.__file__).parent


def test_every_command_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        (path.parent if path.name == "__main__.py" else path).stem
        for path in [*PACKAGE.glob("*.py"), *PACKAGE.glob("*/__main__.py")]
        if re.search(r"^def main\(", path.read_text(), re.MULTILINE)
    } - {"ichfast", "__main__"}
    assert set(COMMANDS) == found
    assert main([]) == 0
    printed = capsys.readouterr().out
    for command, text in COMMANDS.items():
        assert re.search(rf"^  {command} +{re.escape(text)}$", printed, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("program", "shown"), [("/bin/ichfast", "ichfast"), ("__main__.py", "python -m ichfast")]
)
def test_help_names_the_command_as_called(
    command: str,
    program: str,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [program, command, "--help"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {shown} {command} ")


def test_status_and_arguments_are_the_command_s(tmp_path: Path) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert main(["phantom", "--out", str(tmp_path / "p"), "--patients", "0"]) == 2


@pytest.mark.parametrize(
    ("words", "module", "install"),
    [
        (["report", "run"], "matplotlib", "matplotlib jinja2"),
        (["report", "run"], "jinja2", "matplotlib jinja2"),
        (["phantom", "--picture", "a.png"], "matplotlib", "matplotlib jinja2"),
        (["audit", ".", "--out", "audit"], "jinja2", "matplotlib jinja2"),
    ],
)
def test_a_missing_package_is_one_sentence(words, module, install, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = f"import sys; sys.modules[{module!r}] = None; from ichfast.__main__ import main; "
    result = subprocess.run(
        [sys.executable, "-c", f"{code}sys.exit(main({words}))"], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr == f"error: {module} is missing: pip install {install}\n"


def test_an_audit_needs_no_plots(tmp_path) -> None:
    code = "import sys; sys.modules['matplotlib'] = None; import ichfast.report.audit"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["trian", "--help"])
    assert end.value.code == 2
    assert "invalid choice: 'trian'" in capsys.readouterr().err


def test_as_a_module() -> None:
    command = [sys.executable, "-m", "ichfast", "--version"]
    result = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ichfast.__version__


def test_the_console_script_is_this() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"]["ichfast"].split(":")
    assert getattr(importlib.import_module(module), function) is main
