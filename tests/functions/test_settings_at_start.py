"""A revision with a wrong setting does not start, and says which one it was."""

from __future__ import annotations

import pytest

from tests.functions.starting import LOCAL, ended, framework

KEY = "sk-canary-0123456789"
WRONG = [
    ({"ECHO_BRAIN_PROVIDER": "gemini"}, "ECHO_BRAIN_PROVIDER"),
    ({"ECHO_REQUIRE_OPENAI": "true"}, "ECHO_REQUIRE_OPENAI"),
    ({"OPENAI_API_KEY": KEY, "OPENAI_TIMEOUT": "soon"}, "OPENAI_TIMEOUT"),
    ({"OPENAI_API_KEY": f"{KEY}\nsecond line"}, "OPENAI_API_KEY"),
    ({"OPENAI_API_KEY_SECRET": f"/{KEY}"}, "OPENAI_API_KEY_SECRET"),
    ({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://127.0.0.1:99999/v1"}, "OPENAI_BASE_URL"),
    ({"ECHO_BRAIN_CONFIG": "config.yaml"}, "ECHO_BRAIN_CONFIG"),
]


@pytest.mark.parametrize("target", ["chat", "stream", "health"])
def test_the_framework_refuses_to_start(target: str) -> None:
    """Every function's process ends with a failure, and the variable's name is on stderr."""
    done = ended(framework(target), OPENAI_API_KEY=KEY, LOG_LEVEL="LOUD")
    assert done.returncode != 0
    assert "LOG_LEVEL: " in done.stderr
    assert "canary" not in done.stdout + done.stderr


@pytest.mark.parametrize(("environment", "name"), WRONG, ids=[name for _, name in WRONG])
def test_the_local_server_refuses_in_one_line(environment: dict[str, str], name: str) -> None:
    """One line on stderr that begins with what it is about, no traceback, no key, no banner."""
    done = ended(LOCAL, **environment)
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Echo Brain cannot start: {name}: ")
    assert "canary" not in line
