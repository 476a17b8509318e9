"""Every exception of dcaf, in one tree, split first by whose move it is.

    DcafError
    ├── ConfigurationError            the developer's, when the application is built
    ├── StateError                    the application's, while a turn runs
    │   ├── SessionValueError             this value may not be stored
    │   ├── SessionTypeError              the stored value is not of the type asked for
    │   ├── SessionAliasError             one value was changed through two handles
    │   ├── SessionReadOnlyError          a session that may only be read was written
    │   ├── SessionClosedError            a session was written after its turn or call was over
    │   ├── SessionArchivedError      409  a session that a service keeps is in the archive
    │   ├── NotCarriedError               the session changed on an answer that cannot carry it
    │   ├── UnknownSessionError       404  a session service has no such session of this user
    │   ├── UnknownArtifactError      404  an artifact is not there any more
    │   ├── SessionExistsError        409  a session service has one of this id already
    │   ├── StaleSessionError         409  another one has committed a kept session since it was read
    │   ├── DocumentConflictError     409  a document is of another revision than was expected
    │   ├── ToolArgumentError             the model's arguments do not fit the tool
    │   ├── ToolError                     a tool's own words to the model
    │   ├── ToolApprovalError             a tool that needs approval was run without one
    │   ├── ToolTimeoutError              a tool took too long
    │   ├── ToolConflictError             what a tool did to the session would have undone what another did
    │   ├── ExitError                     code that was called ended with what would have ended the program
    │   └── InterceptorError              an interceptor's own words to the user
    ├── AgentError                    a turn of an agent could not be finished; the session is as it was before
    │   ├── ModelFailedError          502  the model, or the way to it, failed
    │   ├── ModelLimitError           500  the model was called too often in one turn
    │   └── TurnTimeoutError          504  the turn took too long
    ├── SessionError                  the client's: its request is answered with a problem
    │   ├── SessionUnsigned               400  a plain object where a sealed session is due
    │   ├── SessionMalformed              400  not an envelope at all
    │   ├── SessionInvalid                400  not sealed by us, for this holder
    │   ├── SessionEnded                  409  sealed by us, and over
    │   ├── SessionConflict               409  sealed by us; a turn is in progress, or an answer was lost
    │   ├── SessionSuperseded             409  sealed by us, and not the newest
    │   ├── IdempotencyKeyReused          422  one Idempotency-Key, another request
    │   ├── QuotaExceededError            409  a session that a service keeps, or its user, has as much as it may have
    │   ├── SessionTooLarge               413  a token over its limit
    │   ├── BodyTooLarge                  413  a body over its limit
    │   ├── MalformedJSON                 400  a body that a strict JSON parser refuses
    │   └── EncodedBody                   415  a compressed body
    └── StoreError                    the operator's
        ├── SessionUnavailable            503  the ledger or the store cannot be reached
        └── EngineError                   503  an engine could not read or write, and wrote nothing
            ├── CommitUnknownError        503  nobody can tell whether an engine has written
            └── SealedRowError            503  a row that was encrypted cannot be opened

>>> SessionInvalid(reason="mac", kid="k7").http_status
400
>>> str(SessionInvalid(reason="mac", kid="k7"))
'The session was not sealed by this service for this caller.'

>>> def accept(plain): return plain["step"]
>>> try:
...     accept({})
... except KeyError as error:
...     print(describe_raised(error))
KeyError in accept (...:1)

What a reader gets wrong: ``str(error)`` of a SessionError is the sentence for the client, one static sentence per class. Why it was
refused is in ``error.reason``, for the log alone.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any, ClassVar, Literal


class DcafError(Exception):
    """The base of everything that dcaf raises on purpose.

    Attributes:
        code: What the error is called in answers and logs.
        http_status: The status of the answer where a request ends in it.
    """

    code: ClassVar[str] = "dcaf"
    http_status: ClassVar[int] = 500


class ConfigurationError(DcafError):
    """A setting is wrong; raised when the thing is built. The message says what to write instead."""

    code = "configuration"


class StateError(DcafError):
    """Code of the application did something to its session that is not possible."""

    code = "state"


class SessionValueError(StateError):
    """A value may not be stored; the message has its path (``cart.items[2].price``) and never the value."""

    code = "session-value"


class SessionTypeError(StateError):
    """A stored value is not of the type that was asked for; the message has key and path, never the value."""

    code = "session-type"


class SessionAliasError(StateError):
    """One value was changed through two handles, and neither can be dropped without losing a change."""

    code = "session-alias"


class SessionReadOnlyError(StateError):
    """A session that may only be read was written; the message says what to declare in order to write."""

    code = "session-read-only"


class SessionClosedError(StateError):
    """A session was changed after its turn, its call or its transaction was over: nobody would see the change; it is lost."""

    code = "session-closed"


class SessionArchivedError(SessionClosedError):
    """A session that a service keeps was to be written, and is in the archive. Nothing was written: restore it first."""

    code = "session-archived"
    http_status = 409


class NotCarriedError(StateError):
    """The session was changed on an answer that cannot carry it; the message names the route."""

    code = "session-not-carried"


class ToolArgumentError(StateError):
    """The arguments that the model chose do not fit the tool; the message lists path and problem, one a line.

    Args:
        message: What the model is told.

    Attributes:
        problems: The path and the problem of each misfit, in the order of the message.
    """

    code = "tool-argument"

    def __init__(self, message: str, problems: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.problems: tuple[tuple[str, str], ...] = tuple(problems)


class ToolError(StateError):
    """Raised by a tool to say to the model why it did nothing. The message goes to the model as it is."""

    code = "tool-error"


class ToolApprovalError(StateError):
    """A tool that needs approval was to be run without one. It did not run."""

    code = "tool-approval"


class ToolTimeoutError(StateError):
    """A tool took longer than it may. Its changes of the session are dropped."""

    code = "tool-timeout"


class ToolConflictError(StateError):
    """A tool that declares no session wrote it, and another call had changed what it read. Its changes are dropped."""

    code = "tool-conflict"


class ExitError(StateError):
    """A tool, an agent function or an interceptor ended with what is no Exception: SystemExit, a cancellation of its own making.

    It would have ended the program, or the task that it ran in. The cause has it.

    Attributes:
        kind: The name of its class.
    """

    code = "exit"

    def __init__(self, kind: str) -> None:
        super().__init__(f"The code that was called ended with {kind}. Raise an Exception instead.")
        self.kind: str = kind


class InterceptorError(StateError):
    """Raised by an interceptor to end the turn, with words of its own for the user.

    Attributes:
        user_message: What the user reads in place of an answer.
        reason: Why, in one word, for the program that shows it.
        details: More for that program; a JSON value.
    """

    code = "interceptor"

    def __init__(self, user_message: str, *, reason: str = "blocked", details: Any = None) -> None:
        super().__init__(user_message)
        if not isinstance(user_message, str) or not isinstance(reason, str):
            raise ConfigurationError("An InterceptorError takes the text that the user reads, and reason= in one word.")
        self.user_message: str = user_message
        self.reason: str = reason
        self.details: Any = details


class UnknownSessionError(StateError):
    """A session service has no session of this id, or it is another user's, which looks the same. Nothing was written."""

    code = "session-unknown"
    http_status = 404


class UnknownArtifactError(StateError):
    """An artifact was deleted while it was read, or while a version of it was saved; of that version there is nothing."""

    code = "artifact-unknown"
    http_status = 404


class SessionExistsError(StateError):
    """A session was to be made under an id that one has already. Nothing was written."""

    code = "session-exists"
    http_status = 409


class StaleSessionError(StateError):
    """Another one has committed a kept session since it was read. Nothing was written: read it again, and do it again."""

    code = "session-stale"
    http_status = 409


class DocumentConflictError(StateError):
    """A document is of another revision than was expected. Nothing was written: read it again, and do it again."""

    code = "document-conflict"
    http_status = 409


class AgentError(DcafError):
    """A turn of an agent could not be finished. Its changes of the session are dropped.

    Attributes:
        detail: The static sentence for the client.
    """

    code = "agent"
    detail: ClassVar[str] = "The agent could not finish the turn. The session is as it was before."


class ModelFailedError(AgentError):
    """The model, or the way to it, failed; the message has the type of the original error."""

    code = "model-failed"
    http_status = 502
    detail = "The model could not be reached, or failed. The session is as it was before. Try again."


class ModelLimitError(AgentError):
    """The model asked for tools again and again, until it was called more often than one turn may."""

    code = "model-limit"
    detail = "The agent used more steps than one turn may take. The session is as it was before."


class TurnTimeoutError(AgentError):
    """The turn took longer than it may."""

    code = "turn-timeout"
    http_status = 504
    detail = "The agent took longer than one turn may take. The session is as it was before."


class SessionError(DcafError):
    """The client's session or body is refused.

    Attributes:
        detail: The static sentence for the client.
        offers_restart: Whether the answer's body carries the wish for a new session, so that a client which adopts ``data.session``
            from any answer drops the refused one.
        reason: Why, in one word, for the log; never sent.
        kid: Id of the key that the token names, for the log; None where no token was read so far.
        sid_digest: Keyed digest of the session id, for the log; None where the claims were not read.
    """

    detail: ClassVar[str] = "The session is refused."
    offers_restart: ClassVar[bool] = True

    def __init__(self, *, reason: str = "", kid: str | None = None, sid_digest: str | None = None) -> None:
        super().__init__(self.detail)
        self.reason = reason
        self.kid = kid
        self.sid_digest = sid_digest


class SessionUnsigned(SessionError):
    """A non-empty plain object stands where a sealed session is due."""

    code = "session-unsigned"
    http_status = 400
    detail = "The session carries no seal. Send back the session object of the last answer, or none."


class SessionMalformed(SessionError):
    """The value at ``data.session`` is no envelope."""

    code = "session-malformed"
    http_status = 400
    detail = "The session is not an object with a token. Send back the session object of the last answer, or none."


class SessionInvalid(SessionError):
    """The token was not sealed by us for this caller. One class and one answer, whatever the cause."""

    code = "session-invalid"
    http_status = 400
    detail = "The session was not sealed by this service for this caller."


class SessionEnded(SessionError):
    """The token is authentic and bound to this caller, but expired, revoked, or of a schema not known here."""

    code = "session-ended"
    http_status = 409
    detail = "The session has ended. Start a new one."


class SessionConflict(SessionError):
    """A turn of the session is in progress, or the answer to one was lost.

    Args:
        reason: Why, in one word, for the log; never sent.
        envelope: The current envelope, as below.
        applied: Whether the request was applied, as below.
        kept: What ``Sealed.keep`` had returned for the current envelope, as below.
        session_id: The session of that envelope, as below.

    Attributes:
        envelope: The current envelope as JSON, for a client whose answer was lost; None for none.
        applied: Whether what this request asks for was done in the turn whose answer was lost: ``"partial"`` where that turn did
            not finish, None where nobody says.
        kept: The current envelope as a store keeps it, encrypted; the turn decrypts it into ``envelope`` and ``token``.
        session_id: The session that it was kept for; None for the one of the request.
        token: The token of that envelope, for a client whose session travels in a header or a cookie; None for none.
    """

    code = "session-conflict"
    http_status = 409
    detail = "The session has moved on, or another turn of it is in progress."
    offers_restart = False

    def __init__(
        self,
        *,
        reason: str = "",
        kid: str | None = None,
        sid_digest: str | None = None,
        envelope: bytes | None = None,
        applied: bool | Literal["partial"] | None = None,
        kept: bytes | None = None,
        session_id: str | None = None,
    ) -> None:
        super().__init__(reason=reason, kid=kid, sid_digest=sid_digest)
        self.envelope: bytes | None = envelope
        self.kept: bytes | None = kept
        self.session_id: str | None = session_id
        self.token: bytes | None = None
        self.applied: bool | Literal["partial"] | None = applied


class SessionSuperseded(SessionError):
    """The token is authentic, but not the newest of its session, and nobody gives the newer one for it."""

    code = "session-superseded"
    http_status = 409
    detail = "The session has moved on. Go on with the newest one, which another tab may have, or start a new one."
    offers_restart = False


class IdempotencyKeyReused(SessionError):
    """The Idempotency-Key of the request was used for another request."""

    code = "idempotency-key-reused"
    http_status = 422
    detail = "The Idempotency-Key was used for another request. Send a new one."
    offers_restart = False


class QuotaExceededError(SessionError):
    """A session that a service keeps, or its user, has as much as a quota of the service allows. Nothing was written.

    Args:
        problem: What ``str`` gives; empty for ``detail``.
        quota, limit, size: As below.

    Attributes:
        quota: Which one: ``"messages"`` or ``"sessions"``.
        limit: How many there may be.
        size: How many messages there would have been; or how many sessions there are at least.
    """

    code = "quota-exceeded"
    http_status = 409
    detail = "The session, or its user, has as much as this service keeps. Nothing was written."
    offers_restart = False

    def __init__(self, problem: str = "", *, quota: str = "", limit: int = 0, size: int = 0) -> None:
        super().__init__(reason=quota)
        self.quota: str = quota
        self.limit: int = limit
        self.size: int = size
        self._problem = problem or self.detail

    def __str__(self) -> str:
        return self._problem


class SessionTooLarge(SessionError):
    """The token is over ``max_token_bytes``."""

    code = "session-too-large"
    http_status = 413
    detail = "The session's token is larger than this service accepts."
    offers_restart = False


class BodyTooLarge(SessionError):
    """The JSON body is over ``max_body_bytes``, or has more structure than is parsed."""

    code = "body-too-large"
    http_status = 413
    detail = "The JSON body is larger than this service accepts."
    offers_restart = False


class MalformedJSON(SessionError):
    """The body is JSON that a strict parser refuses, so that no two parsers can read it differently."""

    code = "malformed-json"
    http_status = 400
    detail = (
        "The body is not strict JSON: UTF-8 without a byte order mark, finite numbers, no lone surrogates, "
        "moderate depth, and no repeated member on the way to a session."
    )
    offers_restart = False


class EncodedBody(SessionError):
    """The body has a Content-Encoding, so a session in it could not be seen."""

    code = "unsupported-content-encoding"
    http_status = 415
    detail = "Send the body without a Content-Encoding."
    offers_restart = False


class MalformedRequest(SessionError):
    """The body is JSON, and no turn of a conversation.

    Attributes:
        problems: Path and problem of each misfit; none of the values.
    """

    code = "malformed-request"
    http_status = 400
    detail = 'The body is not a turn. A turn is {"messages": [{"role": "user", "content": "..."}]}.'
    offers_restart = False

    def __init__(self, problems: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(reason="shape")
        self.problems: tuple[tuple[str, str], ...] = tuple(problems)

    def __str__(self) -> str:
        return "\n".join([self.detail, *(f"{path}: {problem}" for path, problem in self.problems)])


class StoreError(DcafError):
    """A server-side store did not do its part."""

    code = "store"
    http_status = 503


class SessionUnavailable(StoreError):
    """The ledger or the store cannot be reached, or too many bytes are being read. Fail closed: never start an empty session.

    Attributes:
        reason: Why, in one word, for the log; never sent.
        ran: Whether the application had run when this happened; None where nobody says.
    """

    code = "session-unavailable"
    detail: ClassVar[str] = "The session cannot be checked right now. Try again."
    offers_restart: ClassVar[bool] = False

    def __init__(self, *, reason: str = "", ran: bool | None = None) -> None:
        super().__init__(self.detail)
        self.reason = reason
        self.ran: bool | None = ran


class EngineError(StoreError):
    """An engine could not read or write. Nothing was written. The message says why, and has no key and no value."""

    code = "engine"


class CommitUnknownError(EngineError):
    """An engine was interrupted while it wrote: nobody can tell whether it was written. Read again before you write again."""

    code = "commit-unknown"


class SealedRowError(EngineError):
    """A row that was encrypted cannot be opened: it is not what was written in its place, or its key is not in the ring.

    The message says which, and the id of the key; it has no key and no value of the row.
    """

    code = "sealed-row"


def describe_raised(error: BaseException) -> str:
    """Describe an exception of a called function for the log: its type, and where in that function it was raised.

    The message of the exception is left out, because it may quote what a caller has sent.
    """
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first frame is the one that caught it
    places = [f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in frames]
    name = type(error).__name__
    if places:
        name += f" in {places[0]}"
    return f"{name}, from {places[-1]}" if len(places) > 1 else name
