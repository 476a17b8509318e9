"""What a type checker must refuse about a session: a line that ends in "refused", and no other one."""

from dcaf import ReadOnlySession, Session


class Deploy(Session):
    step: int = 1

    def advance(self) -> None:
        self.step += 1


class Canary(Deploy):
    percent: int = 5


def write(session: Session, deploy: Deploy, canary: Canary, seen: ReadOnlySession) -> None:
    deploy.step = 3
    canary.step = canary.percent
    deploy.stpe = 3  # type: ignore[attr-defined]  # refused
    canary.prcent = 3  # type: ignore[attr-defined]  # refused
    deploy.step = "3"  # type: ignore[assignment]  # refused
    session.step = 3  # type: ignore[attr-defined]  # refused
    session.is_modified = True  # type: ignore[misc]  # refused
    deploy.id = "x"  # type: ignore[misc]  # refused
    print(deploy.stpe)  # type: ignore[attr-defined]  # refused
    Deploy.stpe = 3  # type: ignore[attr-defined]  # refused
    Session({"step": 1})  # type: ignore[arg-type]  # refused
    Deploy(step=1)  # type: ignore[arg-type]  # refused
    Deploy.of({"step": 1})  # type: ignore[arg-type]  # refused
    Session.from_dict("{}")  # type: ignore[arg-type]  # refused
    Deploy.of(seen)  # type: ignore[arg-type]  # refused
    seen["step"] = 2  # type: ignore[index]  # refused
    session.incr("n", "2")  # type: ignore[arg-type]  # refused
