"""Finds modules by the names that they had before they moved, so that scripts and
notebooks of users keep working.

The old names are to go with the release after next; each use of one is a
DeprecationWarning that tells the new name.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

FOLDERS = {
    "launcher.observing": "launcher.status",
    "launcher.tracking": "launcher.mlflow",
    "launcher.verifying": "launcher.verification",
    "zsg_core.readers": "zsg_core.data.readers",
    "zsg_core.scores": "zsg_core.metrics",
}
MODULES = {
    "jobs.attempt": "jobs.contract.attempt",
    "jobs.caches": "jobs.runtime.caches",
    "jobs.canary": "jobs.runtime.canary",
    "jobs.cancellation": "jobs.contract.cancellation",
    "jobs.causes": "jobs.contract.causes",
    "jobs.evaluating.answers": "jobs.contract.answers",
    "jobs.evaluating.cell": "jobs.evaluating.sandbox_worker",
    "jobs.evaluating.evaluations": "jobs.contract.evaluations",
    "jobs.evaluating.generate": "jobs.model.generate",
    "jobs.evaluating.held_weights": "jobs.evaluating.weight_swapper",
    "jobs.evaluating.kept_states": "jobs.evaluating.hidden_state_store",
    "jobs.evaluating.leases": "jobs.contract.leases",
    "jobs.evaluating.scored_elsewhere": "jobs.evaluating.external_score_record",
    "jobs.evaluating.served": "jobs.evaluating.eval_target",
    "jobs.folder": "jobs.contract.folder",
    "jobs.going_on": "jobs.contract.continuation",
    "jobs.heartbeat": "jobs.contract.heartbeat",
    "jobs.journal": "jobs.contract.journal",
    "jobs.log_marks": "jobs.runtime.log_marks",
    "jobs.needs": "jobs.runtime.prerequisites",
    "jobs.own_code": "jobs.runtime.code_guard",
    "jobs.ownership": "jobs.files.ownership",
    "jobs.preparing.base_model": "jobs.model.base_model",
    "jobs.preparing.content": "jobs.model.content",
    "jobs.preparing.known_vectors": "jobs.preparing.embedding_reuse",
    "jobs.preparing.model_file_names": "jobs.files.model_file_names",
    "jobs.preparing.ordinary_files": "jobs.files.ordinary_files",
    "jobs.preparing.pool": "jobs.preparing.source_dataset",
    "jobs.preparing.text_tokens": "jobs.model.text_tokens",
    "jobs.ranks": "jobs.runtime.ranks",
    "jobs.removal": "jobs.contract.removal",
    "jobs.runtime.going_on": "jobs.contract.continuation",
    "jobs.runtime.needs": "jobs.runtime.prerequisites",
    "jobs.runtime.own_code": "jobs.runtime.code_guard",
    "jobs.setup": "jobs.runtime.setup",
    "jobs.signals": "jobs.runtime.signals",
    "jobs.slurm_environment": "jobs.runtime.slurm_environment",
    "jobs.runtime.telling": "jobs.runtime.job_log",
    "jobs.telling": "jobs.runtime.job_log",
    "jobs.tracebacks": "jobs.runtime.tracebacks",
    "jobs.tracking.deliver": "jobs.tracking.mlflow_sync",
    "jobs.tracking.run_facts": "jobs.tracking.mlflow_metadata",
    "jobs.tracking.patience": "zsg_core.retry",
    "jobs.training.answer_loss": "jobs.model.answer_loss",
    "jobs.training.deepspeed_config": "jobs.contract.deepspeed_config",
    "jobs.training.first_losses": "jobs.training.base_loss_cache",
    "jobs.training.item_losses": "jobs.contract.item_losses",
    "jobs.training.layers": "jobs.model.layers",
    "jobs.training.packed_attention": "jobs.model.packed_attention",
    "jobs.training.stages": "jobs.contract.stages",
    "jobs.training.tuning": "jobs.model.tuning",
    "jobs.training.updates": "jobs.training.overflow",
    "jobs.training.weights": "jobs.model.weights",
    "jobs.training.written_weights": "jobs.training.safetensors_digests",
    "launcher.clusters.arrays": "launcher.clusters.submitit_backend",
    "launcher.clusters.check": "launcher.doctor.diagnosis",
    "launcher.clusters.cluster_checks": "launcher.doctor.cluster_checks",
    "launcher.clusters.doctor": "launcher.doctor.doctor",
    "launcher.clusters.failed_nodes": "launcher.lifecycle.failed_nodes",
    "launcher.commands.asking": "launcher.views.asking",
    "launcher.commands.columns": "launcher.views.columns",
    "launcher.commands.show": "launcher.views.show",
    "launcher.disk": "launcher.workspace.disk",
    "launcher.evaluation.anew": "launcher.evaluation.metric_versions",
    "launcher.evaluation.evaluating": "launcher.evaluation.evaluation_plan",
    "launcher.doctor.check": "launcher.doctor.diagnosis",
    "launcher.extras": "launcher.workspace.extras",
    "launcher.grids.grid_record": "launcher.workspace.recorded_grids",
    "launcher.grids.proofs": "launcher.doctor.proofs",
    "launcher.grids.yaml_file": "launcher.workspace.yaml_file",
    "launcher.mlflow.fill": "launcher.mlflow.mlflow_commands",
    "launcher.observing.job_state": "launcher.workspace.job_state",
    "launcher.observing.reading": "launcher.status.queries",
    "launcher.observing.settled": "launcher.status.terminal_cache",
    "launcher.observing.signs": "launcher.status.liveness",
    "launcher.planning.fit": "launcher.planning.memory_fit",
    "launcher.reporting.arrange_picture": "launcher.reporting.figures.order_charts",
    "launcher.reporting.arrangements": "launcher.reporting.data.arrangements",
    "launcher.reporting.comparison": "launcher.reporting.data.run_groups",
    "launcher.reporting.csv_cells": "launcher.reporting.data.csv_cells",
    "launcher.reporting.figure": "launcher.reporting.figures.line_charts",
    "launcher.reporting.map_part": "launcher.reporting.html.map_section",
    "launcher.reporting.maps": "launcher.reporting.data.state_maps",
    "launcher.reporting.page": "launcher.reporting.html.page",
    "launcher.reporting.panels": "launcher.reporting.figures.curve_panels",
    "launcher.reporting.parts": "launcher.reporting.html.sections",
    "launcher.reporting.recorded": "jobs.deciding.recorded_runs",
    "launcher.reporting.scatter": "launcher.reporting.figures.map_charts",
    "launcher.reporting.verdict_part": "launcher.reporting.html.verdict_section",
    "launcher.reporting.verdicts": "launcher.reporting.data.verdicts",
    "launcher.shipped": "launcher.workspace.shipped",
    "launcher.status.reading": "launcher.status.queries",
    "launcher.status.settled": "launcher.status.terminal_cache",
    "launcher.status.signs": "launcher.status.liveness",
    "launcher.submission.code_snapshot": "launcher.workspace.code_snapshot",
    "launcher.submission.handover": "launcher.submission.sbatch",
    "launcher.submission.ledger": "launcher.workspace.ledger",
    "launcher.submission.linked_folders": "launcher.workspace.linked_folders",
    "launcher.submission.session": "launcher.submission.workflow",
    "launcher.verification.check": "launcher.verification.finding",
    "launcher.verification.comparison": "launcher.verification.replay_comparison",
    "launcher.verification.records": "launcher.verification.record_checks",
    "launcher.verification.whole_journal": "launcher.verification.journal_check",
    "launcher.workspace.grid_record": "launcher.workspace.recorded_grids",
    "launcher.workspaces": "launcher.workspace.workspaces",
    "zsg_core.curves": "zsg_core.stats.curves",
    "zsg_core.data_sets": "zsg_core.data.data_sets",
    "zsg_core.effects": "zsg_core.stats.effects",
    "zsg_core.estimate": "zsg_core.training.estimate",
    "zsg_core.examples": "zsg_core.data.examples",
    "zsg_core.instructions": "zsg_core.data.instructions",
    "zsg_core.llama": "zsg_core.training.decoder",
    "zsg_core.metrics.elsewhere": "zsg_core.metrics.external_scores",
    "zsg_core.mixing": "zsg_core.data.mixing",
    "zsg_core.output_space": "zsg_core.data.output_space",
    "zsg_core.prefixes": "zsg_core.data.prefixes",
    "zsg_core.prompts": "zsg_core.data.prompts",
    "zsg_core.schedule": "zsg_core.training.schedule",
    "zsg_core.scores.elsewhere": "zsg_core.metrics.external_scores",
    "zsg_core.settings.schema_errors": "zsg_core.schema_errors",
    "zsg_core.snapshots": "zsg_core.training.snapshots",
    "zsg_core.splits": "zsg_core.data.splits",
    "zsg_core.training.llama": "zsg_core.training.decoder",
    "zsg_core.tuning": "zsg_core.training.tuning",
    "zsg_core.verdict": "zsg_core.stats.verdict",
}


def new_name(name: str) -> str | None:
    """What a module is called now; None if it has not moved."""
    if name in MODULES:
        return MODULES[name]
    for old, new in FOLDERS.items():
        if name == old or name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    return None


class MovedModules(MetaPathFinder):
    """Answers for old names with the one module that there is, never with a second copy of it."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002  importlib's protocol
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """The module of an old name; None for every other one."""
        name = new_name(fullname)
        if name is None:
            return None
        warnings.warn(f"{fullname} is now {name}", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(name)
        return ModuleSpec(
            fullname,
            _Same(module),
            origin=getattr(module, "__file__", None),
            is_package=hasattr(module, "__path__"),
        )


class _Same(Loader):
    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:  # noqa: ARG002
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # importing has put the old name's there

    def get_code(self, fullname: str) -> CodeType | None:  # noqa: ARG002
        """What `python -m OLD_NAME` runs, as a job does that began before the move."""
        loader = self._spec.loader if self._spec else None
        if not isinstance(loader, InspectLoader):
            return None
        return loader.get_code(self._module.__name__)


def install() -> None:
    """Has this process find modules by their old names. It comes first, else folders
    would be searched for copies."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())
