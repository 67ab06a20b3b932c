"""The error tree: what each failure is called and what a caller sees of it.

    EchoBrainError
    ├── BadRequest              bad_request              400   the request, or upstream 400/404/422
    │   ├── ContextLengthExceeded  context_length_exceeded  400
    │   ├── ContentFilter       content_filter           400
    │   └── PrefillRefused      bad_request              400   by a target that was to go on with a text
    ├── NotFound                not_found                404   no such path
    ├── ModelNotFound           model_not_found          404   no route for the model
    ├── MethodNotAllowed        method_not_allowed       405
    ├── PayloadTooLarge         payload_too_large        413
    ├── UnsupportedMediaType    unsupported_media_type   415
    ├── ClientClosedRequest     client_closed_request    499   only in the log: nobody is left to read it
    ├── UpstreamAuthError       auth_error               401   *our* key was refused (OpenAI dialect: 500)
    ├── QuotaExceeded           quota_exceeded           429
    ├── RateLimited             rate_limit               429
    ├── InternalError           internal_error           500   a bug of ours
    ├── ConnectionFailed        connection_error         502   refused, DNS, TLS
    │   └── ConnectionReset     connection_error         502   made, but lost before an answer began
    ├── UpstreamError           upstream_error           502   5xx
    │   ├── UpstreamBusy        upstream_error           502   503 and its like: later
    │   └── BrokenAnswer        upstream_error           502   truncated, not JSON, an error with status 200
    ├── Overloaded              overloaded               503   no room, or shutting down
    ├── NotReady                not_ready                503   the key could not be read yet
    └── UpstreamTimeout         timeout                  504   connect, first token, idle or total

What is done about a failure is decided by its class alone: `retry` says where the same request may go next, and
`trips_breaker` whether it speaks against the provider's health.

Messages come from this table. Only `BadRequest` takes a text of its own, made here from field names and limits, or a
provider's reason that `providers/faults.py` has cleaned; no other text of an exception, a request or an upstream body
ever becomes a message.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Final


class Retry(Enum):
    """Where a request that has failed may go."""

    NOWHERE = "nowhere"  # the same everywhere
    ELSEWHERE = "elsewhere"  # to other targets only
    ELSEWHERE_FIRST = "elsewhere first"  # to the next target at once; the same once more where there is no other
    ONCE_MORE = "once more"  # to the same target once more, then on
    LATER = "later"  # to the same target as often as it allows, then on


class EchoBrainError(Exception):
    """A failure with a name, a status in each dialect, and a message that is safe to show."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    openai_status: ClassVar[int | None] = None  # where the OpenAI dialect answers with another one
    openai_type: ClassVar[str] = "server_error"
    text: ClassVar[str] = "Internal error."
    retryable: ClassVar[bool] = True  # may the same request succeed a little later?
    default_retry_after_s: ClassVar[float | None] = None
    retry: ClassVar[Retry] = Retry.NOWHERE
    trips_breaker: ClassVar[bool] = False

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        upstream_request_id: str | None = None,
    ) -> None:
        self.message: Final = message or self.text
        self.param: Final = param
        self.upstream_wait_s: Final = retry_after_s  # what the provider asked for, if it did
        self.retry_after_s: Final = self.default_retry_after_s if retry_after_s is None else retry_after_s
        self.upstream_request_id: Final = upstream_request_id
        super().__init__(self.message)


class BadRequest(EchoBrainError):
    code = "bad_request"
    status = 400
    openai_type = "invalid_request_error"
    text = "The request is invalid."
    retryable = False


class ContextLengthExceeded(BadRequest):
    code = "context_length_exceeded"
    text = "The messages are longer than the model's context."
    retry = Retry.ELSEWHERE


class ContentFilter(BadRequest):
    code = "content_filter"
    text = "The provider's content filter refused the request."


class PrefillRefused(BadRequest):
    """A target that was to go on with a text refused the request: not the caller's fault, who did not write it."""

    retry = Retry.ELSEWHERE


class NotFound(EchoBrainError):
    code = "not_found"
    status = 404
    openai_type = "invalid_request_error"
    text = "There is nothing at this path."
    retryable = False


class ModelNotFound(EchoBrainError):
    code = "model_not_found"
    status = 404
    openai_type = "invalid_request_error"
    text = "The model is not served here; GET /v1/models lists those that are."
    retryable = False


class MethodNotAllowed(EchoBrainError):
    """The path exists, the method does not; `allow` lists those that do."""

    code = "method_not_allowed"
    status = 405
    openai_type = "invalid_request_error"
    text = "The method is not allowed on this path."
    retryable = False

    def __init__(self, allow: str) -> None:
        super().__init__()
        self.allow: Final = allow


class PayloadTooLarge(EchoBrainError):
    code = "payload_too_large"
    status = 413
    openai_type = "invalid_request_error"
    text = "The body is larger than 10 MiB."
    retryable = False


class UnsupportedMediaType(EchoBrainError):
    code = "unsupported_media_type"
    status = 415
    openai_type = "invalid_request_error"
    text = "The body must be JSON: Content-Type application/json in UTF-8, and no Content-Encoding."
    retryable = False


class ClientClosedRequest(EchoBrainError):
    code = "client_closed_request"
    status = 499
    text = "The client closed the request."
    retryable = False


class UpstreamAuthError(EchoBrainError):
    code = "auth_error"
    status = 401
    openai_status = 500  # a 401 would tell an OpenAI client that *its* key is wrong
    text = "The provider refused the gateway's own credentials."
    retryable = False
    retry = Retry.ELSEWHERE


class QuotaExceeded(EchoBrainError):
    code = "quota_exceeded"
    status = 429
    openai_type = "insufficient_quota"
    text = "The gateway's quota at the provider is used up."
    retryable = False
    retry = Retry.ELSEWHERE


class RateLimited(EchoBrainError):
    code = "rate_limit"
    status = 429
    openai_type = "rate_limit_error"
    text = "The provider limits the rate of requests."
    default_retry_after_s = 1.0
    retry = Retry.LATER


class InternalError(EchoBrainError):
    pass


class ConnectionFailed(EchoBrainError):
    code = "connection_error"
    status = 502
    text = "The provider could not be reached."
    retry = Retry.ELSEWHERE_FIRST
    trips_breaker = True


class ConnectionReset(ConnectionFailed):
    """The connection was made, and lost before an answer began."""

    retry = Retry.ONCE_MORE


class UpstreamError(EchoBrainError):
    code = "upstream_error"
    status = 502
    text = "The provider failed or sent a broken answer."
    retry = Retry.ONCE_MORE
    trips_breaker = True


class UpstreamBusy(UpstreamError):
    """The provider says itself that it cannot take the request now."""

    retry = Retry.LATER


class BrokenAnswer(UpstreamError):
    """An answer had begun, and was not one."""

    retry = Retry.ELSEWHERE_FIRST


class Overloaded(EchoBrainError):
    code = "overloaded"
    status = 503
    text = "The gateway cannot take the request now."
    default_retry_after_s = 1.0
    retry = Retry.ELSEWHERE


class NotReady(EchoBrainError):
    code = "not_ready"
    status = 503
    text = "The gateway is not ready: the provider's key could not be read."
    default_retry_after_s = 1.0
    retry = Retry.ELSEWHERE


class UpstreamTimeout(EchoBrainError):
    """A limit has passed: `limit` is connect, first_token, idle or total."""

    code = "timeout"
    status = 504
    retry = Retry.ELSEWHERE
    trips_breaker = True
    _WHAT: ClassVar[dict[str, str]] = {
        "connect": "The connection to the provider was not made within {:g} s.",
        "first_token": "The provider sent no first token within {:g} s.",
        "idle": "The provider's stream stood still for {:g} s.",
        "total": "The provider's answer was not complete within {:g} s.",
    }

    def __init__(self, limit: str, after_s: float, *, upstream_request_id: str | None = None) -> None:
        super().__init__(self._WHAT[limit].format(after_s), upstream_request_id=upstream_request_id)
        self.limit: Final = limit
