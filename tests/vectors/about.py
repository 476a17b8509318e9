"""What the files of vectors say of themselves: how each member is to be read."""

from __future__ import annotations

from typing import Any, Final


def join_lines(text: str) -> str:
    """A text of several lines as one."""
    return " ".join(text.split())


WIRE: Final[dict[str, Any]] = {
    "protocol": 1,
    "service": join_lines("""
        The service that each vector is for: `keys` as text, the active one first; `audience`; the timeouts `idle` and
        `absolute` and the time `now`, in seconds. A vector has what is otherwise in its own `service`: `subject` of
        the caller, `conversation` as a JSON pointer into the body, `encrypt`, `accept_both`, `mirror`, `carriers`,
        `plain` routes, `unsigned`, `on_refused`, limits in bytes, schema `version`.
    """),
    "store": join_lines("""
        A `service` may have a `store`. With `refuses` it refuses to open a session that came in, with that code; `applied` and
        `envelope` are what it says of an answer that was lost. With `refuses_commit` it refuses to keep what was
        sealed. With `epoch` it keeps that epoch for every subject. With `place` it keeps the state there: `state`,
        which has the number `revision`.
    """),
    "randomness": join_lines("""
        The id of the n-th session that a vector begins is base64url of the first 16 bytes of SHA-256 of the text
        `dcaf vectors 1: session n of NAME`, NAME being the vector's. A state is written compactly, and the claims in
        the order of the document.
    """),
    "texts": join_lines("""
        `body`, `application` and `frame` are texts in UTF-8. A member that ends in `_base64` has bytes, one that ends
        in `_parts` a list of texts and how often each is repeated. Headers are pairs, those of an answer sorted;
        their order means nothing.
    """),
    "sealed": join_lines("""
        `sealed` has claims and state of each token that the client got, in order, each once.
    """),
    "acts": join_lines("""
        What the application does, in order: `set` a key, `delete` one, `clear` the session, `read` a key; `start` an
        answer with status and headers, `send` a part, `end` it; send a `checkpoint`; send a `frame`; `close` with a
        code; `fail`. The path is /api/chat.
    """),
}

EXCHANGE: Final[dict[str, Any]] = {
    **WIRE,
    "exchange": join_lines("""
        A request has `method` (POST where it is absent), `headers` and `body`. `candidate` is the session that is
        opened: a JSON pointer into the body, `header` or `cookie`; null where there is none. `application` is the
        body that the application reads, and `reads` the state that it has, without the library's own member; both are
        absent where it does not run. Then it does `acts`. `client` is what the client gets: status, headers and body,
        and `breaks_off` where the connection breaks. It is null where nothing is sent, and the service answers with
        an error of its own. `code` is that of a refusal; `raised` says that the application's turn ended with an
        error.
    """),
}

CONNECTION: Final[dict[str, Any]] = {
    **WIRE,
    "connection": join_lines("""
        A WebSocket with `headers` in its handshake; the application accepts it. In each of `turns` the client sends
        `frame`, which is a text, or a binary frame where `is_binary` is true. `application` is the frame that the
        application reads, and `reads` its state then; both are absent where it reads nothing. Then it does `acts`.
        `client` is what the client gets until it sends the next: frames, and `close` with a code.
    """),
}

PLACES: Final[dict[str, Any]] = {
    **EXCHANGE,
    "store": join_lines("""
        A `service` has a `store`, which gives `state` for every session that comes in. It has the number `revision`. With `place`
        it is kept there; without, the token carries it from then on.
    """),
}

TOKENS_AND_STORES: Final = {
    "store": join_lines("""
        A vector with `store` is for a service that keeps nothing (null). What a token says of a store is judged last
        there, and refused with the reason `store`. A vector without it says what the token itself is.
    """),
}
