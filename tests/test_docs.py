"""What the documentation shows runs: Python blocks, and the commands of console blocks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from reluflow.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Commands of others that a page may use.
OTHERS = {"pip", "pytest", "python", "bash", "git", "cd", "jq"}


def blocks(page, *languages):
    """(first line, text) of the fenced blocks in these languages."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start(2)) + 1, match[2])
        for match in BLOCK.finditer(text)
        if match[1] in languages
    ]


def commands():
    """Every command of the console blocks, as a list of words."""
    for page in PAGES:
        for _, text in blocks(page, "console", "sh", "bash", "shell"):
            for line in text.splitlines():
                for command in line.removeprefix("$ ").split(" && "):
                    words = shlex.split(command, comments=True)
                    if words:
                        yield pytest.param(words, id=f"{page.name}: {command.strip()}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for line, text in blocks(page, "python"):
        # Padded so that a traceback shows the line of the page.
        exec(compile("\n" * (line - 1) + text, str(page), "exec"), namespace)


@pytest.mark.parametrize("words", list(commands()))
def test_commands_exist(words):
    if words[0] != "reluflow":
        assert words[0] in OTHERS
        for script in words[1:]:
            if words[0] in {"python", "bash"} and "/" in script:
                assert (ROOT / script).exists()
        return
    group = typer.main.get_command(app)
    command = group
    for word in words[1:]:
        if word in getattr(command, "commands", {}):
            command = command.commands[word]
        elif word.startswith("-"):
            options = {name for one in command.params for name in one.opts + one.secondary_opts}
            assert word.split("=")[0] in options | {"--help"}
    assert command is not group or set(words[1:]) <= {"--version", "--help"}


def test_the_readme_shows_its_two_commands_and_its_picture():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install . && reluflow demo" in text
    assert 'pip install ".[test]" && pytest' in text
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (ROOT / picture).exists()


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"(?<!!)\[[^]]*\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
