"""Former places of pynas' own modules.

Stores name the classes and functions that a run consists of by module. Moving one makes no other run of it,
so a name that a store can hold keeps its first form.
"""

from __future__ import annotations

from typing import Final

_FORMER: Final = {
    "pynas._identity.described": "pynas._described",
    "pynas._identity.description": "pynas._identity",
    "pynas._identity.naming": "pynas._naming",
    "pynas._identity.plain": "pynas._plain",
    "pynas._identity.source": "pynas._source",
    "pynas._io.atomic": "pynas._atomic",
    "pynas._io.files": "pynas._files",
    "pynas._io.npz": "pynas._npz",
    "pynas._io.pickles": "pynas._unpickle",
    "pynas._io.provenance": "pynas.provenance",
    "pynas._io.strict_json": "pynas._json",
    "pynas._io.weights": "pynas._weights",
    "pynas._io.zip_archive": "pynas._zip",
    "pynas._user_values": "pynas._evaluation",
    "pynas.embedding.cache": "pynas.embedding._cache",
    "pynas.embedding.policy": "pynas.embedding._policy",
    "pynas.hardware._timings": "pynas.hardware.latency_table",
    "pynas.hardware.build": "pynas.hardware._build",
    "pynas.hardware.costs": "pynas._costs",
    "pynas.hardware.model": "pynas.hardware._model",
    "pynas.hardware.operator_shapes": "pynas.hardware._shapes",
    "pynas.hardware.stopwatch": "pynas.hardware._stopwatch",
    "pynas.nn.nasbench201_cell": "pynas.spaces._nasbench201_network",
    "pynas.ops.candidates": "pynas.ops._candidates",
    "pynas.ops.tensors": "pynas.ops._tensors",
    "pynas.ranking.correlation": "pynas._correlation",
    "pynas.ranking.ensembles": "pynas._ensembles",
    "pynas.ranking.fronts": "pynas.fronts",
    "pynas.ranking.pareto": "pynas._multiobjective",
    "pynas.ranking.rank": "pynas.ranking",
    "pynas.run.evaluation": "pynas._evaluation",
    "pynas.run.identity": "pynas._run_identity",
    "pynas.run.loop": "pynas.run",
    "pynas.run.objectives": "pynas._objectives",
    "pynas.run.recorder": "pynas._recorder",
    "pynas.run.workers": "pynas._workers",
    "pynas.spaces.base": "pynas.spaces._base",
    "pynas.spaces.darts_cnn.counts": "pynas.spaces._darts_cnn_counts",
    "pynas.spaces.darts_cnn.network": "pynas.spaces._darts_cnn_network",
    "pynas.spaces.darts_cnn.space": "pynas.spaces.darts_cnn",
    "pynas.spaces.darts_rnn.network": "pynas.spaces._darts_rnn_network",
    "pynas.spaces.darts_rnn.space": "pynas.spaces.darts_rnn",
    "pynas.spaces.description": "pynas.spaces._describe",
    "pynas.spaces.epnas.layers": "pynas.spaces._epnas_layers",
    "pynas.spaces.epnas.network": "pynas.spaces._epnas_network",
    "pynas.spaces.epnas.space": "pynas.spaces.epnas",
    "pynas.spaces.identity": "pynas.spaces._identity",
    "pynas.spaces.mbv2_zico.blocks": "pynas.spaces._mbv2_zico_parts",
    "pynas.spaces.mbv2_zico.network": "pynas.spaces._mbv2_zico_network",
    "pynas.spaces.mbv2_zico.space": "pynas.spaces.mbv2_zico",
    "pynas.spaces.mbv2_zico.text": "pynas.spaces._mbv2_zico_text",
    "pynas.spaces.nasbench101.cell": "pynas.spaces._nasbench101_cell",
    "pynas.spaces.nasbench101.network": "pynas.spaces._nasbench101_network",
    "pynas.spaces.nasbench101.space": "pynas.spaces.nasbench101",
    "pynas.spaces.nasbench101.text": "pynas.spaces._nasbench101_text",
    "pynas.spaces.nasbench201.network": "pynas.spaces._nasbench201_network",
    "pynas.spaces.nasbench201.space": "pynas.spaces.nasbench201",
    "pynas.spaces.nats_size.network": "pynas.spaces._nats_size_network",
    "pynas.spaces.nats_size.space": "pynas.spaces.nats_size",
    "pynas.spaces.proxylessnas.network": "pynas.spaces._proxylessnas_network",
    "pynas.spaces.proxylessnas.space": "pynas.spaces.proxylessnas",
    "pynas.spaces.spos_shufflenet.network": "pynas.spaces._spos_shufflenet_network",
    "pynas.spaces.spos_shufflenet.space": "pynas.spaces.spos_shufflenet",
    "pynas.spaces.transnas.macro": "pynas.spaces.transnas_macro",
    "pynas.spaces.transnas.micro": "pynas.spaces.transnas_micro",
    "pynas.spaces.transnas.network": "pynas.spaces._transnas_network",
    "pynas.spaces.transnas.space": "pynas.spaces._transnas",
    "pynas.stats._call_recorder": "pynas.stats._probe",
    "pynas.stats._second_order": "pynas.stats._twice",
    "pynas.stats.data": "pynas.stats._loss",
    "pynas.stats.forwards": "pynas.stats._fast",
    "pynas.stats.nasbench201.nodes": "pynas.spaces._nasbench201_nodes",
    "pynas.stats.nasbench201.rule": "pynas.spaces._nasbench201_probe",
    "pynas.stats.nasbench201.second_order": "pynas.spaces._nasbench201_twice",
    "pynas.stats.per_sample": "pynas.stats._rows",
    "pynas.stats.state": "pynas.stats._state",
    "pynas.supernet.language_alone": "pynas.nn.language_alone",
    "pynas.supernet.language_training": "pynas.nn.language_training",
    "pynas.supernet.seeds": "pynas.supernet._random",
    "pynas.supernet.trainer_parts": "pynas.supernet._trainer_parts",
    "pynas.supernet.training_state": "pynas.supernet._state",
    "pynas.tables": "pynas.benchmarks",
    "pynas.tables.conversion": "pynas.benchmarks._convert",
    "pynas.tables.formats": "pynas.benchmarks._formats",
}


def first_place(module: str) -> str:
    """Where ``module`` was when names of it were first stored."""
    if not module.startswith("pynas."):
        return module
    inside = module
    while inside not in _FORMER:
        inside, _, last = inside.rpartition(".")
        if not last:
            return module
    return _FORMER[inside] + module[len(inside) :]
