"""Test the Helm chart with helm and Kubernetes' schemas: it is valid, hardened and consistent."""

import importlib
import re
import subprocess
import warnings
from pathlib import Path

import pytest
import yaml

from safelight import settings

pytestmark = pytest.mark.slow

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import kubernetes_validate

CHART = Path(__file__).parents[2] / "deploy/helm/safelight"
ALERTS = CHART.parents[1] / "prometheus/alerts.yaml"
KUBERNETES = ("1.27", "1.33")
PORTS = {"keyvaluestore": 8000, "db": 8001, "storage": 8002, "master": 8003, "worker": 8004}
CASES = {
    "embedded": {},
    "distributed": {
        "keyvaluestore": {"replicas": 2, "storeSecret": {"name": "etcd"}},
        "db": {"replicas": 3, "storeSecret": {"name": "postgresql", "key": "uri"}},
        "migrate": True,
        "storage": {"replicas": 2, "storeSecret": {"name": "bucket"}, "env": [{"name": "AWS_REGION", "value": "eu"}]},
        "clusterKey": {"existingSecret": "mine"},
    },
    "everything": {
        "publicUrl": "https://photos.example.org",
        "ingress": {"enabled": True, "className": "nginx", "host": "photos.example.org", "tlsSecret": "tls"},
        "worker": {"autoscaling": {"enabled": True}, "args": ["--time-limit=2m"]},
        "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
        "monitoring": {"podMonitor": True, "labels": {"release": "prometheus"}},
        "imagePullSecrets": [{"name": "registry"}],
        "traces": {
            "enabled": True,
            "endpoint": "http://collector.monitoring:4318",
            "to": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        },
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "photos", "operator": "Exists"}],
    },
    "bare": {"networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False}},
}

OWN = {
    "storage": {"persistence": {"existingClaim": "photos"}},
    "db": {
        "storeSecret": {"name": "postgresql"},
        "env": [{"name": "PGPASSFILE", "value": "/run/secrets/postgresql/pgpass"}],
        "volumes": [{"name": "postgresql", "secret": {"secretName": "postgresql-files"}}],
        "volumeMounts": [{"name": "postgresql", "mountPath": "/run/secrets/postgresql", "readOnly": True}],
    },
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/photos"}},
}


def helm(*words, status=0):
    done = subprocess.run(["helm", *map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout if status == 0 else done.stderr


@pytest.fixture(scope="module", params=CASES)
def documents(request, tmp_path_factory):
    """Return the documents that the chart makes of some values, by kind and name."""
    file = tmp_path_factory.mktemp("values") / "values.yaml"
    file.write_text(yaml.safe_dump(CASES[request.param]))
    helm("lint", "--strict", CHART, "--values", file)
    text = helm("template", "photos", CHART, "--namespace", "lab", "--values", file)
    found = [one for one in yaml.safe_load_all(text) if one]
    named = {(one["kind"], one["metadata"]["name"]): one for one in found}
    assert len(named) == len(found), "two documents have one name"
    return request.param, named


@pytest.mark.parametrize("release", ["photos", "a" * 53, "safelight-of-the-second-team-in-the-northern-office-b"])
def test_names_leave_room_for_what_kubernetes_adds(release):
    """Of a StatefulSet's name Kubernetes makes a label with a hash, `-` and ten characters; a label has 63."""
    text = helm("template", release, CHART)
    sets = [one for one in yaml.safe_load_all(text) if one and one["kind"] == "StatefulSet"]
    assert len(sets) == 3
    assert max(len(one["metadata"]["name"]) for one in sets) <= 52


def test_two_releases_with_long_names_have_nothing_in_common():
    one, other = (
        {(found["kind"], found["metadata"]["name"]) for found in yaml.safe_load_all(text) if found}
        for text in (helm("template", f"photos-of-the-people-in-the-northern-office-{end}", CHART) for end in "ab")
    )
    assert not one & other


def kinds(documents, *wanted):
    return [one for (kind, _), one in documents.items() if kind in wanted]


def pods(documents):
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]
        for one in kinds(documents, "StatefulSet", "Deployment")
    }


def chosen(selector, documents):
    """Return the components whose pods have the labels of a selector."""
    return {name for name, pod in pods(documents).items() if selector.items() <= pod["metadata"]["labels"].items()}


@pytest.mark.slow
def test_kubernetes_accepts_every_document(documents):
    _, documents = documents
    for version in KUBERNETES:
        for document in documents.values():
            if document["kind"] not in ("ScaledObject", "PodMonitor"):  # there is no schema of other projects' records
                kubernetes_validate.validate(document, version, strict=True)


def test_each_service_gets_settings_that_it_has_and_probes_that_it_answers(documents):
    _, documents = documents
    found = pods(documents)
    assert found.keys() == PORTS.keys()
    for name, pod in found.items():
        (container,) = pod["spec"]["containers"]
        assert container["command"] == ["python3", "-m", f"safelight.{name}"]
        kind = importlib.import_module(f"safelight.{name}.__main__").Config
        config = settings.load(kind, container["args"], section=name, program=name, environ={})
        assert (config.port, config.host) == (PORTS[name], "0.0.0.0")
        assert container["ports"][0]["containerPort"] == PORTS[name]
        # A restart does not bring a backend back. A key-value store without etcd must stay reachable by its name.
        paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
        ready = "/healthz" if name == "keyvaluestore" else "/readyz"
        assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": ready}
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert config.data in mounts
        assert Path(config.cluster_key_file).parent.as_posix() in mounts


def test_traces_go_to_the_endpoint_in_the_values(documents):
    case, documents = documents
    for name, pod in pods(documents).items():
        variables = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
        kind = importlib.import_module(f"safelight.{name}.__main__").Config
        given = {key: value for key, value in variables.items() if value is not None}
        config = settings.load(kind, [], section=name, program=name, environ=given)
        assert config.traces is (case == "everything")
        endpoint = "http://collector.monitoring:4318" if config.traces else None
        assert variables.get("OTEL_EXPORTER_OTLP_ENDPOINT") == endpoint
    for policy in kinds(documents, "NetworkPolicy"):
        ports = [port["port"] for rule in policy["spec"].get("egress", ()) for port in rule["ports"]]
        reaches = case == "everything" and policy["metadata"]["name"].endswith("-worker")
        assert (4318 in ports) is reaches


def test_pods_are_hardened(documents):
    _, documents = documents
    for pod in pods(documents).values():
        spec, (container,) = pod["spec"], pod["spec"]["containers"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not spec["automountServiceAccountToken"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        (key,) = [volume for volume in spec["volumes"] if volume["name"] == "cluster-key"]
        assert key["secret"]["defaultMode"] == 0o440


def test_selectors_and_names_refer_to_existing_objects(documents):
    case, documents = documents
    for service in kinds(documents, "Service"):
        (component,) = chosen(service["spec"]["selector"], documents)
        assert service["spec"]["ports"][0]["port"] == PORTS[component]
    for one in kinds(documents, "StatefulSet"):
        assert ("Service", one["spec"]["serviceName"]) in documents
    for kind, key in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        covered = [chosen(one["spec"][key]["matchLabels"], documents) for one in kinds(documents, kind)]
        assert sorted(map(list, covered)) == ([] if case == "bare" else [[name] for name in sorted(PORTS)])
    for ingress in kinds(documents, "Ingress"):
        backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"]
        assert ("Service", backend) in documents
    secrets = {pod["spec"]["volumes"][-1]["secret"]["secretName"] for pod in pods(documents).values()}
    assert secrets == ({"mine"} if case == "distributed" else {"photos-safelight-cluster-key"})
    assert case == "distributed" or ("Secret", *secrets) in documents
    for pod in pods(documents).values():
        for argument in pod["spec"]["containers"][0]["args"]:
            if argument.endswith("-keyvaluestore:8000"):
                assert ("Service", argument.removesuffix(":8000")) in documents


def test_services_that_keep_data_have_a_volume_or_a_distributed_store(documents):
    case, documents = documents
    for one in kinds(documents, "StatefulSet"):
        name = one["metadata"]["labels"]["app.kubernetes.io/component"]
        environment = {item["name"]: item for item in one["spec"]["template"]["spec"]["containers"][0]["env"]}
        if case == "distributed":
            assert "volumeClaimTemplates" not in one["spec"]
            reference = environment[f"SAFELIGHT_{name.upper()}_STORE"]["valueFrom"]["secretKeyRef"]
            assert reference["name"] in {"etcd", "postgresql", "bucket"}
        else:
            assert one["spec"]["replicas"] == 1
            assert one["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "data"


def test_a_database_is_migrated_before_an_upgrade_as_db_would_open_it(documents):
    case, documents = documents
    jobs = kinds(documents, "Job")
    assert bool(jobs) == (case == "distributed")
    for job in jobs:
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
        pod, db = job["spec"]["template"]["spec"], pods(documents)["db"]["spec"]
        (container,), (other,) = pod["containers"], db["containers"]
        assert pod["securityContext"] == db["securityContext"]
        for same in ("image", "command", "securityContext", "env"):
            assert container[same] == other[same]
        kind = importlib.import_module("safelight.db.__main__").Config
        given = {"SAFELIGHT_DB_STORE": "postgresql://db/safelight"}
        config = settings.load(kind, container["args"], section="db", program="db", environ=given)
        assert (config.migrate, config.store) == (True, *given.values())


def test_keda_scales_the_workers_by_waiting_photos(documents):
    case, documents = documents
    scaled = kinds(documents, "ScaledObject")
    assert bool(scaled) == (case == "everything")
    for one in scaled:
        target = documents["Deployment", one["spec"]["scaleTargetRef"]["name"]]
        assert "replicas" not in target["spec"], "helm would overwrite the number that KEDA has chosen"
        metadata = one["spec"]["triggers"][0]["metadata"]
        assert "safelight_available_tasks{" in metadata["query"]
        assert float(metadata["threshold"]) > 0


def test_a_worker_may_be_asked_for_by_a_fraction_of_a_photo():
    values = "worker.autoscaling.enabled=true,worker.autoscaling.waitingPerWorker=0.5"
    documents = yaml.safe_load_all(helm("template", "photos", CHART, "--set", values))
    (scaled,) = (one for one in documents if one and one["kind"] == "ScaledObject")
    assert scaled["spec"]["triggers"][0]["metadata"]["threshold"] == "0.5"


def test_prometheus_scrapes_each_pod_with_the_key_under_the_names_that_queries_use(documents):
    case, documents = documents
    monitors = kinds(documents, "PodMonitor")
    assert bool(monitors) == (case == "everything")
    for pod in pods(documents).values():
        assert "annotations" not in pod["metadata"], "scrapes by annotations have no key"
    for one in monitors:
        assert chosen(one["spec"]["selector"]["matchLabels"], documents) == set(PORTS)
        (endpoint,) = one["spec"]["podMetricsEndpoints"]
        credentials = endpoint["authorization"]["credentials"]
        assert documents["Secret", credentials["name"]]["data"][credentials["key"]]
        (relabeling,) = endpoint["relabelings"]
        assert relabeling["sourceLabels"] == ["__meta_kubernetes_pod_label_app_kubernetes_io_component"]
        jobs = {relabeling["replacement"].replace("$1", name) for name in PORTS}
        (scaled,) = kinds(documents, "ScaledObject")
        (job,) = re.findall('job="([^"]+)"', scaled["spec"]["triggers"][0]["metadata"]["query"])
        assert {job, *re.findall(r'job="([^"]+)"', ALERTS.read_text())} <= jobs
        assert one["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ("db.replicas=2", "db.storeSecret.name"),
        ("migrate=true", "db.storeSecret.name"),
        ("storage.replicas=3", "storage.storeSecret.name"),
    ],
)
def test_what_an_embedded_store_cannot_do_is_refused(values, sentence):
    assert sentence in helm("template", "photos", CHART, "--set", values, status=1)


def test_an_ingress_needs_a_host_name():
    assert "ingress.host" in helm("template", "photos", CHART, "--set", "ingress.enabled=true", status=1)


def configured(component, *values):
    """Return the settings that the chart gives to a service."""
    text = helm(
        "template", "photos", CHART, "--namespace", "lab", *(word for each in values for word in ("--set", each))
    )
    found = {
        one["metadata"]["name"]: one for one in yaml.safe_load_all(text) if one and "template" in one.get("spec", {})
    }
    argv = found[f"photos-safelight-{component}"]["spec"]["template"]["spec"]["containers"][0]["args"]
    kind = importlib.import_module(f"safelight.{component}.__main__").Config
    return settings.load(kind, argv, section=component, program=component, environ={})


@pytest.mark.parametrize("component", ["keyvaluestore", "master"])
def test_services_answer_to_every_name_that_kubernetes_gives_them(component):
    name = f"photos-safelight-{component}"
    names = {name, f"{name}.lab", f"{name}.lab.svc", f"{name}.lab.svc.cluster.local"}
    assert set(configured(component).allowed_hosts.split(",")) == names


def test_the_master_answers_to_the_names_in_the_values():
    usual = set(configured("master").allowed_hosts.split(","))
    names = "ingress.enabled=true,ingress.host=photos.example.org", "master.allowedHosts={a.example.org,b.example.org}"
    found = configured("master", *names).allowed_hosts.split(",")
    assert set(found) == usual | {"photos.example.org", "a.example.org", "b.example.org"}


@pytest.mark.parametrize(("grace", "drain"), [(90, 75.0), (600, 585.0), (10, 0.0)])
def test_a_worker_may_finish_its_photos_until_shortly_before_it_is_killed(grace, drain):
    assert configured("worker", f"worker.terminationGracePeriodSeconds={grace}").drain == drain


def test_own_settings_count_more_than_those_of_the_chart():
    assert configured("worker", "worker.args={--drain=5s}").drain == 5.0


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ("worker.replica=5", "replica"),
        ("worker.autoscaling.enabled=yes please", "/worker/autoscaling/enabled"),
        ("db.args=--max-waiting=5", "/db/args"),
        ("storage.replicas=two", "/storage/replicas"),
        ("storage.persistence.size=100 GB", "/storage/persistence/size"),
        ("image.tag=20261127", "/image/tag"),
        ("publicUrl=photos.example.org", "/publicUrl"),
        ("ingress.host=https://photos.example.org", "/ingress/host"),
        ("master.allowedHosts={https://photos.example.org}", "/master/allowedHosts"),
        ("db.env[0].name=SAFELIGHT_DB_MAX_ERRORS,db.env[0].value=3", "/db/env/0/value"),
        ("worker.autoscaling.waitingPerWorker=0.0", "/worker/autoscaling/waitingPerWorker"),
    ],
)
def test_values_that_the_chart_would_not_understand_are_refused(values, named):
    for words in (("lint",), ("template", "photos")):
        done = subprocess.run(
            ["helm", *words, CHART, "--set", values], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1
        assert named in done.stdout + done.stderr


def test_names_of_secrets_stay_text():
    values = "db.storeSecret.name=12345,clusterKey.existingSecret=67890"
    text = helm("template", "photos", CHART, "--set-string", values)
    for one in yaml.safe_load_all(text):
        if one and one["kind"] == "StatefulSet" and one["metadata"]["name"].endswith("-db"):
            spec = one["spec"]["template"]["spec"]
            assert spec["volumes"][-1]["secret"]["secretName"] == "67890"
            (store,) = (each for each in spec["containers"][0]["env"] if each["name"] == "SAFELIGHT_DB_STORE")
            assert store["valueFrom"]["secretKeyRef"]["name"] == "12345"


def test_existing_claims_volumes_and_roles_are_used(tmp_path):
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(OWN))
    found = yaml.safe_load_all(helm("template", "photos", CHART, "--values", file))
    named = {(one["kind"], one["metadata"]["name"]): one for one in found if one}
    storage = named["StatefulSet", "photos-safelight-storage"]["spec"]
    assert "volumeClaimTemplates" not in storage
    volumes = {volume["name"]: volume for volume in storage["template"]["spec"]["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "photos"}
    db = named["StatefulSet", "photos-safelight-db"]["spec"]["template"]["spec"]
    assert {"name": "postgresql", "secret": {"secretName": "postgresql-files"}} in db["volumes"]
    assert "/run/secrets/postgresql" in [mount["mountPath"] for mount in db["containers"][0]["volumeMounts"]]
    account = named["ServiceAccount", "photos-safelight"]["metadata"]
    assert account["annotations"] == OWN["serviceAccount"]["annotations"]


def test_every_value_is_in_the_guide():
    guide = (CHART.parents[2] / "docs/guide/deploying.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    names = {*values, *(name for part in values.values() if isinstance(part, dict) for name in part)} - set(PORTS)
    assert sorted(name for name in names if name not in guide) == []
