"""The distributed backend: entries in an etcd cluster, which any number of key-value stores share."""

from safelight.keyvaluestore.etcd.gateway import Gateway
from safelight.keyvaluestore.etcd.store import EtcdStore
from safelight.keyvaluestore.etcd.trust import Access

__all__ = ["Access", "EtcdStore", "Gateway"]
