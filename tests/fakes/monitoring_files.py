"""The files of deploy/monitoring: the queries of the dashboard, and the alert rules."""

import json
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"


def dashboard() -> dict[str, Any]:
    """Grafana's model of it."""
    model: dict[str, Any] = json.loads((FOLDER / "grafana" / "winnow.json").read_text(encoding="utf-8"))
    return model


def queries() -> dict[str, str]:
    """Each query of the dashboard, by its panel and letter."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    }


def alerts() -> dict[str, dict[str, Any]]:
    """The rules by name."""
    read = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
    return {rule["alert"]: rule for group in read["groups"] for rule in group["rules"]}


def scrape_config() -> dict[str, Any]:
    """What Prometheus is started with."""
    read: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    return read
