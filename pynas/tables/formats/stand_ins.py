"""Names that pickles of published tables may refer to, besides numbers and containers: weights, dropped."""

from __future__ import annotations

from pynas._io.pickles.stand_ins import ALLOWED, Name, StandIn, nothing

_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
ALLOWED_IN_TORCH: dict[tuple[str, str], StandIn] = ALLOWED | {
    **{("torch", f"{kind}Storage"): Name for kind in _STORAGES},
    **{("torch._utils", name): nothing for name in ("_rebuild_tensor_v2", "_rebuild_parameter")},
    ("torch.storage", "_load_from_bytes"): nothing,  # a tensor in a pickle that torch.save did not write
}
