"""Where the grids are that zsg ships."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "templates").rglob("*.yaml"))
GRIDS = [path for path in TEMPLATES if path.parent.name != "cluster_profiles"]
STUDIES = ROOT / "templates/grids"
