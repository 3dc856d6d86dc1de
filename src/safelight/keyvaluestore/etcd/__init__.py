"""The distributed backend: entries in an etcd cluster, which any number of key-value stores share."""

from safelight.keyvaluestore.etcd.gateway import Access, Gateway
from safelight.keyvaluestore.etcd.store import EtcdStore

__all__ = ["Access", "EtcdStore", "Gateway"]
