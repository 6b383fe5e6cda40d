"""The manifests of examples/cluster are what their tools would read, as far as can be checked without them."""

import subprocess
from pathlib import Path

import pytest
import yaml

from gsi.config import load_config

FOLDER = Path(__file__).parent.parent / "examples" / "cluster"


def test_the_slurm_script_parses_and_its_engine_is_a_valid_section(tmp_path):
    script = FOLDER / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    line = next(line for line in script.read_text().splitlines() if '"engine=' in line).strip().strip('"')
    line = line.replace("$((SLURM_JOB_NUM_NODES * ${SLURM_GPUS_ON_NODE:-8}))", "32").replace("$address", "10.0.0.1:6379")
    base = {"model": "m", "output_dir": "o", "tasks": [{"name": "gsm8k", "path": "x"}]}
    assert load_config(base, [line, "mirror=/shared/x"]).engine.replicas == 32


def test_the_kubernetes_manifest_asks_for_what_it_uses():
    claim, job = yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text())
    cluster = job["spec"]["rayClusterSpec"]
    assert job["kind"] == "RayJob"
    assert cluster["rayVersion"] == "2.60.0"
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for pod in pods:
        spec = pod["template"]["spec"]
        volumes = {v["name"] for v in spec.get("volumes", ())}
        assert {m["name"] for c in spec["containers"] for m in c.get("volumeMounts", ())} <= volumes
        for c in spec["containers"]:
            assert c["resources"]["requests"] == c["resources"]["limits"]
    assert claim["metadata"]["name"] in str(cluster["headGroupSpec"])


def test_the_launchers_file_fits_rays_own_schema():
    config = yaml.safe_load((FOLDER / "aws.yaml").read_text())
    ray = pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")
    jsonschema = pytest.importorskip("jsonschema")
    import json

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
