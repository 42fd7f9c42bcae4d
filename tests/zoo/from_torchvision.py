# ruff: noqa: E501 - one network a line
"""Networks of torchvision at their smallest."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from tests.zoo import torchvision_schemas
from tests.zoo.networks import CLASSES, Network, cross_entropy, energy, images, labels


def model(name: str, **options: Any) -> nn.Module:
    """One of ``torchvision.models`` by its builder's name, untrained."""
    torchvision_schemas.define()
    import torchvision.models as models

    part, _, builder = name.rpartition(".")
    module = getattr(models, part) if part else models
    options.setdefault("num_classes", CLASSES)
    return getattr(module, builder)(weights=None, **options)


def resnet(block: str, layers: list[int], **options: Any) -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models import resnet as source

    net = source.ResNet(getattr(source, block), layers, num_classes=CLASSES, **options)
    if block == "BasicBlock":
        net.layer4 = nn.Identity()
        net.fc = nn.Linear(256, CLASSES)
    return net


def vgg(norm: bool) -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models.vgg import VGG, make_layers

    net = VGG(make_layers([4, "M", 6, 8, "M"], batch_norm=norm), num_classes=CLASSES)
    net.classifier[0] = nn.Linear(8 * 49, 10)
    net.classifier[3] = nn.Linear(10, 10)
    net.classifier[6] = nn.Linear(10, CLASSES)
    return net


def densenet() -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models import DenseNet

    return DenseNet(4, (2, 2), num_init_features=8, num_classes=CLASSES)


def densenet_checkpointed() -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models import DenseNet

    return DenseNet(4, (2, 2), num_init_features=8, num_classes=CLASSES, memory_efficient=True)


def shufflenet() -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models import ShuffleNetV2

    return ShuffleNetV2([1, 2, 1], [8, 8, 16, 16, 24], num_classes=CLASSES)


def convnext() -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(8, 12, 1), CNBlockConfig(12, None, 1)], num_classes=CLASSES)


def swin(version: int) -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models import swin_transformer as source

    block = (
        {"block": source.SwinTransformerBlockV2, "downsample_layer": source.PatchMergingV2}
        if version == 2
        else {}
    )
    return source.SwinTransformer([4, 4], 8, [2, 1], [2, 2], [2, 2], num_classes=CLASSES, **block)


def vit() -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models import VisionTransformer

    return VisionTransformer(16, 8, 2, 2, 8, 12, num_classes=CLASSES)


def vit_stem() -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer

    return VisionTransformer(
        16,
        8,
        1,
        2,
        8,
        12,
        num_classes=CLASSES,
        conv_stem_configs=[ConvStemConfig(4, 3, 2), ConvStemConfig(6, 3, 4)],
    )


def maxvit() -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models import MaxVit

    return MaxVit((16, 16), 8, 2, [8, 8], [1, 1], 4, 0.0, num_classes=CLASSES)


def mvit(version: int) -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models.video.mvit import MSBlockConfig, MViT

    setting = [
        MSBlockConfig(1, 8, 8 if version == 1 else 16, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2]),
        MSBlockConfig(2, 16 if version == 2 else 8, 16, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 1, 1]),
    ]
    second = version == 2
    return MViT(
        (16, 16), 4, setting, residual_pool=second, residual_with_cls_embed=not second, rel_pos_embed=second,
        proj_after_attn=second, num_classes=CLASSES,
    )  # fmt: skip


def swin3d() -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models.video.swin_transformer import SwinTransformer3d

    return SwinTransformer3d([2, 4, 4], 8, [2, 1], [2, 2], [2, 2, 2], num_classes=CLASSES)


def regnet(excite: bool) -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models.regnet import BlockParams, RegNet

    params = BlockParams(
        [1, 2, 1, 1], [8, 8, 16, 16], [4, 4, 8, 8], [1.0] * 4, [2] * 4, 0.25 if excite else None
    )
    return RegNet(params, num_classes=CLASSES, stem_width=8)


def efficientnet(fused: bool) -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig

    first = FusedMBConvConfig(2, 3, 2, 8, 8, 1) if fused else MBConvConfig(1, 3, 1, 8, 8, 1, 1, 1)
    return EfficientNet(
        [first, MBConvConfig(4, 5, 2, 8, 12, 2, 1, 1)], 0.0, num_classes=CLASSES, last_channel=24
    )


def segmentation(kind: str, auxiliary: bool) -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models.segmentation import deeplabv3, fcn, lraspp

    trunk = _Trunk(auxiliary)
    if kind == "lraspp":
        return lraspp.LRASPP(_Named(), 6, 12, CLASSES, 8)
    side = fcn.FCNHead(6, CLASSES) if auxiliary else None
    if kind == "fcn":
        return fcn.FCN(trunk, fcn.FCNHead(12, CLASSES), side)
    return deeplabv3.DeepLabV3(trunk, deeplabv3.DeepLabHead(12, CLASSES, (2, 3)), side)


class _Trunk(nn.Module):
    def __init__(self, auxiliary: bool) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(6, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.auxiliary = auxiliary

    def forward(self, x: Any) -> dict[str, Any]:
        low = self.first(x)
        high = self.second(low)
        return {"out": high, "aux": low} if self.auxiliary else {"out": high}


class _Named(_Trunk):
    def __init__(self) -> None:
        super().__init__(False)

    def forward(self, x: Any) -> dict[str, Any]:
        low = self.first(x)
        return {"low": low, "high": self.second(low)}


def video(block: str, convolution: str) -> nn.Module:
    torchvision_schemas.define()
    from torchvision.models.video import resnet as source

    kind = getattr(source, convolution)
    stem = source.R2Plus1dStem if convolution == "Conv2Plus1D" else source.BasicStem
    net = source.VideoResNet(getattr(source, block), [kind] * 4, [1, 1, 1, 1], stem, num_classes=CLASSES)
    net.layer2 = net.layer3 = net.layer4 = nn.Identity()
    net.fc = nn.Linear(64 * getattr(source, block).expansion, CLASSES)
    return net


def s3d() -> nn.Module:
    torchvision_schemas.define()
    source = importlib.import_module("torchvision.models.video.s3d")

    return nn.Sequential(
        source.TemporalSeparableConv(3, 6, 3, 2, 1, nn.BatchNorm3d), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        source.SepInceptionBlock3D(6, 4, 2, 4, 2, 4, 4, nn.BatchNorm3d), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
        nn.Linear(16, CLASSES),
    )  # fmt: skip


def googlenet() -> nn.Module:
    return model("googlenet", aux_logits=True, init_weights=False, transform_input=True)


def networks() -> list[Network]:
    """All of them."""
    packages = ("torchvision",)

    def add(
        name: str, family: str, build: Callable[[], nn.Module], size: int = 32, **options: Any
    ) -> Network:
        inputs = options.pop("inputs", images(size))
        loss = options.pop("loss", cross_entropy)
        targets = labels if loss is cross_entropy else None
        return Network(f"tv_{name}", family, build, inputs, targets, loss, packages=packages, **options)

    return [
        add("resnet_basic", "resnet", partial(resnet, "BasicBlock", [1, 1, 1, 1])),
        add("resnet_basic_train", "resnet", partial(resnet, "BasicBlock", [1, 1, 1, 1]), train=True),
        add("resnet_group_norm", "resnet", partial(resnet, "BasicBlock", [1, 1, 1, 1], norm_layer=partial(nn.GroupNorm, 8))),
        add("resnext", "resnet", partial(resnet, "Bottleneck", [1, 1, 1, 1], groups=8, width_per_group=2), batches=(4,)),
        add("vgg", "vgg", partial(vgg, False), 16, batches=(4, 8)),
        add("vgg_norm", "vgg", partial(vgg, True), 16, batches=(4, 8)),
        add("densenet", "densenet", densenet, batches=(4, 8)),
        add("densenet_checkpointed", "densenet", densenet_checkpointed, batches=(4, 8)),
        add("mobilenet_v2", "mobilenet", partial(model, "mobilenet_v2", width_mult=0.1), batches=(4, 8)),
        add("mobilenet_v3", "mobilenet", partial(model, "mobilenet_v3_small", width_mult=0.1), batches=(4, 8)),
        add("shufflenet", "shufflenet", shufflenet, batches=(4, 8)),
        add("squeezenet", "squeezenet", partial(model, "squeezenet1_1"), batches=(4,), largest=60_000),
        add("mnasnet", "mnasnet", partial(model, "mnasnet0_5"), batches=(4,), largest=60_000),
        add("efficientnet", "efficientnet", partial(efficientnet, False), batches=(4, 8)),
        add("efficientnet_v2", "efficientnet", partial(efficientnet, True), batches=(4, 8)),
        add("regnet_x", "regnet", partial(regnet, False), batches=(4, 8)),
        add("regnet_y", "regnet", partial(regnet, True), batches=(4, 8)),
        add("convnext", "convnext", convnext, batches=(4, 8)),
        add("googlenet", "inception", googlenet, batches=(4,), largest=60_000),
        add("googlenet_outputs", "inception", googlenet, train=True, loss=energy, batches=(3,), largest=60_000),
        add("inception", "inception", partial(model, "inception_v3", init_weights=False), 75, loss=energy, batches=(2,), largest=60_000),
        add("swin", "swin", partial(swin, 1)),
        add("swin_v2", "swin", partial(swin, 2), batches=(4, 8)),
        add("vit", "vit", vit, 16, batches=(4, 5)),
        add("vit_train", "vit", vit, 16, batches=(4, 5), train=True),
        add("vit_stem", "vit", vit_stem, 16, batches=(4, 5)),
        add("maxvit", "maxvit", maxvit, 16, batches=(4, 8)),
        add("mvit", "mvit", partial(mvit, 1), inputs=images(16, 3, 4), batches=(4, 2)),
        add("mvit_v2", "mvit", partial(mvit, 2), inputs=images(16, 3, 4), batches=(4, 2)),
        add("swin3d", "swin", swin3d, inputs=images(16, 3, 4), batches=(4, 2)),
        *(
            add(f"{kind}{'_aux' if aux else ''}", "segmentation", partial(segmentation, kind, aux), 16, loss=energy,
                train=aux, batches=(4, 6))
            for kind in ("fcn", "deeplab") for aux in (False, True)
        ),
        add("lraspp", "segmentation", partial(segmentation, "lraspp", False), 16, loss=energy),
        add("r3d", "video", partial(video, "BasicBlock", "Conv3DSimple"), inputs=images(16, 3, 4), batches=(4, 2)),
        add("r2plus1d", "video", partial(video, "BasicBlock", "Conv2Plus1D"), inputs=images(16, 3, 4), batches=(4, 2)),
        add("mc3", "video", partial(video, "Bottleneck", "Conv3DNoTemporal"), inputs=images(16, 3, 4), batches=(4, 2)),
        add("s3d", "video", s3d, inputs=images(16, 3, 8), batches=(4, 2)),
    ]  # fmt: skip
