"""The other end of a pool: one environment in a process of its own, which answers until its pool is gone.

A message is `(task, actions)`, to begin a task and carry out the actions, or `(None, [action])`, to go on. The answer
is the list of views, or the exception that was raised instead.
"""

import signal
from multiprocessing.connection import Connection

from verbalize.agents.environment import Environment, MakeEnvironment, play, step


def serve(make: MakeEnvironment, connection: Connection) -> None:
    """Answer messages until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pool, which ends its workers
    environment: Environment | None = None
    while True:
        try:
            task, actions = connection.recv()
        except EOFError:
            break
        try:
            environment = environment or make()
            views = play(environment, task, actions) if task else [step(environment, action) for action in actions]
        except Exception as error:
            connection.send(error)
        else:
            connection.send(views)
    if environment:
        environment.close()
