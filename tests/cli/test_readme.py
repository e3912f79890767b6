"""The README tells the truth: help texts, commands, code and names of files.

`python -m tests.cli.test_readme` writes the help texts anew.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
from pathlib import Path

import pytest
import typer.main

from broker import client
from broker.cli import app, run

README = Path(__file__).resolve().parent.parent.parent / "README.md"
HELP = re.compile(r"```console\n\$ (broker [^\n]*--help)\n(.*?)```", re.DOTALL)
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
WIDTH = "100"


def text() -> str:
    return README.read_text("utf-8")


def blocks(language: str) -> list[str]:
    """Gives the code blocks of a language."""
    return [body for name, body in FENCE.findall(text()) if name == language]


def help_of(command: str) -> str:
    """Gives what a command line says, as wide as the README."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            assert run(shlex.split(command)[1:]) == 0
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return out.getvalue()


@pytest.mark.parametrize("command", [command for command, _ in HELP.findall(text())])
def test_shows_what_help_says(command):
    """Help texts are those of the program."""
    assert dict(HELP.findall(text()))[command] == help_of(command)


def commands() -> list[str]:
    """Gives every `broker …` line of the shell blocks, joined where a backslash breaks it."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [line for line in lines if re.match(r"(\.venv/bin/)?broker ", line)]


@pytest.mark.parametrize("line", commands())
def test_commands_exist(line):
    """Every verb and option that is shown can be typed."""
    words = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}

    assert command.name != "broker"
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("block", blocks("python"))
def test_code_compiles_and_imports_what_is_exported(block):
    """Code can be pasted: it compiles, runs to its definitions, and uses public names alone."""
    namespace: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), namespace)  # noqa: S102 - our own README

    imported = re.findall(r"from broker\.client import (.*)", block)
    assert imported
    assert {name.strip() for names in imported for name in names.split(",")} <= set(client.__all__)


def test_files_exist():
    """Every script, folder and document that is named is there."""
    named = set(re.findall(r"(?<!\.)\b(?:deploy|proto|policies|tests|broker|\.ci)/[\w./]*\w", text()))

    assert {name for name in named if not (README.parent / name).exists()} <= {"broker/v1"}


def rewrite() -> None:
    """Writes the help texts anew."""
    README.write_text(HELP.sub(lambda m: f"```console\n$ {m[1]}\n{help_of(m[1])}```", text()), "utf-8")


if __name__ == "__main__":
    rewrite()
