"""With a configuration file: which providers serve, which ECHO_BRAIN_PROVIDER chooses, and what is read for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shared.models import Target
from shared.settings import ProviderSettings, Settings, SettingsError
from tests.servers import ROOT
from tests.unit.settings.configs import KEY

CONFIG = """
providers:
  cloud: {type: openai, model: gpt-4.1, api_key_env: CLOUD_KEY}
  local: {type: vllm, model: llama-3}
routes:
  fast: {targets: [{provider: cloud, model: gpt-4.1-mini}, {provider: local}]}
  slow: {targets: [{provider: cloud}]}
  default: {targets: [{provider: cloud}]}
"""


def read(**environ: str) -> Settings:
    """The settings of an environment."""
    return Settings.from_env(environ)


def only(**environ: str) -> ProviderSettings:
    """The one provider of an environment."""
    (provider,) = read(**environ).serving.providers
    return provider


@pytest.fixture
def config(tmp_path: Path) -> str:
    """The path of a file with two providers; the variable CLOUD_KEY is not set."""
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return str(path)


def test_with_a_file_its_providers_serve(config: str) -> None:
    """All of them, in their order; what the environment says of OpenAI is not looked at."""
    settings = read(ECHO_BRAIN_CONFIG=config, CLOUD_KEY=KEY, OPENAI_API_KEY="other", OPENAI_MAX_RETRIES="many")
    assert [provider.name for provider in settings.serving.providers] == ["cloud", "local"]
    assert settings.serving.providers[0].api_key == KEY
    assert list(settings.serving.routes) == ["fast", "slow", "default", "*"]
    assert KEY not in repr(settings)


def test_a_pinned_provider_of_the_file_serves_alone_under_every_name(config: str) -> None:
    """That one and no other; names that were routed elsewhere are its own model now; other keys are not needed."""
    settings = read(ECHO_BRAIN_CONFIG=config, ECHO_BRAIN_PROVIDER="local")
    assert [provider.name for provider in settings.serving.providers] == ["local"]
    routes = settings.serving.routes
    assert list(routes) == ["fast", "slow", "default", "*"]
    assert {target for route in routes.values() for target in route.targets} == {Target("local")}


def test_a_pinned_provider_needs_its_key(config: str) -> None:
    """Its variable is looked up, the message says which and where."""
    with pytest.raises(SettingsError, match=r"providers\.cloud\.api_key_env: .*CLOUD_KEY is not set"):
        read(ECHO_BRAIN_CONFIG=config, ECHO_BRAIN_PROVIDER="cloud")


@pytest.mark.parametrize("pinned", ["stub", "mock"])
@pytest.mark.parametrize("text", ["", "providers: [", "providers: {a: {type: nonsense}}"])
def test_back_to_the_built_in_ones_whatever_is_in_the_file(tmp_path: Path, pinned: str, text: str) -> None:
    """The rollback does not read what may be just what is broken."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"^ECHO_BRAIN_CONFIG: "):
        read(ECHO_BRAIN_CONFIG=str(path))
    assert only(ECHO_BRAIN_CONFIG=str(path), ECHO_BRAIN_PROVIDER=pinned).vendor == pinned


def test_openai_of_the_environment_stands_in_for_one_that_the_file_does_not_have(config: str) -> None:
    """ECHO_BRAIN_PROVIDER=openai means the file's `openai`, else that of the environment."""
    chosen = only(ECHO_BRAIN_CONFIG=config, ECHO_BRAIN_PROVIDER="openai", OPENAI_API_KEY=KEY)
    assert (chosen.name, chosen.api_key, chosen.model) == ("openai", KEY, "gpt-4.1-mini")
    path = Path(config)
    path.write_text("providers: {openai: {type: openai, model: gpt-5, api_key_env: CLOUD_KEY}}")
    chosen = only(ECHO_BRAIN_CONFIG=config, ECHO_BRAIN_PROVIDER="openai", CLOUD_KEY=KEY, OPENAI_API_KEY="other")
    assert (chosen.api_key, chosen.model) == (KEY, "gpt-5")


def test_a_pinned_provider_that_is_nowhere(config: str) -> None:
    """The message has the names of the file and the built-in ones, and not what was written."""
    with pytest.raises(SettingsError) as caught:
        read(ECHO_BRAIN_CONFIG=config, ECHO_BRAIN_PROVIDER="cluod")
    message = str(caught.value)
    assert message.startswith("ECHO_BRAIN_PROVIDER: must be one of cloud, local, stub, mock, openai")
    assert "cluod" not in message


def test_openai_may_be_required_of_a_file(tmp_path: Path) -> None:
    """ECHO_REQUIRE_OPENAI refuses a file whose providers all answer by themselves."""
    path = tmp_path / "config.yaml"
    path.write_text("providers: {a: {type: mock}, stub: {type: stub}}")
    with pytest.raises(SettingsError, match=r"^ECHO_REQUIRE_OPENAI: refuses to start on 'a'"):
        read(ECHO_BRAIN_CONFIG=str(path), ECHO_REQUIRE_OPENAI="true")
    path.write_text("providers: {a: {type: mock}, local: {type: ollama}}")
    assert len(read(ECHO_BRAIN_CONFIG=str(path), ECHO_REQUIRE_OPENAI="true").serving.providers) == 2


def test_yaml_is_loaded_only_where_there_is_a_file(config: str) -> None:
    """A cold start without a file does not pay for it."""
    script = (
        "import os, sys\n"
        "from shared.settings import Settings\n"
        "import shared.settings.file\n"
        "Settings.from_env({})\n"
        "assert 'yaml' not in sys.modules\n"
        f"Settings.from_env({{'ECHO_BRAIN_CONFIG': {config!r}, 'CLOUD_KEY': 'k'}})\n"
        "assert 'yaml' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_openai_of_the_environment_serves_where_the_file_is_broken(tmp_path: Path) -> None:
    """The rollback at night works with a broken file, too, where the environment has a key."""
    path = tmp_path / "config.yaml"
    path.write_text("providers: [")
    chosen = only(ECHO_BRAIN_CONFIG=str(path), ECHO_BRAIN_PROVIDER="openai", OPENAI_API_KEY=KEY)
    assert (chosen.name, chosen.api_key) == ("openai", KEY)
    with pytest.raises(SettingsError, match=r"^ECHO_BRAIN_CONFIG: "):
        read(ECHO_BRAIN_CONFIG=str(path), ECHO_BRAIN_PROVIDER="openai")


def test_those_set_aside_are_remembered(config: str) -> None:
    """Callers that ask for one of them by X-Provider go where all others go."""
    serving = read(ECHO_BRAIN_CONFIG=config, ECHO_BRAIN_PROVIDER="local").serving
    assert serving.set_aside == {"cloud"}
