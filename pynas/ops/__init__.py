"""Fused operators on gradients: statistics over samples without the samples' gradients.

Each operator is one file: the public function, its pure-PyTorch `<op>_reference`, and its registrations. The
compiled kernels are `torch.ops.pynas.<op>` for CPU and CUDA.
"""

from __future__ import annotations

import torch  # noqa: F401  (its libraries must be loaded before the core's)

import pynas._C
import pynas.ops._stages  # noqa: F401  (their shapes)
from pynas.ops._mixed_op_reference import mixed_op_reference
from pynas.ops._moments import MOMENTS, Moments, MomentSums
from pynas.ops.activation_codes import (
    activation_codes,
    activation_codes_reference,
    code_agreement,
    code_agreement_reference,
    code_agreement_update,
    code_agreement_update_reference,
)
from pynas.ops.affine_grad_moments import affine_grad_moments, affine_grad_moments_reference
from pynas.ops.affine_grad_norms import (
    affine_grad_gram,
    affine_grad_gram_reference,
    affine_grad_norms,
    affine_grad_norms_reference,
)
from pynas.ops.avg_pool2d import avg_pool2d, avg_pool2d_backward, avg_pool2d_reference, supports_avg_pool2d
from pynas.ops.batch_norm import (
    batch_norm,
    batch_norm_backward,
    batch_norm_double_backward,
    batch_norm_reference,
    supports_batch_norm,
)
from pynas.ops.candidates import mixed_op_norms, mixed_op_parameters
from pynas.ops.conv1x1 import (
    conv1x1,
    conv1x1_backward_input,
    conv1x1_backward_weight,
    conv1x1_reference,
)
from pynas.ops.conv2d_grad_gram import conv2d_grad_gram, conv2d_grad_gram_reference
from pynas.ops.conv2d_grad_moments import conv2d_grad_moments, conv2d_grad_moments_reference
from pynas.ops.conv2d_grad_norms import conv2d_grad_norms, conv2d_grad_norms_reference
from pynas.ops.conv3x3 import (
    conv3x3,
    conv3x3_backward_input,
    conv3x3_backward_weight,
    conv3x3_reference,
    supports_conv3x3,
)
from pynas.ops.embedding_grad_moments import embedding_grad_moments, embedding_grad_moments_reference
from pynas.ops.embedding_grad_norms import (
    embedding_grad_gram,
    embedding_grad_gram_reference,
    embedding_grad_norms,
    embedding_grad_norms_reference,
)
from pynas.ops.linear_grad_gram import linear_grad_gram, linear_grad_gram_reference
from pynas.ops.linear_grad_moments import linear_grad_moments, linear_grad_moments_reference
from pynas.ops.linear_grad_norms import linear_grad_norms, linear_grad_norms_reference
from pynas.ops.mixed_activation import ACTIVATIONS, mixed_activation, mixed_activation_reference
from pynas.ops.mixed_op import mixed_op
from pynas.ops.moments_update import moments_update, moments_update_reference
from pynas.ops.normalized_sum import normalized_sum, normalized_sum_reference
from pynas.ops.strided_conv1x1 import (
    StridedConvolutions,
    strided_convolutions_of,
    subsamples,
    subsampling_conv2d,
)

__all__ = [
    "ACTIVATIONS",
    "MOMENTS",
    "MomentSums",
    "Moments",
    "StridedConvolutions",
    "activation_codes",
    "activation_codes_reference",
    "affine_grad_gram",
    "affine_grad_gram_reference",
    "affine_grad_moments",
    "affine_grad_moments_reference",
    "affine_grad_norms",
    "affine_grad_norms_reference",
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool2d_reference",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_double_backward",
    "batch_norm_reference",
    "code_agreement",
    "code_agreement_reference",
    "code_agreement_update",
    "code_agreement_update_reference",
    "conv1x1",
    "conv1x1_backward_input",
    "conv1x1_backward_weight",
    "conv1x1_reference",
    "conv2d_grad_gram",
    "conv2d_grad_gram_reference",
    "conv2d_grad_moments",
    "conv2d_grad_moments_reference",
    "conv2d_grad_norms",
    "conv2d_grad_norms_reference",
    "conv3x3",
    "conv3x3_backward_input",
    "conv3x3_backward_weight",
    "conv3x3_reference",
    "embedding_grad_gram",
    "embedding_grad_gram_reference",
    "embedding_grad_moments",
    "embedding_grad_moments_reference",
    "embedding_grad_norms",
    "embedding_grad_norms_reference",
    "linear_grad_gram",
    "linear_grad_gram_reference",
    "linear_grad_moments",
    "linear_grad_moments_reference",
    "linear_grad_norms",
    "linear_grad_norms_reference",
    "mixed_activation",
    "mixed_activation_reference",
    "mixed_op",
    "mixed_op_norms",
    "mixed_op_parameters",
    "mixed_op_reference",
    "moments_update",
    "moments_update_reference",
    "normalized_sum",
    "normalized_sum_reference",
    "strided_convolutions_of",
    "subsamples",
    "subsampling_conv2d",
    "supports_avg_pool2d",
    "supports_batch_norm",
    "supports_conv3x3",
]
