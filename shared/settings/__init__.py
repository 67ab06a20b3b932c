"""Settings: what the process is told from outside, by the environment and a configuration file."""

from shared.settings.environment import Settings
from shared.settings.fields import MODEL_NAME, SECRET_NAME
from shared.settings.values import (
    BreakerPolicy,
    Deployment,
    Limits,
    MockPace,
    ProviderSettings,
    RetryPolicy,
    Serving,
    SettingsError,
    alone,
    own_routes,
)

__all__ = [
    "MODEL_NAME",
    "SECRET_NAME",
    "BreakerPolicy",
    "Deployment",
    "Limits",
    "MockPace",
    "ProviderSettings",
    "RetryPolicy",
    "Serving",
    "Settings",
    "SettingsError",
    "alone",
    "own_routes",
]
