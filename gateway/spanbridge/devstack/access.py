"""Users and rights of the devstack's RocketMQ (ACL 2.0), made over the remoting protocol.

A right is an action (``Pub``, ``Sub``, ``Get``, ...) on a resource, ``Topic:NAME`` or ``Group:NAME``; ``*`` ends a
prefix. What no right covers is refused, but to super users.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import IntEnum

from spanbridge.devstack.topics import ask
from spanbridge.rocketmq.remoting.call import Call
from spanbridge.rocketmq.remoting.frame import AclKeys, Frame

Rights = Mapping[str, Sequence[str]]
"""Actions by resource: ``{"Topic:t": ["Pub"]}``."""


class _Code(IntEnum):
    """``RequestCode``"""

    CREATE_USER = 3001
    UPDATE_USER = 3002
    CREATE_ACL = 3006
    DELETE_ACL = 3008


class RocketmqAccounts:
    """Makes and changes accounts as the super user ``keys``, on the broker whose remoting port is ``port``.

    A proxy inside the broker sees each change at once; one in a process of its own keeps users and rights for a minute.
    """

    def __init__(self, port: int, keys: AclKeys) -> None:
        self._port = port
        self._keys = keys

    def create(self, user: str, password: str, rights: Rights) -> None:
        """Make a user who has these rights.

        Raises:
            ServiceError: the broker refused: there is such a user already.
        """
        self._user(_Code.CREATE_USER, user, {"password": password, "userType": "Normal"})
        self.grant(user, rights)

    def grant(self, user: str, rights: Rights) -> None:
        """Let the user do this as well; what he might do on a resource named here is replaced.

        Raises:
            ServiceError: the broker refused.
        """
        if rights:
            entries = [
                {"resource": resource, "actions": list(actions), "decision": "Allow"}
                for resource, actions in rights.items()
            ]
            self._acl(_Code.CREATE_ACL, user, {}, {"policies": [{"policyType": "Custom", "entries": entries}]})

    def revoke(self, user: str, *resources: str) -> None:
        """Take what the user may do on these resources.

        Raises:
            ServiceError: the broker refused: he has no right on one of them.
        """
        for resource in resources:
            self._acl(_Code.DELETE_ACL, user, {"policyType": "Custom", "resource": resource}, {})

    def set_password(self, user: str, password: str) -> None:
        """Change the user's password.

        Raises:
            ServiceError: the broker refused.
        """
        self._user(_Code.UPDATE_USER, user, {"password": password})

    def enable(self, user: str, enabled: bool) -> None:
        """Let the user in, or keep him out.

        Raises:
            ServiceError: the broker refused.
        """
        self._user(_Code.UPDATE_USER, user, {"userStatus": "enable" if enabled else "disable"})

    def _user(self, code: _Code, user: str, info: Mapping[str, str]) -> None:
        self._ask(f"{code.name.lower()} {user!r}", code, {"username": user}, info)

    def _acl(self, code: _Code, user: str, fields: Mapping[str, str], info: Mapping[str, object]) -> None:
        subject = {"subject": f"User:{user}"}
        self._ask(f"{code.name.lower()} {user!r}", code, {**subject, **fields}, {**subject, **info})

    def _ask(self, what: str, code: _Code, fields: Mapping[str, str], info: Mapping[str, object]) -> None:
        body = json.dumps(info).encode()
        ask(self._port, Call(what=what, code=code, fields=fields, body=body, read=_nothing), self._keys)


def _nothing(_: Frame) -> None:
    return None
