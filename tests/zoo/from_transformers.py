# ruff: noqa: E501 - one network a line
"""Networks of transformers at their smallest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo import torchvision_schemas
from tests.zoo.networks import Network, energy, images, tokens, values

Inputs = Callable[[int], Any]


def model(config: str, kind: str, options: Mapping[str, Any]) -> nn.Module:
    """A model class of the library from its configuration, untrained."""
    torchvision_schemas.define()
    import transformers

    transformers.logging.set_verbosity_error()
    made = getattr(transformers, config)(**options)
    if hasattr(made, "_attn_implementation") and "attn_implementation" not in options:
        made._attn_implementation = "eager"
    made._experts_implementation = "eager"  # the others want float32
    return getattr(transformers, kind)(made)


def named(**inputs: Inputs) -> Inputs:
    """Makes inputs by name."""
    return lambda batch: {name: make(batch) for name, make in inputs.items()}


def padding(length: int) -> Inputs:
    """Makes an attention mask whose rows end at different places."""
    return lambda batch: (torch.arange(length) < torch.arange(batch)[:, None] % 3 + length - 2).long()


def logits(outputs: Any, targets: Any = None) -> Tensor:
    """The energy of the first output alone."""
    return energy(outputs[0])


TEXT: dict[str, Any] = {
    "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
    "max_position_embeddings": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT: dict[str, Any] = {
    "vocab_size": 20, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA: dict[str, Any] = {**TEXT, "num_key_value_heads": 1}
BART: dict[str, Any] = {
    "vocab_size": 20, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "max_position_embeddings": 16,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
T5: dict[str, Any] = {
    "vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2,
    "pad_token_id": 0, "decoder_start_token_id": 0, "relative_attention_num_buckets": 8,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12, "image_size": 16,
    "patch_size": 8,
}  # fmt: skip
SPEECH: dict[str, Any] = {
    "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 20,
    "conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "apply_spec_augment": False,
}  # fmt: skip

ONE = tokens(20, 6, 3)
MASKED = named(input_ids=ONE, attention_mask=padding(6))
TWO = named(input_ids=ONE, decoder_input_ids=tokens(20, 5, 3))
PIXELS = named(pixel_values=images(16))

# Name, family, configuration, class, options, inputs.
NETWORKS: list[tuple[str, str, str, str, dict[str, Any], Inputs]] = [
    ("bert", "bert", "BertConfig", "BertModel", TEXT, MASKED),
    ("bert_tokens", "bert", "BertConfig", "BertForMaskedLM", TEXT, named(input_ids=ONE)),
    ("bert_sdpa", "bert", "BertConfig", "BertForSequenceClassification", {**TEXT, "attn_implementation": "sdpa"}, MASKED),
    ("bert_decoder", "bert", "BertConfig", "BertLMHeadModel", {**TEXT, "is_decoder": True, "use_cache": False}, MASKED),
    ("roberta", "roberta", "RobertaConfig", "RobertaModel", TEXT, MASKED),
    ("xlm_roberta", "roberta", "XLMRobertaConfig", "XLMRobertaModel", TEXT, MASKED),
    ("camembert", "roberta", "CamembertConfig", "CamembertModel", TEXT, MASKED),
    ("ernie", "bert", "ErnieConfig", "ErnieModel", TEXT, MASKED),
    ("roformer", "roformer", "RoFormerConfig", "RoFormerModel", {**TEXT, "embedding_size": 8}, MASKED),
    ("megatron_bert", "bert", "MegatronBertConfig", "MegatronBertModel", TEXT, MASKED),
    ("mobilebert", "mobilebert", "MobileBertConfig", "MobileBertModel", {**TEXT, "embedding_size": 8, "intra_bottleneck_size": 8, "true_hidden_size": 8}, MASKED),
    ("convbert", "convbert", "ConvBertConfig", "ConvBertModel", {**TEXT, "embedding_size": 8, "conv_kernel_size": 3, "head_ratio": 1}, MASKED),
    ("modernbert", "modernbert", "ModernBertConfig", "ModernBertModel", {**TEXT, "local_attention": 4, "global_attn_every_n_layers": 2, "cls_token_id": 1, "sep_token_id": 2}, MASKED),
    ("distilbert", "distilbert", "DistilBertConfig", "DistilBertModel", {"vocab_size": 20, "dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 12, "max_position_embeddings": 16}, MASKED),
    ("albert", "albert", "AlbertConfig", "AlbertModel", {**TEXT, "embedding_size": 4}, MASKED),
    ("electra", "electra", "ElectraConfig", "ElectraModel", {**TEXT, "embedding_size": 4}, MASKED),
    ("squeezebert", "squeezebert", "SqueezeBertConfig", "SqueezeBertModel", {**TEXT, "embedding_size": 8, "q_groups": 2, "k_groups": 2, "v_groups": 2, "post_attention_groups": 1, "intermediate_groups": 2, "output_groups": 2}, MASKED),
    ("deberta", "deberta", "DebertaConfig", "DebertaModel", {**TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 8}, MASKED),
    ("deberta_v2", "deberta", "DebertaV2Config", "DebertaV2Model", {**TEXT, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 4, "share_att_key": True, "conv_kernel_size": 3, "norm_rel_ebd": "layer_norm"}, MASKED),
    ("xlnet", "xlnet", "XLNetConfig", "XLNetModel", {"vocab_size": 20, "d_model": 8, "n_layer": 2, "n_head": 2, "d_inner": 12}, MASKED),
    ("longformer", "longformer", "LongformerConfig", "LongformerModel", {**TEXT, "attention_window": [4, 4]}, named(input_ids=tokens(20, 8, 3))),
    ("big_bird", "big_bird", "BigBirdConfig", "BigBirdModel", {**TEXT, "attention_type": "original_full"}, MASKED),
    ("big_bird_sparse", "big_bird", "BigBirdConfig", "BigBirdModel", {**TEXT, "attention_type": "block_sparse", "block_size": 2, "num_random_blocks": 1, "max_position_embeddings": 32}, named(input_ids=tokens(20, 24, 3))),
    ("funnel", "funnel", "FunnelConfig", "FunnelModel", {"vocab_size": 20, "d_model": 8, "n_head": 2, "d_head": 4, "d_inner": 12, "block_sizes": [1, 1], "num_decoder_layers": 1}, MASKED),
    ("funnel_factorised", "funnel", "FunnelConfig", "FunnelBaseModel", {"vocab_size": 20, "d_model": 8, "n_head": 2, "d_head": 4, "d_inner": 12, "block_sizes": [1, 1], "attention_type": "factorized"}, MASKED),
    ("fnet", "fnet", "FNetConfig", "FNetModel", TEXT, named(input_ids=ONE)),
    ("nystromformer", "nystromformer", "NystromformerConfig", "NystromformerModel", {**TEXT, "num_landmarks": 2, "segment_means_seq_len": 6, "conv_kernel_size": 3}, named(input_ids=ONE)),
    ("yoso", "yoso", "YosoConfig", "YosoModel", {**TEXT, "use_expectation": True}, named(input_ids=ONE)),
    ("ibert", "ibert", "IBertConfig", "IBertModel", TEXT, MASKED),
    ("mpnet", "mpnet", "MPNetConfig", "MPNetModel", {**TEXT, "pad_token_id": 1, "max_position_embeddings": 32}, MASKED),
    ("gpt2", "gpt2", "GPT2Config", "GPT2LMHeadModel", {**GPT, "use_cache": False}, MASKED),
    ("gpt2_classifier", "gpt2", "GPT2Config", "GPT2ForSequenceClassification", {**GPT, "pad_token_id": 0}, named(input_ids=ONE)),
    ("gpt_neo", "gpt", "GPTNeoConfig", "GPTNeoModel", {"vocab_size": 20, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]], "window_size": 3, "max_position_embeddings": 16}, MASKED),
    ("gptj", "gpt", "GPTJConfig", "GPTJModel", {**GPT, "rotary_dim": 2}, MASKED),
    ("gpt_neox", "gpt", "GPTNeoXConfig", "GPTNeoXModel", TEXT, MASKED),
    ("gpt_bigcode", "gpt", "GPTBigCodeConfig", "GPTBigCodeModel", {**GPT, "multi_query": True}, MASKED),
    ("codegen", "gpt", "CodeGenConfig", "CodeGenModel", {**GPT, "n_head": 4, "rotary_dim": 2}, MASKED),
    ("openai_gpt", "gpt", "OpenAIGPTConfig", "OpenAIGPTModel", GPT, MASKED),
    ("ctrl", "gpt", "CTRLConfig", "CTRLModel", {**GPT, "dff": 12}, named(input_ids=ONE)),
    ("bloom", "bloom", "BloomConfig", "BloomModel", {"vocab_size": 20, "hidden_size": 8, "n_layer": 2, "n_head": 2}, MASKED),
    ("falcon", "falcon", "FalconConfig", "FalconModel", TEXT, MASKED),
    ("mpt", "mpt", "MptConfig", "MptModel", {"vocab_size": 20, "d_model": 8, "n_layers": 2, "n_heads": 2, "expansion_ratio": 2, "max_seq_len": 16}, MASKED),
    ("opt", "opt", "OPTConfig", "OPTModel", {**TEXT, "ffn_dim": 12, "word_embed_proj_dim": 6}, MASKED),
    ("llama", "llama", "LlamaConfig", "LlamaForCausalLM", LLAMA, MASKED),
    ("mistral", "mistral", "MistralConfig", "MistralModel", {**LLAMA, "sliding_window": 3}, MASKED),
    ("gemma", "gemma", "GemmaConfig", "GemmaModel", {**LLAMA, "head_dim": 4}, MASKED),
    ("gemma2", "gemma", "Gemma2Config", "Gemma2ForCausalLM", {**LLAMA, "head_dim": 4, "sliding_window": 3}, MASKED),
    ("gemma3", "gemma", "Gemma3TextConfig", "Gemma3TextModel", {**LLAMA, "head_dim": 4, "sliding_window": 3}, MASKED),
    ("qwen2", "qwen", "Qwen2Config", "Qwen2Model", LLAMA, MASKED),
    ("qwen3", "qwen", "Qwen3Config", "Qwen3Model", {**LLAMA, "head_dim": 4}, MASKED),
    ("phi", "phi", "PhiConfig", "PhiModel", TEXT, MASKED),
    ("phi3", "phi", "Phi3Config", "Phi3Model", LLAMA, MASKED),
    ("stablelm", "stablelm", "StableLmConfig", "StableLmModel", LLAMA, MASKED),
    ("olmo2", "olmo", "Olmo2Config", "Olmo2Model", LLAMA, MASKED),
    ("cohere", "cohere", "CohereConfig", "CohereModel", {**LLAMA, "use_qk_norm": True}, MASKED),
    ("granite", "granite", "GraniteConfig", "GraniteModel", LLAMA, MASKED),
    ("starcoder2", "starcoder", "Starcoder2Config", "Starcoder2Model", LLAMA, MASKED),
    ("mixtral", "routed", "MixtralConfig", "MixtralModel", {**LLAMA, "num_local_experts": 3, "num_experts_per_tok": 2}, MASKED),
    ("qwen2_moe", "routed", "Qwen2MoeConfig", "Qwen2MoeModel", {**LLAMA, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 6, "shared_expert_intermediate_size": 6}, MASKED),
    ("switch", "routed", "SwitchTransformersConfig", "SwitchTransformersModel", {**T5, "num_experts": 3, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "expert_capacity": 16}, TWO),
    ("mamba", "mamba", "MambaConfig", "MambaModel", {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "state_size": 3, "time_step_rank": 2}, named(input_ids=ONE)),
    ("mamba2", "mamba", "Mamba2Config", "Mamba2Model", {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "state_size": 4, "num_heads": 4, "head_dim": 4, "n_groups": 2, "chunk_size": 4}, named(input_ids=ONE)),
    ("rwkv", "rwkv", "RwkvConfig", "RwkvModel", {"vocab_size": 20, "hidden_size": 8, "attention_hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 12}, named(input_ids=ONE)),
    ("recurrent_gemma", "recurrent_gemma", "RecurrentGemmaConfig", "RecurrentGemmaModel", {**LLAMA, "lru_width": 8, "attention_window_size": 4, "block_types": ["recurrent", "attention"], "conv1d_width": 2}, named(input_ids=ONE)),
    ("t5", "t5", "T5Config", "T5Model", T5, TWO),
    ("t5_encoder", "t5", "T5Config", "T5EncoderModel", {**T5, "feed_forward_proj": "gated-gelu"}, MASKED),
    ("mt5", "t5", "MT5Config", "MT5Model", T5, TWO),
    ("long_t5", "t5", "LongT5Config", "LongT5Model", {**T5, "encoder_attention_type": "transient-global", "local_radius": 2, "global_block_size": 2}, TWO),
    ("bart", "bart", "BartConfig", "BartModel", BART, TWO),
    ("mbart", "bart", "MBartConfig", "MBartModel", BART, TWO),
    ("pegasus", "pegasus", "PegasusConfig", "PegasusModel", BART, TWO),
    ("marian", "bart", "MarianConfig", "MarianModel", BART, TWO),
    ("blenderbot", "bart", "BlenderbotConfig", "BlenderbotModel", BART, TWO),
    ("led", "longformer", "LEDConfig", "LEDModel", {**BART, "attention_window": [4], "max_encoder_position_embeddings": 16, "max_decoder_position_embeddings": 16}, named(input_ids=tokens(20, 8, 3), decoder_input_ids=tokens(20, 5, 3))),
    ("m2m_100", "bart", "M2M100Config", "M2M100Model", BART, TWO),
    ("prophetnet", "prophetnet", "ProphetNetConfig", "ProphetNetModel", {"vocab_size": 20, "hidden_size": 8, "num_encoder_layers": 1, "num_decoder_layers": 1, "num_encoder_attention_heads": 2, "num_decoder_attention_heads": 2, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "max_position_embeddings": 16, "num_buckets": 4, "relative_max_distance": 8}, TWO),
    ("vit", "hf_vit", "ViTConfig", "ViTModel", VISION, PIXELS),
    ("deit", "hf_vit", "DeiTConfig", "DeiTModel", VISION, PIXELS),
    ("beit", "hf_beit", "BeitConfig", "BeitModel", {**VISION, "use_relative_position_bias": True, "use_shared_relative_position_bias": False, "use_mask_token": False}, PIXELS),
    ("dinov2", "hf_dinov2", "Dinov2Config", "Dinov2Model", VISION, PIXELS),
    ("dinov3", "hf_dinov3", "DINOv3ViTConfig", "DINOv3ViTModel", VISION, PIXELS),
    ("vit_mae_like", "hf_vit", "ViTMSNConfig", "ViTMSNModel", VISION, PIXELS),
    ("hiera", "hf_hiera", "HieraConfig", "HieraModel", {"embed_dim": 8, "image_size": [32, 32], "depths": [1, 1], "num_heads": [1, 2], "masked_unit_size": [4, 4], "query_stride": [2, 2], "num_query_pool": 1}, named(pixel_values=images(32))),
    ("swin", "hf_swin", "SwinConfig", "SwinModel", {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 4}, PIXELS),
    ("swinv2", "hf_swin", "Swinv2Config", "Swinv2Model", {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 2], "window_size": 4}, PIXELS),
    ("segformer", "segformer", "SegformerConfig", "SegformerForSemanticSegmentation", {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [8, 8], "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2], "decoder_hidden_size": 8}, named(pixel_values=images(32))),
    ("glpn", "segformer", "GLPNConfig", "GLPNForDepthEstimation", {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 8, 8], "decoder_hidden_size": 8, "num_attention_heads": [1, 1, 2, 2], "mlp_ratios": [2, 2, 2, 2]}, named(pixel_values=images(64))),
    ("convnext", "hf_convnext", "ConvNextConfig", "ConvNextModel", {"hidden_sizes": [8, 8], "depths": [1, 1], "num_stages": 2}, named(pixel_values=images(32))),
    ("convnextv2", "hf_convnext", "ConvNextV2Config", "ConvNextV2Model", {"hidden_sizes": [8, 8], "depths": [1, 1], "num_stages": 2}, named(pixel_values=images(32))),
    ("resnet", "hf_resnet", "ResNetConfig", "ResNetModel", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, named(pixel_values=images(32))),
    ("regnet", "hf_regnet", "RegNetConfig", "RegNetModel", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 4}, named(pixel_values=images(32))),
    ("levit", "hf_levit", "LevitConfig", "LevitModel", {"image_size": 64, "hidden_sizes": [16, 24], "num_attention_heads": [2, 3], "depths": [1, 1], "key_dim": [8, 8], "drop_path_rate": 0, "mlp_ratio": [2, 2], "attention_ratio": [2, 2], "down_ops": [["Subsample", 8, 2, 4, 2, 2], [""]]}, named(pixel_values=images(64))),
    ("mobilevit", "hf_mobilevit", "MobileViTConfig", "MobileViTModel", {"image_size": 64, "hidden_sizes": [8, 12, 16], "neck_hidden_sizes": [4, 4, 8, 8, 8, 8, 16], "num_attention_heads": 2}, named(pixel_values=images(64))),
    ("mobilenet_v2", "hf_mobilenet", "MobileNetV2Config", "MobileNetV2Model", {"depth_multiplier": 0.1, "min_depth": 4, "depth_divisible_by": 4}, named(pixel_values=images(32))),
    ("poolformer", "hf_poolformer", "PoolFormerConfig", "PoolFormerModel", {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}, named(pixel_values=images(32))),
    ("pvt", "hf_pvt", "PvtConfig", "PvtModel", {"image_size": 32, "num_encoder_blocks": 2, "depths": [1, 1], "sequence_reduction_ratios": [2, 1], "hidden_sizes": [8, 8], "patch_sizes": [4, 2], "strides": [4, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2]}, named(pixel_values=images(32))),
    ("focalnet", "hf_focalnet", "FocalNetConfig", "FocalNetModel", {"image_size": 16, "patch_size": 2, "embed_dim": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "focal_levels": [2, 2], "focal_windows": [3, 3]}, PIXELS),
    ("dpt", "dpt", "DPTConfig", "DPTModel", {**VISION, "backbone_out_indices": [0, 0, 1, 1]}, PIXELS),
    ("wav2vec2", "speech", "Wav2Vec2Config", "Wav2Vec2Model", SPEECH, named(input_values=values(120))),
    ("hubert", "speech", "HubertConfig", "HubertModel", SPEECH, named(input_values=values(120))),
    ("wavlm", "speech", "WavLMConfig", "WavLMModel", {**SPEECH, "num_buckets": 8, "max_bucket_distance": 16}, named(input_values=values(120))),
    ("sew", "speech", "SEWConfig", "SEWModel", {**SPEECH, "squeeze_factor": 2}, named(input_values=values(120))),
    ("conformer", "speech", "Wav2Vec2ConformerConfig", "Wav2Vec2ConformerModel", {**SPEECH, "position_embeddings_type": "relative", "conv_depthwise_kernel_size": 3}, named(input_values=values(120))),
    ("whisper", "whisper", "WhisperConfig", "WhisperModel", {**BART, "num_mel_bins": 4, "max_source_positions": 8, "max_target_positions": 16}, named(input_features=values(4, 16), decoder_input_ids=tokens(20, 5, 3))),
    ("speech_to_text", "speech", "Speech2TextConfig", "Speech2TextModel", {**BART, "input_feat_per_channel": 4, "conv_channels": 8, "max_source_positions": 32, "max_target_positions": 16}, named(input_features=values(16, 4), decoder_input_ids=tokens(20, 5, 3))),
    ("audio_spectrogram", "speech", "ASTConfig", "ASTModel", {**VISION, "num_mel_bins": 16, "max_length": 16, "patch_size": 8, "time_stride": 8, "frequency_stride": 8}, named(input_values=values(16, 16))),
    ("timesformer", "video_transformer", "TimesformerConfig", "TimesformerModel", {**VISION, "num_frames": 2}, named(pixel_values=values(2, 3, 16, 16))),
    ("vivit", "video_transformer", "VivitConfig", "VivitModel", {**VISION, "num_frames": 4, "tubelet_size": [2, 8, 8]}, named(pixel_values=values(4, 3, 16, 16))),
    ("videomae", "video_transformer", "VideoMAEConfig", "VideoMAEModel", {**VISION, "num_frames": 4}, named(pixel_values=values(4, 3, 16, 16))),
    ("clip_vision", "clip", "CLIPVisionConfig", "CLIPVisionModel", VISION, PIXELS),
    ("clip_text", "clip", "CLIPTextConfig", "CLIPTextModel", TEXT, MASKED),
    ("siglip_vision", "clip", "SiglipVisionConfig", "SiglipVisionModel", VISION, PIXELS),
    ("blip_vision", "clip", "BlipVisionConfig", "BlipVisionModel", VISION, PIXELS),
    ("vilt", "vilt", "ViltConfig", "ViltModel", {**TEXT, **VISION, "max_image_length": -1}, named(input_ids=ONE, pixel_values=images(16))),
    ("visual_bert", "visual_bert", "VisualBertConfig", "VisualBertModel", {**TEXT, "visual_embedding_dim": 5}, named(input_ids=ONE, visual_embeds=values(3, 5))),
    ("lxmert", "lxmert", "LxmertConfig", "LxmertModel", {**TEXT, "l_layers": 1, "x_layers": 1, "r_layers": 1, "visual_feat_dim": 5, "visual_pos_dim": 4}, named(input_ids=ONE, visual_feats=values(3, 5), visual_pos=values(3, 4))),
    ("perceiver", "hf_perceiver", "PerceiverConfig", "PerceiverModel", {"num_latents": 4, "d_latents": 8, "d_model": 8, "num_blocks": 1, "num_self_attends_per_block": 1, "num_self_attention_heads": 2, "num_cross_attention_heads": 2}, named(inputs=values(6, 8))),
    ("layoutlm", "layoutlm", "LayoutLMConfig", "LayoutLMModel", {**TEXT, "max_2d_position_embeddings": 32}, named(input_ids=ONE, bbox=lambda b: (torch.arange(4) + torch.arange(6)[:, None]).expand(b, 6, 4) + torch.arange(b)[:, None, None])),
    ("decision_transformer", "decision_transformer", "DecisionTransformerConfig", "DecisionTransformerModel", {"state_dim": 3, "act_dim": 2, "hidden_size": 8, "n_layer": 1, "n_head": 2, "max_ep_len": 8}, named(states=values(4, 3), actions=values(4, 2), rewards=values(4, 1), returns_to_go=values(4, 1), timesteps=tokens(8, 4))),
    ("time_series", "time_series", "PatchTSTConfig", "PatchTSTModel", {"num_input_channels": 2, "context_length": 8, "patch_length": 2, "patch_stride": 2, "d_model": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "ffn_dim": 12}, named(past_values=values(8, 2))),
    ("time_series_mixer", "time_series", "PatchTSMixerConfig", "PatchTSMixerModel", {"num_input_channels": 2, "context_length": 8, "patch_length": 2, "patch_stride": 2, "d_model": 4, "num_layers": 1}, named(past_values=values(8, 2))),
    ("esm", "esm", "EsmConfig", "EsmModel", {**TEXT, "position_embedding_type": "rotary", "mask_token_id": 3}, named(input_ids=tokens(20, 6, 4))),
    ("detr", "detr", "DetrConfig", "DetrModel", {**BART, "num_queries": 3, "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "backbone_config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "out_features": ["stage2"]}}, named(pixel_values=images(32))),
    ("conditional_detr", "detr", "ConditionalDetrConfig", "ConditionalDetrModel", {**BART, "num_queries": 3, "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "backbone_config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "out_features": ["stage2"]}}, named(pixel_values=images(32))),
    ("mgp_str", "mgp_str", "MgpstrConfig", "MgpstrModel", {**VISION, "image_size": [16, 16], "patch_size": 8, "num_character_labels": 5, "num_bpe_labels": 5, "num_wordpiece_labels": 5, "max_token_length": 3}, PIXELS),
    ("vits_like", "univnet", "UnivNetConfig", "UnivNetModel", {"model_in_channels": 4, "model_hidden_channels": 4, "num_mel_bins": 4, "resblock_kernel_sizes": [3], "resblock_stride_sizes": [2], "resblock_dilation_sizes": [[1]], "kernel_predictor_num_blocks": 1, "kernel_predictor_hidden_channels": 4}, named(input_features=values(5, 4), noise_sequence=values(5, 4))),
    ("hifigan", "vocoder", "SpeechT5HifiGanConfig", "SpeechT5HifiGan", {"model_in_dim": 4, "upsample_initial_channel": 8, "upsample_rates": [2, 2], "upsample_kernel_sizes": [4, 4], "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1]]}, named(spectrogram=values(5, 4))),
    ("encodec_like", "codec", "DacConfig", "DacModel", {"encoder_hidden_size": 4, "downsampling_ratios": [2, 2], "decoder_hidden_size": 8, "upsampling_ratios": [2, 2], "n_codebooks": 2, "codebook_size": 8, "codebook_dim": 2, "hidden_size": 8}, named(input_values=values(1, 16))),
]  # fmt: skip


def networks() -> list[Network]:
    """All of them; many compute a norm or a softmax in float32 whatever the model's precision."""
    return [
        Network(
            f"hf_{name}", family, partial(model, config, kind, options), inputs, None, energy,
            batches=(4, 6), train=name == "rwkv", packages=("transformers",), tolerance=1e-5, largest=60_000,
        )
        for name, family, config, kind, options, inputs in NETWORKS
    ]  # fmt: skip
