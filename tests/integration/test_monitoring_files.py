"""Prometheus itself takes the files of manifests/monitoring."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import yaml

MONITORING = Path(__file__).resolve().parents[2] / "manifests" / "monitoring"


def promtool(*arguments: str | Path) -> str:
    """What promtool says; it must be content."""
    binary = shutil.which("promtool")
    assert binary is not None, "run `make packages`"
    done = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_alerts() -> None:
    assert "11 rules found" in promtool("check", "rules", MONITORING / "alerts.yml")


def test_the_job(tmp_path: Path) -> None:
    """Debian's Prometheus is built without discovery by Kubernetes: some other targets stand for the Pods."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    del job["kubernetes_sd_configs"]
    job["static_configs"] = [{"targets": ["127.0.0.1:8081"]}]
    (tmp_path / "alerts.yml").write_text((MONITORING / "alerts.yml").read_text())
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    assert "1 rule files found" in promtool("check", "config", tmp_path / "prometheus.yml")
