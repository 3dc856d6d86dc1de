"""Test that a store has the interface of its client, which direct calls within one process rely on."""

import inspect

import pytest

from safelight.client.accounts import AccountClient
from safelight.client.base import ServiceClient
from safelight.client.db import DbClient
from safelight.client.keyvaluestore import KeyValueStoreClient
from safelight.client.partials import PartialClient
from safelight.client.storage import StorageClient
from safelight.db.calls.accounts import AccountCalls
from safelight.db.sqlite import SqliteStore
from safelight.keyvaluestore.sqlite import SqliteStore as SqliteKeyValueStore
from safelight.storage.direct import DirectPartials, DirectStorage

PAIRS = [
    (DbClient, SqliteStore),
    (AccountClient, AccountCalls),
    (KeyValueStoreClient, SqliteKeyValueStore),
    (StorageClient, DirectStorage),
    (PartialClient, DirectPartials),
]
ELSEWHERE = {"backup", "collect", "shared", "adopt"}
"""Methods of a client that only commands and workers use."""


def methods(kind: type) -> dict[str, list[tuple[str, object, object]]]:
    return {
        name: [(each.name, each.kind, each.default) for each in inspect.signature(method).parameters.values()]
        for name, method in inspect.getmembers(kind, callable)
        if not name.startswith("_") and not hasattr(ServiceClient, name)
    }


@pytest.mark.parametrize(("client", "store"), PAIRS, ids=lambda kind: kind.__name__)
def test_a_store_has_the_methods_of_its_client(client, store):
    wanted, found = methods(client), methods(store)
    assert set(wanted) - set(found) <= ELSEWHERE
    assert {name: found[name] for name in wanted if name in found} == {
        name: parameters for name, parameters in wanted.items() if name in found
    }
