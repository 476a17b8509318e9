"""Nothing of one turn is seen by another, and nothing of any in a log: many turns at once, good, failing and left early."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from contextlib import suppress
from typing import Any

from dcaf import Session, current_session, tool
from dcaf.agent import Agent, PlatformContext, create_app
from dcaf.tools.platform_context import current_platform
from tests.agent.agents import exchange, lines_of, obedient
from tests.asgi.wire import AUDIENCE, JSON_TYPE, RING, envelope, messages_of, opened, scope_of

SEEN: list[tuple[str, str]] = []


@tool
async def tell(who: str, session: Session, platform_context: PlatformContext) -> str:
    """Compare who asks with who is said to ask."""
    await asyncio.sleep(0.002)
    SEEN.append((who, f"{session['who']} {platform_context['user_id']} {current_session()['who']} {current_platform()['user_id']}"))
    session.append("told", who)
    return "told"


@tool
async def breaks(who: str, session: Session) -> str:
    """Break after a while."""
    session.set("broken", who)
    await asyncio.sleep(0.001)
    raise RuntimeError(who)


async def instructions(session: Session) -> str:
    await asyncio.sleep(0.001)
    return f"You talk to {session.get('who')}"


async def one(app: Any, number: int, rng: random.Random) -> None:
    who = f"canary{number}"
    name = rng.choice(["tell", "tell", "breaks", "nothing"])
    content = "fail" if number % 7 == 0 else f'call {name} {{"who": "{who}"}}\ncall tell {{"who": "{who}"}}'
    body = {
        "messages": [{"role": "user", "content": content, "platform_context": {"user_id": who, "duplo_token": f"secret-{who}"}}],
        "data": {"session": envelope({"who": who}, subject=who)},
        "thread": who,
    }
    path = rng.choice(["/api/chat", "/api/chat-stream"])
    scope = scope_of("POST", path, [JSON_TYPE, (b"x-user", who.encode())])
    task = asyncio.create_task(exchange(app, scope, messages_of(json.dumps(body).encode())))
    if number % 5 == 0:
        await asyncio.sleep(rng.random() * 0.02)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return
    sent = await task
    assert b"secret" not in sent.body
    assert {word for word in sent.body.decode().replace('"', " ").replace("\\", " ").split() if word.startswith("canary")} <= {who}
    last = list(lines_of(sent.body))[-1]
    if "session" in (last.get("data") or {}):
        from dcaf.core.sealer import Sealer

        sealer = Sealer(keys=RING, audience=AUDIENCE)
        state = sealer.open(last["data"]["session"], sealer.binding(subject=who)).to_dict()
        assert state.pop("who") == who
        assert set(state.pop("told", [])) <= {who}
        assert state == {}


def test_five_hundred_turns_at_once_see_nothing_of_each_other_and_log_nothing(caplog: Any) -> None:
    SEEN.clear()
    agent = Agent(obedient(), tools=[tell, breaks], instructions=instructions)
    app = create_app(agent, keys=RING, audience=AUDIENCE, subject=lambda scope: dict(scope["headers"])[b"x-user"].decode())
    rng = random.Random(17)

    async def run() -> None:
        before = asyncio.all_tasks()
        async with asyncio.TaskGroup() as group:
            for number in range(500):
                group.create_task(one(app, number, rng))
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == before

    with caplog.at_level(logging.DEBUG):
        asyncio.run(run())
    assert len(SEEN) > 300
    assert all(found == f"{who} {who} {who} {who}" for who, found in SEEN)
    assert "canary" not in caplog.text
    assert "dcaf1s" not in caplog.text


def test_what_the_agents_objects_show_has_nothing_of_a_turn() -> None:
    from dcaf.agent.codec import Asked
    from dcaf.agent.run_state import Draft
    from dcaf.agent.runner import Run

    body = {
        "messages": [{"role": "user", "content": "canary", "platform_context": {"x": "canary"}, "user": {"id": "canary"}}],
        "thread_id": "canary",
        "platform_context": {"x": "canary"},
    }
    asked = Asked.read(json.dumps(body))
    session = Session.from_dict({"x": "canary"})
    agent = Agent(obedient(), tools=[tell])
    run = Run(agent._service, asked.messages, session, asked.context)
    draft = Draft(session, asked.messages, asked.context, text="canary", further={"x": "canary"})
    for shown in (asked, asked.messages, agent, run, draft):
        assert "canary" not in repr(shown)
    assert opened(envelope({"x": 1})) == {"x": 1}
