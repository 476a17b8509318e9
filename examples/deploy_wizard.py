"""The deployment wizard in this process: what is said, what is answered, and the state that travels.

Run it with: python examples/deploy_wizard.py
"""

from dcaf import Keyring
from dcaf.demo import create_demo
from dcaf.testing import Reply, SessionClient


def main() -> None:
    """Hold one conversation."""
    with SessionClient(create_demo(Keyring.ephemeral())) as client:
        for text in ("start", "service api", "3 replicas", "add 2 widget", "one more widget", "execute"):
            show(text, client.send(text))
        show("(approves)", client.decide(decision=True))


def show(said: str, reply: Reply) -> None:
    """Print one turn."""
    print(f"user       {said}\nassistant  {reply.text}\nstate      {reply.session}\n")


if __name__ == "__main__":
    main()
