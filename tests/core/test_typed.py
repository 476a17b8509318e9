"""Typed sessions: subclasses with annotations, as views of the same keys."""

import re
from datetime import date
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import BaseModel, Field
from pydantic import Field as PydanticField

from dcaf.core import ConfigurationError, Session, SessionTypeError, SessionValueError


class Service(BaseModel):
    name: str
    replicas: int = 1


class Deploy(Session):
    step: int = 1
    services: list[Service] = []
    due: date | None = None
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    owner: str
    LIMIT: ClassVar[int] = 3


class Canary(Deploy):
    percent: int = 5
    step: int = 7


def message(kind: Any, make: Any) -> Any:
    with pytest.raises(kind) as caught:
        make()
    return str(caught.value)


def test_a_field_reads_its_default_and_stores_nothing() -> None:
    session = Deploy()
    assert (session.step, session.services, session.due, session.share) == (1, [], None, 0.0)
    assert session.to_dict() == {}
    assert not session.is_modified


def test_a_field_is_a_key() -> None:
    session = Deploy()
    session.step += 1
    session.due = date(2026, 1, 31)
    assert session["step"] == 2
    assert session.to_dict() == {"step": 2, "due": "2026-01-31"}
    session["step"] = 9
    assert session.step == 9
    del session.step
    assert session.step == 1
    with pytest.raises(KeyError):
        del session.step


def test_a_default_is_stored_as_soon_as_it_changes() -> None:
    session = Deploy()
    session.services.append(Service(name="api"))
    assert session.to_dict() == {"services": [{"name": "api", "replicas": 1}]}
    session.services[0].replicas = 4
    assert session["services"][0]["replicas"] == 4


def test_a_mutable_default_is_copied_for_each_session() -> None:
    Deploy().services.append(Service(name="api"))
    assert Deploy().services == []


def test_every_view_shares_state_and_handles() -> None:
    session = Session.from_dict({"services": [{"name": "api"}]})
    one, other = Deploy.of(session), Canary.of(session)
    assert one.services is other.services
    one.services[0].replicas = 2
    assert other["services"] == session["services"] == [{"name": "api", "replicas": 2}]
    assert session.is_modified
    assert one.is_modified


def test_a_subclass_inherits_fields_and_may_declare_them_anew() -> None:
    session = Canary()
    assert (session.step, session.percent, session.LIMIT) == (7, 5, 3)
    session.owner = "me"
    assert Deploy.of(session).owner == "me"


def test_a_constraint_of_the_annotation_is_obeyed() -> None:
    session = Deploy()
    session.share = 0.5
    assert message(SessionTypeError, lambda: setattr(session, "share", 2)).endswith(
        "\n  share: Input should be less than or equal to 1"
    )
    assert session.to_dict() == {"share": 0.5}


def test_a_value_that_does_not_fit_its_field_is_refused() -> None:
    session = Deploy()
    assert message(SessionTypeError, lambda: setattr(session, "step", "CANARY")) == (
        "the value does not fit int\n  step: Input should be a valid integer, unable to parse string as an integer"
    )
    assert message(SessionTypeError, lambda: setattr(session, "services", [{"replicas": 1}])).endswith(
        "\n  services[0].name: Field required"
    )
    assert not session.is_modified


def test_a_stored_value_that_does_not_fit_its_field_is_refused() -> None:
    session = Session.from_dict({"step": "CANARY"})
    assert message(SessionTypeError, lambda: Deploy.of(session).step) == (
        "the value does not fit int\n  step: Input should be a valid integer, unable to parse string as an integer"
    )


def test_a_field_without_a_value_and_a_default_says_so() -> None:
    assert message(AttributeError, lambda: Deploy().owner) == "Deploy.owner is not set and has no default"
    assert not hasattr(Deploy(), "owner")


@pytest.mark.parametrize("name", ["keys", "get", "temp", "user", "id", "changes", "clear", "items", "copy", "expires_at"])
def test_a_field_named_like_an_attribute_of_session_fails_at_class_creation(name: Any) -> None:
    def make() -> None:
        type("Broken", (Session,), {"__annotations__": {name: int}, "__module__": __name__})

    assert message(ConfigurationError, make) == (
        f"Broken.{name}: Session has an attribute of that name. Call the field {name}_value, or use session['{name}']."
    )


def test_a_pydantic_field_as_default_fails_at_class_creation() -> None:
    def make() -> None:
        class Broken(Session):
            step: int = PydanticField(default=1, ge=0)

    assert message(ConfigurationError, make) == (
        "Broken.step: write the default itself, and pydantic's Field into the annotation: "
        "step: Annotated[..., Field(...)] = default. A mutable default is copied for each session."
    )


def test_an_annotation_that_names_nothing_fails_when_it_is_used() -> None:
    class Broken(Session):
        step: "Nowhere" = 1  # type: ignore[name-defined]  # noqa: F821

    assert message(ConfigurationError, lambda: Broken().step) == (
        "Broken: the annotation names 'Nowhere', which cannot be found. Import it in the module where "
        "the class is defined, outside `if TYPE_CHECKING:`."
    )


def test_an_annotation_may_name_a_class_of_the_function_around_it() -> None:
    class Local(BaseModel):
        x: int = 0

    class Inner(Session):
        local: "Local" = Local()

    assert Inner().local == Local()


def test_an_annotation_may_name_a_class_that_comes_later() -> None:
    assert Early().later.x == 0


class Early(Session):
    later: "Later"

    def __init__(self) -> None:
        super().__init__()
        self["later"] = {"x": 0}


class Later(BaseModel):
    x: int = 0


def test_an_undeclared_attribute_is_refused_because_it_would_be_lost() -> None:
    found = message(AttributeError, lambda: setattr(Deploy(), "stepp", 2))
    assert re.fullmatch(
        r"Deploy has no field 'stepp', so the value would be lost.*\. Write session\['stepp'\] = \.\.\., "
        r"or declare the field in a subclass of Session\.",
        found,
    )


def test_a_field_may_not_be_the_librarys_own_key() -> None:
    def use() -> None:
        class Forged(Session):
            dcaf: dict[str, int] = {}

        session = Forged()
        session.dcaf["approved"] = 1
        assert b"approved" not in session._state.payload().data

    try:
        use()
    except (ConfigurationError, SessionValueError):
        return


def test_the_object_given_to_a_field_stays_live() -> None:
    session = Deploy()
    service = Service(name="api")
    given = [service]
    session.services = given
    given.append(Service(name="db"))
    service.replicas = 3
    assert session.to_dict() == {"services": [{"name": "api", "replicas": 3}, {"name": "db", "replicas": 1}]}


def test_plain_data_given_to_a_field_is_validated_and_stays_live() -> None:
    class Shop(Session):
        cart: Service

    session, given = Shop(), {"name": "api"}
    session.cart = given  # type: ignore[assignment]
    assert session.cart == Service(name="api")
    given["name"] = "db"
    assert session.cart == Service(name="db")
    assert session.to_dict() == {"cart": {"name": "db", "replicas": 1}}


def test_a_typed_session_starts_from_a_dict() -> None:
    session = Deploy.from_dict({"step": 3})
    assert type(session) is Deploy
    assert session.step == 3
    assert not session.is_modified
