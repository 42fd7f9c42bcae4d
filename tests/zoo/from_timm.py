# ruff: noqa: E501 - one network a line
"""Networks of timm at their smallest."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from tests.zoo import torchvision_schemas
from tests.zoo.networks import CLASSES, Network, cross_entropy, images, labels


def model(name: str, options: Mapping[str, Any]) -> nn.Module:
    """``timm.create_model``, untrained; dropout and stochastic depth are off by default."""
    torchvision_schemas.define()
    import timm

    module, _, kind = name.partition(":")
    if not kind:
        return timm.create_model(name, num_classes=CLASSES, **options)
    source = importlib.import_module(f"timm.models.{module}")
    kind, _, part = kind.partition("+")
    chosen = dict(options)
    if part:
        chosen["block_layer" if module == "mlp_mixer" else "token_mixers"] = getattr(source, part)
    if part == "ResBlock":
        chosen |= {"norm_layer": source.Affine, "mlp_ratio": 4.0}
    if part == "SpatialGatingBlock":
        chosen |= {"mlp_layer": source.GatedMlp, "mlp_ratio": 2.0}
    if "norm_layers" in chosen:
        chosen["norm_layers"] = getattr(source, chosen["norm_layers"])
    return getattr(source, kind)(num_classes=CLASSES, **chosen)


VIT: dict[str, Any] = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 2, "num_heads": 2}
RESNET: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), "stem_width": 8}
SWIN: dict[str, Any] = {
    "img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": (2, 1), "num_heads": (2, 2),
}  # fmt: skip

MIXER: dict[str, Any] = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "num_blocks": 2}
# Name, family, size of images, options.
NETWORKS: list[tuple[str, str, int, dict[str, Any]]] = [
    ("test_vit", "vit", 160, {}),
    ("vit_tiny_patch16_224", "vit", 16, {**VIT, "qk_norm": True, "init_values": 0.1}),
    ("vit_base_patch16_clip_224", "vit", 16, VIT),
    ("vit_small_patch14_dinov2", "vit", 16, VIT),
    ("vit_small_patch14_reg4_dinov2", "vit", 16, VIT),
    ("vit_base_patch16_siglip_224", "vit", 16, VIT),
    ("vit_relpos_small_patch16_224", "vit_relpos", 16, VIT),
    ("vit_srelpos_small_patch16_224", "vit_relpos", 16, VIT),
    ("vit_medium_patch16_rope_reg1_gap_256", "eva", 16, VIT),
    ("samvit_base_patch16", "samvit", 16, {**VIT, "global_attn_indexes": (1,), "window_size": 2}),
    ("vit_tiny_r_s16_p8_224", "vit_hybrid", 32, {"img_size": 32, "embed_dim": 8, "depth": 1, "num_heads": 2}),
    ("naflexvit_base_patch16_gap", "naflexvit", 16, {"embed_dim": 8, "depth": 1, "num_heads": 2, "patch_size": 8}),
    ("deit_tiny_patch16_224", "deit", 16, VIT),
    ("deit_tiny_distilled_patch16_224", "deit", 16, VIT),
    ("deit3_small_patch16_224", "deit", 16, VIT),
    ("beit_base_patch16_224", "beit", 16, VIT),
    ("beitv2_base_patch16_224", "beit", 16, VIT),
    ("eva02_tiny_patch14_224", "eva", 16, VIT),
    ("cait_xxs24_224", "cait", 16, {**VIT, "depth_token_only": 1}),
    ("xcit_nano_12_p8_224", "xcit", 16, VIT),
    ("convit_tiny", "convit", 16, {**VIT, "local_up_to_layer": 1}),
    ("levit_128s", "levit", 64, {"img_size": 64, "embed_dim": (16, 24), "depth": (1, 1), "num_heads": (2, 3), "key_dim": 8}),
    ("coat_tiny", "coat", 32, {"img_size": 32, "embed_dims": (32, 32, 32, 32), "serial_depths": (1, 1, 1, 1), "num_heads": 8}),
    ("coat_lite_tiny", "coat", 32, {"img_size": 32, "embed_dims": (32, 32, 32, 32), "serial_depths": (1, 1, 1, 1), "num_heads": 8}),
    ("crossvit_tiny_240", "crossvit", 48, {"img_size": 48, "embed_dim": (8, 12), "num_heads": (2, 2), "depth": ((1, 1, 0),), "img_scale": (1.0, 1.0), "patch_size": (12, 16)}),
    ("edgenext_xx_small", "edgenext", 64, {"depths": (1, 1, 1, 2), "dims": (8, 16, 16, 16)}),
    ("efficientformer_l1", "efficientformer", 224, {"depths": (1, 1, 1, 2), "embed_dims": (8, 8, 8, 16), "num_vit": 1}),
    ("efficientformerv2_s0", "efficientformer", 64, {"img_size": 64, "depths": (1, 1, 1, 1), "embed_dims": (8, 8, 8, 16)}),
    ("hiera_tiny_224", "hiera", 32, {"img_size": (32, 32), "embed_dim": 8, "num_heads": 1, "stages": (1, 1), "q_pool": 1, "mask_unit_size": (4, 4)}),
    ("sam2_hiera_tiny", "hiera", 64, {"embed_dim": 8, "num_heads": 1, "stages": (1, 1, 2, 1), "window_spec": (4, 4, 2, 2), "global_att_blocks": (3,), "global_pos_size": (2, 2)}),
    ("hrnet_w18_small", "hrnet", 64, {}),
    ("inception_v4", "inception", 75, {}),
    ("inception_next_atto", "inception_next", 32, {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 16)}),
    ("test_maxvit", "maxvit", 64, {"img_size": 64}),
    ("test_coatnet", "coatnet", 64, {"img_size": 64}),
    ("coatnet_rmlp_nano_rw_224", "coatnet", 32, {"img_size": 32, "embed_dim": (8, 32, 32, 32), "depths": (1, 1, 1, 1), "stem_width": 8}),
    ("mobilevit_xxs", "mobilevit", 64, {}),
    ("mobilevitv2_050", "mobilevit", 64, {}),
    ("mobileone_s0", "mobileone", 32, {}),
    ("repvgg_a0", "repvgg", 32, {}),
    ("test_byobnet", "byobnet", 32, {}),
    ("gernet_s", "byobnet", 32, {}),
    ("test_nfnet", "nfnet", 32, {}),
    ("test_resnet", "resnet", 32, {}),
    ("resnet26t", "resnet", 32, {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}),
    ("seresnet18", "resnet", 32, {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}),
    ("ecaresnet26t", "resnet", 32, {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8)}),
    ("resnetblur18", "resnet", 32, {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}),
    ("resnetv2_18", "resnetv2", 32, {"layers": (1, 1), "channels": (16, 16), "stem_chs": 16}),
    ("pit_ti_224", "pit", 32, {"img_size": 32, "base_dims": (8, 8, 8), "depth": (1, 1, 1), "heads": (1, 2, 2)}),
    ("pvt_v2_b0", "pvt", 32, {"depths": (1, 1, 1, 1), "embed_dims": (8, 8, 16, 16), "num_heads": (1, 1, 2, 2)}),
    ("pvt_v2_b2_li", "pvt", 32, {"depths": (1, 1, 1, 1), "embed_dims": (8, 8, 16, 16), "num_heads": (1, 1, 2, 2)}),
    ("regnetx_002", "regnet", 32, {}),
    ("regnety_002", "regnet", 32, {}),
    ("res2net50_14w_8s", "res2net", 32, {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "base_width": 32}),
    ("resnest14d", "resnest", 32, {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "stem_width": 4}),
    ("rexnet_100", "rexnet", 32, {"width_mult": 0.3}),
    ("skresnet18", "sknet", 32, {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}),
    ("sequencer2d_s", "sequencer", 28, {"img_size": 28, "layers": (1, 1), "embed_dims": (8, 8), "hidden_sizes": (4, 4), "patch_sizes": (7, 2), "mlp_ratios": (2, 2)}),
    ("swin_tiny_patch4_window7_224", "swin", 32, SWIN),
    ("swin_s3_tiny_224", "swin", 32, SWIN),
    ("swinv2_tiny_window8_256", "swin", 32, SWIN),
    ("swinv2_cr_tiny_224", "swin", 32, SWIN),
    ("swinv2_cr_tiny_ns_224", "swin", 32, SWIN),
    ("tnt_s_patch16_224", "tnt", 32, {"img_size": 32, "embed_dim": 8, "inner_dim": 4, "depth": 1, "num_heads_inner": 2, "num_heads_outer": 2}),
    ("twins_svt_small", "twins", 64, {"img_size": 64, "embed_dims": (8, 8, 8, 8), "depths": (2, 1, 1, 1), "num_heads": (2, 2, 2, 2), "wss": (2, 2, 2, 2)}),
    ("twins_pcpvt_small", "twins", 64, {"img_size": 64, "embed_dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2)}),
    ("visformer_tiny", "visformer", 32, {"img_size": 32, "embed_dim": 16, "depth": (1, 1, 1), "num_heads": 2, "init_channels": 4}),
    ("xception41", "xception", 32, {}),
    ("davit_tiny", "davit", 32, {"depths": (1, 1), "embed_dims": (8, 8), "num_heads": (2, 2), "window_size": 4}),
    ("fastvit_t8", "fastvit", 64, {"layers": (1, 1, 1, 1), "embed_dims": (8, 8, 16, 16)}),
    ("fastvit_sa12", "fastvit", 64, {"layers": (1, 1, 1, 1), "embed_dims": (8, 8, 32, 32)}),
    ("starnet_s050", "starnet", 32, {}),
    ("ghostnet_050", "ghostnet", 32, {}),
    ("repghostnet_050", "ghostnet", 32, {}),
    ("repvit_m0_9", "repvit", 32, {"embed_dim": (8, 8, 16, 16), "depth": (1, 1, 1, 1)}),
    ("efficientvit_b0", "efficientvit", 64, {"widths": (4, 8, 8, 16, 16), "depths": (1, 1, 1, 1, 1), "head_dim": 8, "head_widths": (16, 16)}),
    ("efficientvit_l1", "efficientvit", 64, {"widths": (4, 8, 8, 16, 16), "depths": (1, 1, 1, 1, 1), "head_dim": 8, "head_widths": (16, 16)}),
    ("efficientvit_m0", "efficientvit", 64, {"img_size": 64, "embed_dim": (16, 16, 16), "key_dim": (4, 4, 4), "num_heads": (2, 2, 2)}),
    ("mambaout_femto", "mambaout", 32, {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}),
    ("mvitv2_tiny", "mvit", 32, {"img_size": 32}),
    ("nextvit_small", "nextvit", 64, {}),
    ("lambda_resnet26t", "byoanet", 64, {"img_size": 64}),
    ("hgnetv2_b0", "hgnet", 32, {}),
    ("lcnet_035", "mobilenet", 32, {}),
    ("mobilenetv3_small_050", "mobilenet", 32, {}),
    ("mobilenetv4_conv_small_035", "mobilenet", 32, {}),
    ("mobilenetv4_hybrid_medium_075", "mobilenet", 64, {}),
    ("test_efficientnet", "efficientnet", 32, {}),
    ("test_efficientnet_evos", "efficientnet", 32, {}),
    ("tinynet_e", "efficientnet", 32, {}),
    ("mixnet_s", "efficientnet", 32, {}),
    ("mnasnet_small", "efficientnet", 32, {}),
    ("test_convnext", "convnext", 32, {}),
    ("test_convnext2", "convnext", 32, {}),
    ("convnextv2_atto", "convnext", 32, {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}),
    ("rdnet_tiny", "rdnet", 32, {}),
    ("dla46_c", "dla", 32, {}),
    ("selecsls42", "selecsls", 32, {}),
    ("ese_vovnet19b_slim_dw", "vovnet", 32, {}),
    ("cspresnet50", "cspnet", 32, {}),
    ("botnet26t_256", "byoanet", 64, {"img_size": 64}),
    ("swiftformer_xs", "swiftformer", 64, {"layers": (1, 1, 1, 1), "embed_dims": (8, 8, 16, 16)}),
    ("shvit_s1", "shvit", 64, {"embed_dim": (32, 32, 32), "partial_dim": (8, 8, 8), "qk_dim": (4, 4, 4)}),
    ("iformer_t", "iformer", 64, {}),
    ("fasternet_t0", "fasternet", 32, {"embed_dim": 8, "depths": (1, 1, 1, 1)}),
    ("efficientvim_m1", "efficientvim", 64, {}),
    ("lowformer_b0", "lowformer", 64, {}),
    # Built from their classes, where builders fix what has to be small.
    ("mlp_mixer:MlpMixer", "mixer", 16, MIXER),
    ("mlp_mixer:MlpMixer+ResBlock", "mixer", 16, MIXER),
    ("mlp_mixer:MlpMixer+SpatialGatingBlock", "mixer", 16, MIXER),
    ("convmixer:ConvMixer", "convmixer", 16, {"dim": 8, "depth": 2, "kernel_size": 3, "patch_size": 4}),
    ("metaformer:MetaFormer+Pooling", "metaformer", 32, {"depths": (1, 1), "dims": (8, 12)}),
    ("metaformer:MetaFormer+SepConv", "metaformer", 32, {"depths": (1, 1), "dims": (8, 12)}),
    ("metaformer:MetaFormer+Attention", "metaformer", 32, {"depths": (1, 1), "dims": (32, 32), "norm_layers": "LayerNormNoBias"}),
    ("gcvit:GlobalContextVit", "gcvit", 64, {"img_size": 64, "window_size": (4, 4, 4, 2), "window_ratio": None, "depths": (2, 1, 1, 1), "embed_dim": 8, "num_heads": (1, 2, 2, 2)}),
    ("resnetv2:ResNetV2", "bit", 32, {"layers": (1, 1), "channels": (128, 128), "stem_chs": 32}),
    ("volo:VOLO", "volo", 32, {"img_size": 32, "layers": (1, 1), "embed_dims": (8, 16), "num_heads": (2, 2), "mlp_ratio": 2.0, "outlook_attention": (True, False)}),
    ("focalnet:FocalNet", "focalnet", 32, {"embed_dim": 8, "depths": (1, 1), "focal_levels": (2, 2), "focal_windows": (3, 3)}),
    ("nest:Nest", "nest", 32, {"img_size": 32, "patch_size": 2, "embed_dims": (8, 8, 8), "num_heads": (2, 2, 2), "depths": (1, 1, 1)}),
    ("ghostnetv2_100", "ghostnet", 64, {}),
    ("tiny_vit:TinyVit", "tiny_vit", 64, {"embed_dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2), "window_sizes": (4, 4, 4, 2)}),
    ("xception_aligned:XceptionAligned", "xception", 32, {"block_cfg": [{"in_chs": 64, "out_chs": 12, "stride": 2}, {"in_chs": 12, "out_chs": 16, "stride": 1}]}),
    ("swin_transformer:SwinTransformer", "swin", 36, {**SWIN, "window_size": 3, "img_size": 36}),
]  # fmt: skip


def networks() -> list[Network]:
    """All of them."""
    return [
        Network(
            f"timm_{name}", family, partial(model, name, options), images(size), labels, cross_entropy,
            batches=(4,) if not options else (4, 8), packages=("timm", "torchvision"), largest=60_000,
            tolerance=1e-5 if name.startswith("naflexvit") else 1e-9,
        )
        for name, family, size, options in NETWORKS
    ]  # fmt: skip
