"""Writes a BERT encoder as an ONNX graph, node by node, in fp32 or dynamic int8.

Nothing here is traced from a framework: the graph is the formula. Only operators
of the standard ONNX domain are used (opset 17), so any runtime can load the files;
ONNX Runtime fuses the int8 pattern below into its own integer kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 9

# Added to the attention score of a masked token. exp() of it is exactly 0 in fp32,
# and a row whose mask is all 0 still gives numbers, not NaN.
MASKED = -1e9


@dataclass(frozen=True)
class Shape:
    """The sizes that a BERT configuration names."""

    hidden: int
    heads: int
    layers: int
    norm_eps: float = 1e-12

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads


class Graph:
    """Collects nodes and weights; the methods return the name of the value they made."""

    def __init__(self, quantize: bool):
        self.quantize = quantize
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._names: set[str] = set()
        self._quantized: dict[str, tuple[str, str, str]] = {}

    def weight(self, name: str, value) -> str:
        """Stores a constant under `name`; the same name twice is the same constant."""
        if name not in self._names:
            self._names.add(name)
            # asarray, not ascontiguousarray: the latter turns a scalar into one dimension.
            self.weights.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def op(self, kind: str, inputs: list[str], name: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def ints(self, *values: int) -> str:
        return self.weight("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        return self.weight(f"scalar_{value:g}", np.array(value, np.float32))

    # -- the two places where int8 differs from fp32 -----------------------------

    def linear(self, x: str, name: str, matrix: np.ndarray, bias: np.ndarray) -> str:
        """x @ matrix + bias, with matrix as [in, out]."""
        bias_name = self.weight(name + ".bias", bias.astype(np.float32))
        if not self.quantize:
            product = self.op("MatMul", [x, self.weight(name + ".weight", matrix)], name + ".matmul")
            return self.op("Add", [product, bias_name], name)

        values, scale = quantize_columns(matrix)
        x_int, x_scale, x_zero = self._quantized_activation(x)
        product = self.op(
            "MatMulInteger", [x_int, self.weight(name + ".weight", values), x_zero], name + ".matmul"
        )
        scales = self.op("Mul", [x_scale, self.weight(name + ".scale", scale)], name + ".scales")
        as_float = self.op("Cast", [product], name + ".float", to=TensorProto.FLOAT)
        scaled = self.op("Mul", [as_float, scales], name + ".scaled")
        return self.op("Add", [scaled, bias_name], name)

    def lookup(self, ids: str, name: str, table: np.ndarray) -> str:
        """Rows of an embedding table; in int8 each row of the table has its own scale."""
        if not self.quantize:
            return self.op("Gather", [self.weight(name + ".weight", table), ids], name)
        values, scale = quantize_rows(table)
        rows = self.op("Gather", [self.weight(name + ".weight", values), ids], name + ".rows")
        scales = self.op("Gather", [self.weight(name + ".scale", scale), ids], name + ".scales")
        as_float = self.op("Cast", [rows], name + ".float", to=TensorProto.FLOAT)
        return self.op("Mul", [as_float, scales], name)

    def _quantized_activation(self, x: str) -> tuple[str, str, str]:
        if x not in self._quantized:
            names = (x + ".int", x + ".scale", x + ".zero")
            self.nodes.append(
                helper.make_node("DynamicQuantizeLinear", [x], list(names), name=x + ".quantize")
            )
            self._quantized[x] = names
        return self._quantized[x]

    # -- the blocks of BERT ------------------------------------------------------

    def layer_norm(self, x: str, name: str, gain: np.ndarray, bias: np.ndarray, eps: float) -> str:
        inputs = [x, self.weight(name + ".gain", gain), self.weight(name + ".bias", bias)]
        return self.op("LayerNormalization", inputs, name, axis=-1, epsilon=eps)

    def gelu(self, x: str) -> str:
        """The exact GELU, x/2 * (1 + erf(x/sqrt 2)), in the form that runtimes recognise."""
        inner = self.op("Div", [x, self.weight("sqrt_2", np.array(np.sqrt(2.0), np.float32))], x + ".div")
        erf = self.op("Erf", [inner], x + ".erf")
        plus = self.op("Add", [erf, self.scalar(1.0)], x + ".plus")
        times = self.op("Mul", [x, plus], x + ".times")
        return self.op("Mul", [times, self.scalar(0.5)], x + ".gelu")

    def embeddings(self, w: dict[str, np.ndarray], shape: Shape) -> str:
        words = self.lookup("input_ids", "embeddings.words", w["embeddings.word_embeddings.weight"])
        types = self.op(
            "Gather",
            [self.weight("embeddings.types.weight", w["embeddings.token_type_embeddings.weight"]), "token_type_ids"],
            "embeddings.types",
        )
        length = self.op("Shape", ["input_ids"], "tokens", start=1, end=2)
        places = self.weight("embeddings.places.weight", w["embeddings.position_embeddings.weight"])
        places = self.op("Slice", [places, self.ints(0), length, self.ints(0)], "embeddings.places")
        total = self.op("Add", [words, types], "embeddings.words_and_types")
        total = self.op("Add", [total, places], "embeddings.sum")
        return self.layer_norm(
            total, "embeddings.norm", w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"], shape.norm_eps
        )

    def attention_bias(self) -> str:
        """0 for a token, MASKED for padding, as [rows, 1, 1, tokens]."""
        mask = self.op("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        absent = self.op("Sub", [self.scalar(1.0), mask], "mask.absent")
        bias = self.op("Mul", [absent, self.scalar(MASKED)], "mask.bias")
        return self.op("Unsqueeze", [bias, self.ints(1, 2)], "mask.broadcast")

    def first_token(self, x: str) -> str:
        """[rows, tokens, size] as [rows, 1, size]: [CLS], which stands first in every row."""
        return self.op("Slice", [x, self.ints(0), self.ints(1), self.ints(1)], x + ".first")

    def attention(self, asking: str, x: str, bias: str, layer: str, w: dict[str, np.ndarray], shape: Shape) -> str:
        """What the tokens `asking` take from those of `x`; as many tokens as `asking` has."""

        def project(x: str, which: str, axes: list[int]) -> str:
            name = f"{layer}.{which}"
            matrix = w[f"{layer}.attention.self.{which}.weight"].T
            vector = w[f"{layer}.attention.self.{which}.bias"]
            flat = self.linear(x, name, matrix, vector)
            parts = self.op("Reshape", [flat, self.ints(0, 0, shape.heads, shape.head_size)], name + ".heads")
            return self.op("Transpose", [parts], name + ".t", perm=axes)

        query = project(asking, "query", [0, 2, 1, 3])
        key = project(x, "key", [0, 2, 3, 1])
        value = project(x, "value", [0, 2, 1, 3])
        scores = self.op("MatMul", [query, key], f"{layer}.scores")
        root = self.weight("sqrt_head_size", np.array(np.sqrt(shape.head_size), np.float32))
        scores = self.op("Div", [scores, root], f"{layer}.scores.scaled")
        scores = self.op("Add", [scores, bias], f"{layer}.scores.masked")
        shares = self.op("Softmax", [scores], f"{layer}.shares", axis=-1)
        mixed = self.op("MatMul", [shares, value], f"{layer}.mixed")
        mixed = self.op("Transpose", [mixed], f"{layer}.mixed.t", perm=[0, 2, 1, 3])
        mixed = self.op("Reshape", [mixed, self.ints(0, 0, shape.hidden)], f"{layer}.mixed.flat")
        out = f"{layer}.attention.output"
        return self.linear(mixed, out, w[out + ".dense.weight"].T, w[out + ".dense.bias"])

    def encoder(self, w: dict[str, np.ndarray], shape: Shape, first_token_only: bool = False) -> str:
        """The last hidden state, [rows, tokens, hidden]; or that of [CLS], [rows, 1, hidden].

        Tokens meet in attention alone, so the last layer's [CLS] needs no other token of
        that layer: all of it but keys and values is then computed for one token a row.
        """
        x = self.embeddings(w, shape)
        bias = self.attention_bias()
        for index in range(shape.layers):
            layer = f"encoder.layer.{index}"
            last = index == shape.layers - 1
            asking = self.first_token(x) if first_token_only and last else x

            def norm(total: str, where: str) -> str:
                at = f"{layer}.{where}.LayerNorm"
                return self.layer_norm(total, at, w[at + ".weight"], w[at + ".bias"], shape.norm_eps)

            attended = self.attention(asking, x, bias, layer, w, shape)
            x = norm(self.op("Add", [attended, asking], f"{layer}.attention.sum"), "attention.output")
            wide = f"{layer}.intermediate"
            inner = self.linear(x, wide, w[wide + ".dense.weight"].T, w[wide + ".dense.bias"])
            narrow = f"{layer}.output"
            outer = self.linear(self.gelu(inner), narrow, w[narrow + ".dense.weight"].T, w[narrow + ".dense.bias"])
            x = norm(self.op("Add", [outer, x], f"{layer}.sum"), "output")
        return x

    # -- the heads ---------------------------------------------------------------

    def sentence_embedding(self, hidden: str, size: int) -> None:
        """Mean over the tokens that the mask names, then the same at length 1."""
        mask = self.op("Unsqueeze", ["mask", self.ints(2)], "mask.column")
        kept = self.op("Mul", [hidden, mask], "pooling.kept")
        total = self.op("ReduceSum", [kept, self.ints(1)], "pooling.total", keepdims=0)
        count = self.op("ReduceSum", [mask, self.ints(1)], "pooling.count", keepdims=0)
        count = self.op("Max", [count, self.scalar(1e-9)], "pooling.count.positive")
        pooled = self.op("Div", [total, count], "pooled_embedding")
        length = self.op("ReduceL2", [pooled], "pooling.length", axes=[1], keepdims=1)
        length = self.op("Max", [length, self.scalar(1e-12)], "pooling.length.positive")
        self.op("Div", [pooled, length], "sentence_embedding")
        for name in ("sentence_embedding", "pooled_embedding"):
            self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size]))

    def logits(self, hidden: str, w: dict[str, np.ndarray]) -> None:
        """[CLS] -> dense and tanh -> one number a row."""
        first = self.op("Gather", [hidden, self.weight("first", np.array(0, np.int64))], "cls", axis=1)
        dense = self.linear(first, "pooler.dense", w["pooler.dense.weight"].T, w["pooler.dense.bias"])
        pooled = self.op("Tanh", [dense], "pooler")
        weight = self.weight("classifier.weight", np.ascontiguousarray(w["classifier.weight"].T))
        product = self.op("MatMul", [pooled, weight], "classifier.matmul")
        self.op("Add", [product, self.weight("classifier.bias", w["classifier.bias"])], "logits")
        self.outputs.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 1]))

    def build(self, name: str, about: str) -> bytes:
        inputs = [
            helper.make_tensor_value_info(i, TensorProto.INT64, ["rows", "tokens"])
            for i in ("input_ids", "attention_mask", "token_type_ids")
        ]
        graph = helper.make_graph(self.nodes, name, inputs, self.outputs, self.weights)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="rerankd-export",
            doc_string=about,
        )
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)


def quantize_columns(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[in, out] as int8, symmetric, one scale a column: a column is one output of the layer."""
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-12).astype(np.float32) / np.float32(127)
    return np.rint(matrix / scale).astype(np.int8), scale


def quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[rows, size] as int8, symmetric, one scale a row."""
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-12).astype(np.float32) / np.float32(127)
    return np.rint(table / scale).astype(np.int8), scale
