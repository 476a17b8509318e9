"""The waiter takes an order dish by dish, and the till makes the bill of it: two services that share the session."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from dcaf import Session, SessionMiddleware, current_session, tool
from dcaf.agent import AgentResult, create_app

AUDIENCE = "restaurant"
PRICES = {"soup": 6, "pasta": 12, "cake": 5}


class Order(BaseModel):
    dishes: list[str] = []


@tool
def add(dish: str, session: Session) -> str:
    """Put a dish on the order."""
    if dish not in PRICES:
        return f"There is no {dish} today."
    order = session.get("order", Order(), as_type=Order)
    order.dishes.append(dish)
    return f"One {dish}. That makes {len(order.dishes)}."


def waiter(messages: list[Any], context: dict[str, Any], session: Session) -> AgentResult:
    words = messages[-1].content.split()
    return AgentResult(add(words[-1], session) if words[0] == "add" else "What would you like?")


async def bill(_: Request) -> JSONResponse:
    order = current_session().get("order", Order(), as_type=Order)
    return JSONResponse({"total": sum(PRICES[dish] for dish in order.dishes)})


def create_waiter(**settings: Any) -> ASGIApp:
    return create_app(waiter, audience=AUDIENCE, **settings)


def create_till(**settings: Any) -> ASGIApp:
    return SessionMiddleware(Starlette(routes=[Route("/bill", bill, methods=["POST"])]), audience=AUDIENCE, **settings)
