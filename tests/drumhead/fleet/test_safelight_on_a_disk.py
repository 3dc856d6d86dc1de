"""Test safelight's image as a disk that is configured with deploy/kubevirt as by KubeVirt: the service must answer."""

import subprocess
import urllib.request
from pathlib import Path

import pytest
import yaml

from support.guests.exported import boot, config_disk, press_power_button, says
from support.programs.ports import free_port

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]


def test_the_key_value_store_of_the_manifests_runs_and_stops(drumhead, tmp_path):
    drumhead("package", "compose", "safelight", "-C", ROOT)
    drumhead("export", "safelight", tmp_path / "disk.qcow2")
    told, machine, _ = yaml.safe_load_all((ROOT / "deploy/kubevirt/keyvaluestore.yaml").read_text())
    memory = machine["spec"]["template"]["spec"]["domain"]["memory"]["guest"].removesuffix("i")
    config = config_disk(tmp_path / "config", told["data"])
    secrets = config_disk(tmp_path / "secrets", {"cluster-key": "c" * 64})
    drumhead("volume", "create", "on-a-disk", "--size", "64M")
    disks = {"config": config, "secrets": secrets, "data": drumhead.home.volumes / "on-a-disk.raw"}
    port = free_port()
    nic = ("-m", memory, "-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{port}-:8000")
    with boot(tmp_path / "disk.qcow2", disks, tmp_path, *nic) as running:
        says(running, b"server is listening on 8000")
        request = urllib.request.Request(f"http://127.0.0.1:{port}/")
        request.add_header("Authorization", f"Bearer {'c' * 64}")
        with urllib.request.urlopen(request, timeout=180) as answer:
            assert answer.read() == b"", "nothing is registered yet"
        press_power_button(tmp_path)
        assert running.wait(180) == 0
    listed = ["debugfs", "-R", "ls /", disks["data"]]
    assert b"keyvaluestore.sqlite" in subprocess.run(listed, check=True, capture_output=True).stdout
    drumhead("volume", "delete", "on-a-disk")
