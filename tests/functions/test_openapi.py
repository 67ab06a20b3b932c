"""The published description, docs/openapi.yaml, holds for the real gateway: schemathesis asks it.

Everything is drawn from a fixed seed, so two runs ask the same. One operation alone:
`python -m pytest tests/functions/test_openapi.py -k "brain/chat/stream"`.
"""

from __future__ import annotations

import http.client
import json
import tomllib
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
import yaml
from schemathesis import checks

from shared import errors
from tests.servers import ROOT, Server, gateway

EXAMPLES_AN_OPERATION: Final = 60
TIMEOUT_S: Final = 30
WHOLE_NUMBERS: Final = {"max_tokens", "max_completion_tokens", "n", "seed"}
DESCRIPTION: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
# Codes the description reserves: this version asks its callers for no credentials.
RESERVED_CODES: Final = {"auth_required", "invalid_token", "token_expired", "forbidden"}

# All of schemathesis's checks are on except these:
# - use_after_free, ensure_resource_availability, object_level_authorization: the gateway keeps no resources.
# - ignored_auth: it asks its callers for no credentials yet.
# - missing_required_header: no header is required; the trace headers are optional.
# - max_response_time: no test may depend on the speed of the machine.
EXCLUDED_CHECKS: Final = (
    "use_after_free",
    "ensure_resource_availability",
    "object_level_authorization",
    "ignored_auth",
    "missing_required_header",
)
CONFIG: Final = schemathesis.Config.from_dict(
    {
        "seed": 20260301,
        "request-timeout": TIMEOUT_S,
        "generation": {
            "deterministic": True,
            "database": "none",
            "max-examples": EXAMPLES_AN_OPERATION,
        },
        "checks": {
            # The defaults let a gateway pass that answers 404 or 5xx to everything.
            "positive_data_acceptance": {"expected-statuses": [200]},
            # 415 because a request without a body has no Content-Type either.
            "negative_data_rejection": {"expected-statuses": [400, 415]},
            **{name: {"enabled": False} for name in EXCLUDED_CHECKS},
        },
    }
)
ANSWER_CHECKS: Final = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
schema = schemathesis.openapi.from_path(ROOT / "docs" / "openapi.yaml", config=CONFIG)


@schema.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """JSON Schema counts 1.0 as an integer; the gateway wants it written 1, as every writer of integers does."""
    if not isinstance(body, dict):
        return body
    return {name: _written_whole(value) if name in WHOLE_NUMBERS else value for name, value in body.items()}


@schema.hook
def map_headers(context: schemathesis.HookContext, headers: Any) -> Any:
    """Which providers there are, only the deployment can say: here it is the stub."""
    if not isinstance(headers, dict):
        return headers
    return {name: "stub" if name.lower() == "x-provider" else value for name, value in headers.items()}


def _written_whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The gateway on the stub, all functions on one port."""
    log = tmp_path_factory.mktemp("openapi") / "gateway.log"
    with gateway(log, {"ECHO_BRAIN_PROVIDER": "stub"}) as server:
        yield server


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """One kept-alive connection for all that schemathesis asks."""
    with requests.Session() as kept:
        yield kept


@schema.parametrize()
def test_gateway_does_as_described(case: schemathesis.Case[Any], served: Server, session: requests.Session) -> None:
    """Valid requests are answered, invalid ones refused, with the statuses, headers and bodies described."""
    case.call_and_validate(base_url=served.url, session=session)


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The gateway on the mock, whose model names are faults."""
    log = tmp_path_factory.mktemp("openapi-mock") / "gateway.log"
    with gateway(log, {"ECHO_BRAIN_PROVIDER": "mock"}) as server:
        yield server


MOCK_FAULTS: Final = (
    "error:bad_request",
    "error:context_length_exceeded",
    "error:content_filter",
    "error:auth_error",
    "error:quota_exceeded",
    "error:rate_limit",
    "error:connection_error",
    "error:upstream_error",
    "error:timeout",
    "cut:2",
)


@pytest.mark.parametrize("fault", MOCK_FAULTS)
@pytest.mark.parametrize(
    ("path", "extra"),
    [
        ("/v1/brain/chat", {}),
        ("/v1/brain/chat/stream", {}),
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"stream": True}),
    ],
    ids=["brain", "brain stream", "openai", "openai stream"],
)
def test_failure_is_as_described(path: str, extra: dict[str, Any], fault: str, failing: Server) -> None:
    """Each failure of a provider has the status, headers and body, or the events, that the description gives it."""
    body = {"model": fault, "messages": [{"role": "user", "content": "Hello"}], **extra}
    case = schema[path]["post"].Case(body=body, media_type="application/json")
    case.call_and_validate(base_url=failing.url, checks=ANSWER_CHECKS)


OPERATIONS: Final = [(method, path, op) for path, item in DESCRIPTION["paths"].items() for method, op in item.items()]
OPERATION_NAMES: Final = [f"{method.upper()} {path}" for method, path, _ in OPERATIONS]


def _resolved(node: dict[str, Any]) -> dict[str, Any]:
    """The node itself, or what its `$ref` points to."""
    for part in node.get("$ref", "#").split("/")[1:]:
        node = DESCRIPTION[part] if part == "components" else node[part]
    return node


def _bodies(operation: dict[str, Any]) -> list[bytes | None]:
    """The request bodies given as examples, or none for an operation without a body."""
    if "requestBody" not in operation:
        return [None]
    content = _resolved(operation["requestBody"])["content"]["application/json"]
    return [json.dumps(example["value"]).encode() for example in content["examples"].values()]


def _ask(server: Server, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=TIMEOUT_S)
    try:
        connection.request(method.upper(), path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=OPERATION_NAMES)
def test_described_operation_answers(method: str, path: str, operation: dict[str, Any], served: Server) -> None:
    """Every operation of the description answers its own examples with 200."""
    bodies = _bodies(operation)
    assert bodies
    for body in bodies:
        status, content = _ask(served, method, path, body)
        assert status == 200, content


@pytest.mark.parametrize("path", ["/nowhere", "/v1", "/v1/brain", "/v1/completions", "/docs", "/openapi.json"])
def test_undescribed_path_is_not_there(path: str, served: Server) -> None:
    """A path that the description does not name is 404."""
    assert path not in DESCRIPTION["paths"]
    assert _ask(served, "GET", path)[0] == 404


@pytest.mark.parametrize("path", list(DESCRIPTION["paths"]))
def test_trailing_slash_is_another_path(path: str, served: Server) -> None:
    """A described path with a slash after it is 404, never a redirect."""
    assert _ask(served, "GET", f"{path}/")[0] == 404


def _answers(operation: dict[str, Any]) -> Iterator[tuple[int, str, bytes]]:
    """Status, media type and body of each answer that an operation gives as an example."""
    for status, response in operation["responses"].items():
        for media_type, content in _resolved(response)["content"].items():
            for example in content.get("examples", {}).values():
                value = _resolved(example)["value"]
                body = value if isinstance(value, str) else json.dumps(value)
                yield int(status), media_type, body.encode()


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=OPERATION_NAMES)
def test_answers_given_as_examples_fit_their_schemas(method: str, path: str, operation: dict[str, Any]) -> None:
    """Every example of an answer, streams included, is what its own schema says."""
    asked = requests.Request(method, f"http://127.0.0.1{path}").prepare()
    answers = list(_answers(operation))
    assert 200 in {status for status, _, _ in answers}
    for status, media_type, body in answers:
        headers = {"content-type": [media_type]}
        answer = schemathesis.Response(status, headers, body, asked, elapsed=0, verify=True)
        schema[path][method].validate_response(answer)


def _error_classes(
    root: type[errors.EchoBrainError] = errors.EchoBrainError,
) -> Iterator[type[errors.EchoBrainError]]:
    for child in root.__subclasses__():
        yield child
        yield from _error_classes(child)


SEEN_BY_CALLERS: Final = [cls for cls in _error_classes() if cls is not errors.ClientClosedRequest]


def _described_codes(dialect: str, status: int) -> set[str]:
    """The codes that one status may carry, from the responses of one dialect's chat operation."""
    path = {"Brain": "/v1/brain/chat", "OpenAI": "/v1/chat/completions"}[dialect]
    response = _resolved(DESCRIPTION["paths"][path]["post"]["responses"][str(status)])
    envelope, narrowed = response["content"]["application/json"]["schema"]["allOf"]
    assert envelope == {"$ref": f"#/components/schemas/{dialect}Error"}
    return set(narrowed["properties"]["error"]["properties"]["code"]["enum"])


@pytest.mark.parametrize("error", SEEN_BY_CALLERS, ids=lambda error: error.code)
def test_error_is_described_under_its_status(error: type[errors.EchoBrainError]) -> None:
    """Each error of the product is described in both dialects under the status it has there."""
    assert error.code in _described_codes("Brain", error.status)
    assert error.code in _described_codes("OpenAI", error.openai_status or error.status)


def test_list_of_error_codes_is_complete() -> None:
    """The list of codes is the product's own and the reserved ones, and the page for frontends has each."""
    listed = set(DESCRIPTION["components"]["schemas"]["ErrorCode"]["enum"])
    assert listed == {error.code for error in SEEN_BY_CALLERS} | RESERVED_CODES
    page = (ROOT / "docs" / "brain_api.md").read_text()
    assert [code for code in listed if f"`{code}`" not in page] == []


def test_description_has_the_version_of_the_project() -> None:
    """The description and the project carry one version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert DESCRIPTION["info"]["version"] == project["version"]
