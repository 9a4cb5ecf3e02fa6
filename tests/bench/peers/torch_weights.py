"""Writes `model.safetensors` beside `model.onnx`, the same weights under the names that transformers gives them.

    .venv/peers-torch/bin/python torch_weights.py FOLDER
"""

import pathlib
import re
import sys

import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

# What models/export/bert.py calls it, and what transformers does; tried from the top.
NAMES = (
    (r"^embeddings\.words\.", "bert.embeddings.word_embeddings."),
    (r"^embeddings\.types\.", "bert.embeddings.token_type_embeddings."),
    (r"^embeddings\.places\.", "bert.embeddings.position_embeddings."),
    (r"^embeddings\.norm\.", "bert.embeddings.LayerNorm."),
    (r"^(encoder\.layer\.\d+)\.(query|key|value)\.", r"bert.\1.attention.self.\2."),
    (r"^(encoder\.layer\.\d+\.(?:attention\.)?output)\.LayerNorm\.", r"bert.\1.LayerNorm."),
    (r"^(encoder\.layer\.\d+\.(?:attention\.output|intermediate|output))\.", r"bert.\1.dense."),
    (r"^pooler\.", "bert.pooler."),
    (r"^classifier\.", "classifier."),
)


def main(folder):
    weights = {}
    for tensor in onnx.load(folder / "model.onnx").graph.initializer:
        for ours, theirs in NAMES:
            name, replaced = re.subn(ours, theirs, tensor.name)
            if replaced:
                value = numpy_helper.to_array(tensor)
                # A graph multiplies rows by [in, out], PyTorch keeps [out, in].
                linear = value.ndim == 2 and "embeddings" not in name
                weights[name.replace(".gain", ".weight")] = (value.T if linear else value).copy()
                break
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
