"""The model as each peer wants to find it: the same weights, in folders of their kind.

The graph is that of an exporter, which is what a model hub has and peers load. rerankd's own folder has the last
layer for [CLS] alone, a step of its import (models/export/cls_only.py)."""

import json
import os
import pathlib
import shutil

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
PRECISIONS = ("fp32", "int8")
MAX_TOKENS = 512

CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "attention_probs_dropout_prob": 0.1,
    "classifier_dropout": None,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 384,
    "id2label": {"0": "LABEL_0"},
    "initializer_range": 0.02,
    "intermediate_size": 1536,
    "label2id": {"LABEL_0": 0},
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 6,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}
SPECIAL = {
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}
TOKENIZER = {
    **SPECIAL,
    "do_lower_case": True,
    "model_max_length": MAX_TOKENS,
    "strip_accents": None,
    "tokenize_chinese_chars": True,
    "tokenizer_class": "BertTokenizer",
}


def prepare(into):
    """Writes a folder for each precision below `into`; returns them by precision."""
    return {precision: folder(into, precision) for precision in PRECISIONS}


def folder(into, precision):
    source = REPOSITORY / "models" / f"bench-cross-encoder-as-exported-{precision}"
    made = into / f"bench-cross-encoder-{precision}"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    for name in ("model.onnx", "tokenizer.json"):
        place(source / name, made / name)
    for name, content in (
        ("config.json", CONFIG),
        ("tokenizer_config.json", TOKENIZER),
        ("special_tokens_map.json", SPECIAL),
    ):
        (made / name).write_text(json.dumps(content, indent=1), encoding="utf-8")
    return made


def place(source, target):
    """A second name for the file where the disk allows it, else a copy: no symbolic link, which not all follow."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
