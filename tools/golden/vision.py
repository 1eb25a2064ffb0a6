#!/usr/bin/env python3
"""Make the tiny golden vision models: one seeded checkpoint per family and library, with f64 reference outputs.

    pip install torch timm transformers safetensors numpy
    python tools/golden/vision.py crates/testkit/tests/data/vision

Each folder holds `config.json` and `model.safetensors` (f32, as the library writes them), `preprocessor_config.json` where the
library has one, and `reference.safetensors`: `pixel_values` and every output, computed in f64 by the library.
"""
import copy
import json
import pathlib
import sys

import timm
import torch
import transformers as tf
from safetensors.torch import save_file
from timm.models import mobilenetv3
from timm.models._hub import save_for_hf
from timm.utils.model import reparameterize_model

CLASSES = 10


def lively(model):
    """Random values of every parameter and statistic, so that none can be left out unnoticed."""
    random = torch.Generator().manual_seed(1)
    draw = lambda like: torch.randn(like.shape, generator=random)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(draw(buffer) * 0.1)
            if name.endswith("running_var"):
                buffer.copy_(torch.rand(buffer.shape, generator=random) + 0.5)
        for name, p in model.named_parameters():
            if p.ndim == 1 or "gamma" in name:
                p.copy_(draw(p) * 0.1 + (0.8 if name.endswith(("weight", "gamma")) else 0.0))
            else:
                p.copy_(draw(p) / max(p[0].numel(), 1) ** 0.5)
    return model.eval()


def timm_models():
    fastvit = dict(embed_dims=(8, 8, 16, 32), layers=(1, 1, 1, 1), mlp_ratios=(2,) * 4, num_classes=CLASSES)
    yield "timm-fastvit", timm.create_model("fastvit_sa12", **fastvit), 64
    yield "timm-fastvit-folded", reparameterize_model(lively(timm.create_model("fastvit_sa12", **fastvit))), 64
    resnet = dict(layers=(1, 1, 1, 1), channels=(4, 4, 8, 8), stem_width=8, num_classes=CLASSES)
    yield "timm-resnet", timm.create_model("seresnet50", **resnet), 64
    yield "timm-resnet-d", timm.create_model("resnet18d", **resnet), 64
    mobile = mobilenetv3._gen_mobilenet_v3("mobilenetv3_small_100", 0.1, num_classes=CLASSES)
    mobile.conv_head = torch.nn.Conv2d(mobile.conv_head.in_channels, 16, 1)
    mobile.classifier = torch.nn.Linear(16, CLASSES)
    yield "timm-mobilenet-v3", mobile, 64
    vit = dict(embed_dim=32, depth=2, num_heads=2, img_size=32, num_classes=CLASSES)
    yield "timm-vit", timm.create_model("vit_small_patch14_reg4_dinov2", **vit, patch_size=8, init_values=0.5), 32


def transformers_models():
    vit = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32,
               patch_size=8, num_labels=CLASSES)
    processor = tf.ViTImageProcessor(size={"height": 32, "width": 32})
    yield "hf-vit", tf.ViTForImageClassification(tf.ViTConfig(**vit)), (32, 32), processor
    yield "hf-vit-features", tf.ViTModel(tf.ViTConfig(**vit)), (32, 32), processor
    resnet = dict(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 2])
    labels = {i: f"kind {i}" for i in range(CLASSES)}
    model = tf.ResNetForImageClassification(tf.ResNetConfig(**resnet, id2label=labels))
    yield "hf-resnet", model, (64, 64), tf.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875)
    detr = tf.DetrConfig(use_timm_backbone=False, backbone_config=tf.ResNetConfig(**resnet, out_features=["stage2"]),
                         d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                         decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=6,
                         num_labels=CLASSES)
    yield "hf-detr", tf.DetrForObjectDetection(detr), (56, 72), tf.DetrImageProcessor()


def reference(folder, model, size, outputs):
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        made = copy.deepcopy(model).double()(x.double())
    made = {name: made if isinstance(made, torch.Tensor) else getattr(made, name) for name in outputs}
    save_file({"pixel_values": x, **{name: y.contiguous() for name, y in made.items()}}, folder / "reference.safetensors")


def main():
    torch.manual_seed(0)
    root = pathlib.Path(sys.argv[1])
    for name, model, side in timm_models():
        folder = root / name
        if "folded" not in name:
            lively(model)
        model.eval()
        save_for_hf(model, folder, safe_serialization=True)
        config = json.loads((folder / "config.json").read_text())
        config["pretrained_cfg"].update(input_size=[3, side, side])
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        reference(folder, model, (side, side), ["logits" if model.num_classes else "features"])
    for name, model, size, processor in transformers_models():
        folder = root / name
        lively(model).save_pretrained(folder)
        processor.save_pretrained(folder)
        kind = type(model).__name__
        outputs = {"ViTModel": ["last_hidden_state", "pooler_output"], "DetrForObjectDetection": ["logits", "pred_boxes"]}
        reference(folder, model, size, outputs.get(kind, ["logits"]))


if __name__ == "__main__":
    main()
