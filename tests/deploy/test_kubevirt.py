"""Test the manifests for KubeVirt with the schemas of KubeVirt and Kubernetes: they are valid and consistent."""

import importlib
import json
import warnings
from pathlib import Path

import jsonschema
import pytest
import yaml

from safelight import settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import kubernetes_validate

MANIFESTS = Path(__file__).parents[2] / "deploy/kubevirt"
SCHEMA = Path(__file__).parent / "kubevirt.json"
MACHINES = {"VirtualMachine", "VirtualMachineInstanceReplicaSet"}
PORTS = {"keyvaluestore": 8000, "db": 8001, "storage": 8002, "master": 8003, "worker": 8004}


def strict(definition):
    """Return a schema that refuses unknown members, as KubeVirt's own webhook does."""
    if isinstance(definition, list):
        return [strict(one) for one in definition]
    if not isinstance(definition, dict):
        return definition
    changed = {key: strict(value) for key, value in definition.items()}
    if isinstance(definition.get("properties"), dict) and "additionalProperties" not in definition:
        changed["additionalProperties"] = False
    return changed


@pytest.fixture(scope="module")
def documents():
    found = [one for file in sorted(MANIFESTS.glob("*.yaml")) for one in yaml.safe_load_all(file.read_text())]
    named = {(one["kind"], one["metadata"]["name"]): one for one in found}
    assert len(named) == len(found), "two documents have one name"
    return named


@pytest.fixture(scope="module")
def machines(documents):
    found = {name: one for (kind, name), one in documents.items() if kind in MACHINES}
    assert found.keys() == PORTS.keys()
    return found


def configuration(documents, name):
    return json.loads(documents["ConfigMap", name]["data"]["machine.json"])


def test_kubevirt_and_kubernetes_accept_every_document(documents):
    definitions = {name: strict(one) for name, one in json.loads(SCHEMA.read_text())["definitions"].items()}
    for (kind, _), one in documents.items():
        if kind in MACHINES:
            schema = {"$ref": f"#/definitions/v1.{kind}", "definitions": definitions}
            jsonschema.Draft4Validator(schema).validate(one)
        else:
            kubernetes_validate.validate(one, "1.33", strict=True)
    misspelt = json.loads(json.dumps(documents["VirtualMachine", "db"]))
    misspelt["spec"]["template"]["spec"]["domain"]["devices"]["disks"][0]["disc"] = {}
    schema = {"$ref": "#/definitions/v1.VirtualMachine", "definitions": definitions}
    with pytest.raises(jsonschema.ValidationError, match="disc"):
        jsonschema.Draft4Validator(schema).validate(misspelt)


@pytest.mark.parametrize("name", PORTS)
def test_each_machine_starts_a_service_that_its_probes_reach(documents, machines, name):
    told = configuration(documents, name)
    assert told["run"] == name
    assert told["argv"][:3] == ["python3", "-m", f"safelight.{name}"]
    kind = importlib.import_module(f"safelight.{name}.__main__").Config
    variables = {"SAFELIGHT_HOST": "0.0.0.0", "SAFELIGHT_DATA": "/data"}  # set by the config set
    config = settings.load(kind, told["argv"][3:], section=name, program=name, environ=variables | told["env"])
    assert (config.port, config.cluster_key_file) == (PORTS[name], "/run/secrets/cluster-key")
    spec = machines[name]["spec"]["template"]["spec"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert spec[probe]["httpGet"]["port"] == config.port
        assert spec[probe]["httpGet"]["path"] in {"/healthz", "/readyz"}
    for address in [word for word in told["argv"] if ".svc." in word]:
        service = documents["Service", address.partition(".")[0]]
        port = PORTS[service["spec"]["selector"]["app.kubernetes.io/component"]]
        assert service["spec"]["ports"][0]["targetPort"] == port
        assert ":" not in address or address.endswith(f":{port}")
    assert told["stop_grace"] < spec["terminationGracePeriodSeconds"], "the machine would be killed while it stops"


@pytest.mark.parametrize("name", PORTS)
def test_each_disk_has_the_serial_number_that_the_machine_expects(documents, machines, name):
    spec = machines[name]["spec"]["template"]["spec"]
    volumes = {one["name"]: one for one in spec["volumes"]}
    disks = {one["name"]: one for one in spec["domain"]["devices"]["disks"]}
    assert volumes.keys() == disks.keys()
    assert all(disk["disk"] == {"bus": "virtio"} for disk in disks.values())
    by_serial = {disk["serial"]: volumes[disk["name"]] for disk in disks.values() if "serial" in disk}
    assert by_serial["config"]["configMap"]["name"] == name
    assert by_serial["secrets"]["secret"] == {"secretName": "cluster-key"}
    mounts = {mount["serial"]: mount["path"] for mount in configuration(documents, name).get("mounts", ())}
    assert mounts == ({} if name in {"master", "worker"} else {"data": "/data"})
    assert all("persistentVolumeClaim" in by_serial[serial] for serial in mounts)
    assert set(by_serial) == {"config", "secrets", *mounts}
    labels = machines[name]["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == name
    if machines[name]["kind"] != "VirtualMachine":
        assert machines[name]["spec"]["selector"]["matchLabels"].items() <= labels.items()
