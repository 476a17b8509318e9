"""The demo's tools: a deployment wizard in four steps, and a basket that is a typed object in the session.

>>> from dcaf import Session
>>> session = Session()
>>> add_item("widget", 2, session)
'2 x widget in the basket, 2 items in all.'
>>> session["basket"]
{'items': [{'name': 'widget', 'quantity': 2}]}

No tool saves anything: what changed is noticed, however deep it is.
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel

from dcaf.core.session import Session
from dcaf.tools import tool


class Item(BaseModel):
    """One line of the basket."""

    name: str
    quantity: int = 1


class Basket(BaseModel):
    """What the user wants to buy."""

    items: list[Item] = []


@tool
def start_deploy(session: Session) -> str:
    """Start the deployment wizard."""
    session.set("wizard_step", 1)
    return "Step 1: which service do you want to deploy?"


@tool
def set_service(name: str, session: Session) -> str:
    """Choose the service.

    Args:
        name: Name of the service.
    """
    session.set("service", name)
    session.set("wizard_step", 2)
    return f"Service: {name}. Step 2: how many replicas?"


@tool
def set_replicas(count: int, session: Session) -> str:
    """Choose the number of replicas.

    Args:
        count: How many copies of the service run.
    """
    session.set("replicas", count)
    session.set("wizard_step", 3)
    return f"{count} replicas. Step 3: say 'execute' to deploy {session.get('service', 'it')}."


@tool(requires_approval=True)
def execute_deploy(session: Session) -> str:
    """Deploy, and reset the session."""
    service, replicas = session.get("service"), session.get("replicas")
    if service is None or replicas is None:
        return "Nothing to deploy yet: say 'start'."
    session.clear()
    return f"Deployed {service} with {replicas} replicas."


@tool
def add_item(name: str, quantity: int, session: Session) -> str:
    """Put something into the basket.

    Args:
        name: What.
        quantity: How many of it.
    """
    basket = session.get("basket", Basket(), as_type=Basket)
    basket.items.append(Item(name=name, quantity=quantity))
    return f"{quantity} x {name} in the basket, {sum(item.quantity for item in basket.items)} items in all."


@tool
def one_more(name: str, session: Session) -> str:
    """Raise the quantity of something in the basket by one.

    Args:
        name: What.
    """
    for item in session.get("basket", {}).get("items", []):
        if item["name"] == name:
            item["quantity"] += 1
            return f"{item['quantity']} x {name} in the basket."
    return f"There is no {name} in the basket."


@tool
def forget_me(session: Session) -> str:
    """End the session: whatever the service was told in it is gone with it."""
    session.end()
    return "Forgotten: your next message begins a new session."


TOOLS: Final = (start_deploy, set_service, set_replicas, execute_deploy, add_item, one_more, forget_me)
