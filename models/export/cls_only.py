#!/usr/bin/env python3
"""Makes the last layer of an exported BERT-type model work for [CLS] alone.

    python models/export/cls_only.py MODEL.onnx INTO.onnx [--cls-output] [--tolerance 1e-6]

For cross-encoders, whose score is read from the first token, and for bi-encoders with
CLS pooling: nobody looks at the other tokens of the last hidden state, so all of the last
layer but its keys and values is computed for one token a row. The scores are the same; this
is checked with random inputs before anything is written. `--cls-output` is for a model whose
output is the last hidden state, of which its user takes the first token: the output keeps
that token alone, [rows, 1, hidden]. A model with mean pooling needs every token: refused.

Made for what PyTorch's exporter writes of BERT and its kin. What is not understood is refused:
a file whose attention an optimizer has fused into one operator, and one that quantizes its
activations, whose scale depends on all tokens. Start from the plain fp32 export and quantize the
result; weights alone may be int8.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

# Two sizes with no number in common with each other and with a model's own sizes: what
# is 13 in one run and 17 in the other counts tokens.
PROBES = ((3, 13), (5, 17))
ROWS, TOKENS = "rows", "tokens"

# What treats each token by itself, whatever its other inputs are.
ELEMENTWISE = {
    "Add", "Sub", "Mul", "Div", "Pow", "Where", "Max", "Min", "And", "Or", "Equal", "Erf", "Tanh", "Sqrt", "Cast",
    "Gelu", "Relu", "Sigmoid", "IsNaN", "Neg", "Identity", "Dropout", "Clip", "Reciprocal",
}  # fmt: skip
ALONG_AN_AXIS = {"Softmax", "LayerNormalization", "ReduceMean"}
FUSED = {"Attention", "MultiHeadAttention", "QAttention", "PackedAttention"}
QUANTIZING = {"DynamicQuantizeLinear", "QuantizeLinear", "MatMulInteger", "QLinearMatMul"}


class Refused(Exception):
    """The file is not of the form that is understood; the text says where it differs."""


@dataclass
class Sizes:
    """What each value's dimensions are: a number, ROWS, TOKENS, or None for anything else."""

    dims: dict[str, list]

    def token_axis(self, value: str) -> int | None:
        axes = [axis for axis, dim in enumerate(self.dims.get(value, [])) if dim == TOKENS]
        return axes[0] if len(axes) == 1 else None


class Editor:
    """One graph and what is known of it."""

    def __init__(self, model: onnx.ModelProto):
        self.model = model
        self.graph = model.graph
        self.sizes = probe(model)
        self.made_by = {output: node for node in self.graph.node for output in node.output}
        self.outputs = {output.name for output in self.graph.output}
        self.depends = {value.name for value in self.graph.input} - {w.name for w in self.graph.initializer}
        for node in self.graph.node:
            if any(value in self.depends for value in node.input):
                self.depends.update(node.output)

    # -- finding the last layer ----------------------------------------------------

    def hidden_state(self, cls_output: bool) -> str:
        """The value whose first token is all that is used."""
        if cls_output:
            found = [o for o in self.outputs if len(self.dims(o)) == 3 and self.sizes.token_axis(o) == 1]
            if len(found) != 1:
                raise Refused("no single output has the shape [rows, tokens, hidden]")
            if self.consumers(found[0]):
                raise Refused(f"`{found[0]}` is an output, but the graph computes on with it")
            return found[0]
        found = {n.input[0] for n in self.graph.node if n.op_type == "Gather" and self.takes_first_token(n)}
        if len(found) != 1:
            what = "nothing takes" if not found else "several values are asked for"
            raise Refused(
                f"{what} the first token of a hidden state [rows, tokens, hidden]: is it pooled by its mean, or cut "
                "already? (--cls-output is for a model that gives its hidden state out)"
            )
        return found.pop()

    def takes_first_token(self, node: onnx.NodeProto) -> bool:
        index = self.constant(node.input[1])
        axis = attribute(node, "axis", 0)
        return (
            index is not None
            and not index.any()
            and index.size == 1
            and len(self.dims(node.input[0])) == 3
            and self.sizes.token_axis(node.input[0]) == axis == 1
        )

    def last_attention(self, hidden: str) -> onnx.NodeProto:
        """The Softmax nearest to the hidden state."""
        before = self.ancestors(hidden)
        kinds = {node.op_type for node in before}
        if kinds & FUSED:
            raise Refused(f"its attention is fused ({', '.join(sorted(kinds & FUSED))}): start from the plain export")
        if kinds & QUANTIZING:
            raise Refused("its activations are quantized: start from the fp32 export, and quantize what comes of it")
        softmax = [n for n in before if n.op_type == "Softmax" and len(self.dims(n.input[0])) >= 3]
        if not softmax:
            raise Refused("there is no Softmax before the hidden state: not a transformer, or fused")
        return softmax[-1]  # nodes stand in the order in which they can run

    def query(self, softmax: onnx.NodeProto) -> onnx.NodeProto:
        """The linear step that makes the queries."""
        scores = self.back(softmax.input[0], lambda n: n.op_type == "MatMul", "product of queries and keys")
        return self.back(
            scores.input[0],
            lambda n: n.op_type in {"MatMul", "Gemm"} and not self.varies(n.input[1]),
            "linear step of the queries",
        )

    def back(self, value: str, wanted, name: str) -> onnx.NodeProto:
        """Backwards along the one input that has tokens, to the first node that is wanted."""
        while (node := self.made_by.get(value)) is not None:
            if wanted(node):
                return node
            if node.op_type not in ELEMENTWISE | {"Reshape", "Transpose"}:
                break
            # A mask has no weights before it; scores and queries have.
            inputs = [i for i in node.input if any(n.op_type in {"MatMul", "Gemm"} for n in self.ancestors(i))]
            inputs = [i for i in inputs if self.varies(i)]
            if not inputs:
                break
            value = inputs[0]
        where = f"`{node.op_type}` {node.name}" if node is not None else f"`{value}`"
        raise Refused(f"the {name} was not found: stopped at {where}")

    # -- the edit ------------------------------------------------------------------

    def edit(self, hidden: str) -> None:
        softmax = self.last_attention(hidden)
        linear = self.query(softmax)
        x = linear.input[0]
        if len(self.dims(x)) != 3 or self.sizes.token_axis(x) != 1:
            raise Refused(f"the input of the last layer, `{x}`, is not [rows, tokens, hidden]")
        after_softmax = self.descendants(softmax)
        residual = [n for n in self.consumers(x) if n.op_type == "Add" and id(n) in after_softmax]
        if len(residual) != 1:
            raise Refused(f"the residual sum of the last layer's attention with `{x}` was not found")
        first = self.slice_first(x, 1)
        for node in (linear, residual[0]):
            node.input[:] = [first if value == x else value for value in node.input]
        self.follow(first, hidden)
        self.sort()

    def follow(self, first: str, hidden: str) -> None:
        """Forward from the sliced value: every step must let one token pass as it lets many."""
        axis_of = {first: 1}  # value -> its axis that had all tokens and has one now
        for node in ordered(self.graph):
            on_path = [i for i in node.input if i in axis_of]
            if not on_path:
                continue
            value = on_path[0]
            axis = axis_of[value]
            kind = node.op_type
            if kind == "Gather" and value == hidden:
                continue
            if kind == "Shape":
                continue  # what is made of it is replaced, or shows in the check
            if kind in ELEMENTWISE:
                axis = self.align(node, axis_of)
            elif kind == "MatMul":
                rank = len(self.dims(value))
                if node.input[0] not in axis_of or node.input[1] in axis_of or axis != rank - 2:
                    raise Refused(f"`{kind}` {node.name} mixes tokens")
                axis = len(self.dims(node.output[0])) - 2
            elif kind in ALONG_AN_AXIS:
                along = attribute(node, "axes", [attribute(node, "axis", -1)])
                if axis in [a % len(self.dims(value)) for a in along]:
                    raise Refused(f"`{kind}` {node.name} works along the tokens")
            elif kind == "Transpose":
                axis = list(attribute(node, "perm", [])).index(axis)
            elif kind == "Reshape":
                axis = self.reshape(node)
            else:
                raise Refused(f"`{kind}` {node.name} in the last layer is not known here")
            axis_of[node.output[0]] = axis
        if hidden not in axis_of:
            raise Refused("the last layer does not lead to the hidden state")
        leaving = [v for v in axis_of if v in self.outputs and v != hidden]
        if leaving:
            raise Refused(f"the output `{leaving[0]}` shows all tokens of the last layer")
        for output in self.graph.output:
            if output.name == hidden:
                output.type.tensor_type.shape.dim[1].dim_value = 1

    def align(self, node: onnx.NodeProto, axis_of: dict[str, int]) -> int:
        """One token on all sides of an elementwise step; a mask for each token is cut to the first."""
        rank = len(self.dims(node.output[0]))
        from_end = {len(self.dims(i)) - axis_of[i] for i in node.input if i in axis_of}
        if len(from_end) != 1:
            raise Refused(f"`{node.op_type}` {node.name} mixes tokens")
        end = from_end.pop()
        for at, value in enumerate(node.input):
            dims = self.dims(value)
            if value not in axis_of and len(dims) >= end and dims[len(dims) - end] == TOKENS:
                node.input[at] = self.slice_first(value, len(dims) - end)
        return rank - end

    def reshape(self, node: onnx.NodeProto) -> int:
        """The same reshape for one token: its sizes as numbers, that of the rows left open."""
        dims = self.dims(node.output[0])
        axis = self.sizes.token_axis(node.output[0])
        open_dims = [at for at, dim in enumerate(dims) if not isinstance(dim, int) and at != axis]
        if axis is None or len(open_dims) > 1:
            raise Refused(f"`Reshape` {node.name} puts rows and tokens into one dimension")
        target = [1 if at == axis else -1 if at in open_dims else dim for at, dim in enumerate(dims)]
        node.input[1] = self.add_constant(np.array(target, np.int64))
        for at in [at for at, a in enumerate(node.attribute) if a.name == "allowzero"][::-1]:
            del node.attribute[at]
        return axis

    def slice_first(self, value: str, axis: int) -> str:
        name = f"{value}_first_of_{axis}"
        if name not in self.made_by:
            bounds = [self.add_constant(np.array([n], np.int64)) for n in (0, 1, axis)]
            node = helper.make_node("Slice", [value, *bounds], [name], name=name)
            self.graph.node.append(node)
            self.made_by[name] = node
            dims = list(self.dims(value))
            dims[axis] = 1
            self.sizes.dims[name] = dims
        return name

    def add_constant(self, value: np.ndarray) -> str:
        name = "cls_only_" + "_".join(str(n) for n in value).replace("-", "m")
        if name not in {w.name for w in self.graph.initializer}:
            self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def sort(self) -> None:
        nodes = ordered(self.graph)
        # What led to a size or a mask alone has no use any more.
        used = set(self.outputs)
        kept = []
        for node in reversed(nodes):
            if any(output in used for output in node.output):
                used.update(node.input)
                kept.append(node)
        del self.graph.node[:]
        self.graph.node.extend(reversed(kept))
        del self.graph.value_info[:]

    # -- looking things up -----------------------------------------------------------

    def dims(self, value: str) -> list:
        return self.sizes.dims.get(value, [])

    def varies(self, value: str) -> bool:
        return value in self.depends

    def consumers(self, value: str) -> list[onnx.NodeProto]:
        return [node for node in self.graph.node if value in node.input]

    def constant(self, value: str) -> np.ndarray | None:
        for weight in self.graph.initializer:
            if weight.name == value:
                return numpy_helper.to_array(weight)
        node = self.made_by.get(value)
        if node is not None and node.op_type == "Constant":
            return numpy_helper.to_array(attribute(node, "value", None))
        return None

    def ancestors(self, value: str) -> list[onnx.NodeProto]:
        wanted, found = {value}, []
        for node in reversed(self.graph.node):
            if any(output in wanted for output in node.output):
                wanted.update(node.input)
                found.append(node)
        return found[::-1]

    def descendants(self, node: onnx.NodeProto) -> set[int]:
        reached, found = set(node.output), set()
        for other in self.graph.node:
            if any(value in reached for value in other.input):
                reached.update(other.output)
                found.add(id(other))
        return found


def attribute(node: onnx.NodeProto, name: str, default):
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def ordered(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes in an order in which they can run, close to the order in which they stand."""
    made = {v.name for v in graph.input} | {w.name for w in graph.initializer} | {""}
    waiting, result = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if all(value in made for value in node.input)]
        if not ready:
            raise Refused("the graph has a cycle, or nodes with inner graphs")
        made.update(output for node in ready for output in node.output)
        done = {id(node) for node in ready}
        waiting = [node for node in waiting if id(node) not in done]
        result += ready
    return result


def session(model: onnx.ModelProto, optimize: bool = True) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def inputs(model: onnx.ModelProto, rows: int, tokens: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Random ids, some rows with padding; what is neither mask nor segment counts as ids."""
    known = {weight.name for weight in model.graph.initializer}
    table = max((w.dims[0] for w in model.graph.initializer if len(w.dims) == 2), default=1000)
    made = {}
    lengths = random.integers(max(2, tokens // 2), tokens + 1, rows)
    lengths[0] = tokens
    for value in model.graph.input:
        if value.name in known:
            continue
        if "mask" in value.name:
            made[value.name] = (np.arange(tokens) < lengths[:, None]).astype(np.int64)
        elif "type" in value.name:
            made[value.name] = np.repeat((np.arange(tokens) > tokens // 3)[None].astype(np.int64), rows, 0)
        elif "position" in value.name:
            made[value.name] = np.repeat(np.arange(tokens, dtype=np.int64)[None], rows, 0)
        else:
            made[value.name] = random.integers(5, min(table, 1000), (rows, tokens))
    return made


def probe(model: onnx.ModelProto) -> Sizes:
    """Runs the graph with two sizes, every value an output, and compares the shapes."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    names = [output for node in copy.graph.node for output in node.output if output]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    run = session(copy, optimize=False)
    random = np.random.default_rng(1)
    shapes = []
    for rows, tokens in PROBES:
        feed = inputs(model, rows, tokens, random)
        values = run.run(None, feed)
        shapes.append({**dict(zip(names, (np.shape(v) for v in values))), **{n: v.shape for n, v in feed.items()}})
    (rows_1, tokens_1), (rows_2, tokens_2) = PROBES
    kinds = {(rows_1, rows_2): ROWS, (tokens_1, tokens_2): TOKENS}
    dims = {}
    for name, one in shapes[0].items():
        pairs = zip(one, shapes[1][name])
        dims[name] = [kinds.get(pair, pair[0] if pair[0] == pair[1] else None) for pair in pairs]
    return Sizes(dims)


def rewrite(model: onnx.ModelProto, cls_output: bool = False) -> onnx.ModelProto:
    """The model with a last layer for [CLS] alone.

    Raises Refused where the pattern is not found.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    editor = Editor(made)
    editor.edit(editor.hidden_state(cls_output))
    onnx.checker.check_model(made)
    return made


def difference(one: onnx.ModelProto, other: onnx.ModelProto, cls_output: bool) -> float:
    """The largest difference of any output on random inputs, of its size where that is above 1.

    A hidden state becomes a vector of length 1 first, as it is used.
    """
    random = np.random.default_rng(2)
    sessions = session(one), session(other)
    worst = 0.0
    for rows, tokens in ((1, 2), (1, 24), (4, 24), (1, 80), (4, 80), (3, 120)):
        feed = inputs(one, rows, tokens, random)
        for whole, first in zip(*(s.run(None, feed) for s in sessions)):
            if cls_output and whole.ndim == 3:
                whole, first = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (whole[:, :1], first))
            if whole.shape != first.shape:
                raise Refused(f"an output has the shape {first.shape} instead of {whole.shape}")
            worst = max(worst, float((np.abs(whole - first) / np.maximum(np.abs(whole), 1)).max()))
    return worst


def gain(one: onnx.ModelProto, other: onnx.ModelProto) -> list[tuple[str, float, float]]:
    """Milliseconds of both for some sizes, medians of runs in turns on one thread."""
    sessions, lines = (session(one), session(other)), []
    for rows, tokens in ((1, 24), (4, 24), (1, 80), (4, 80)):
        feed = inputs(one, rows, tokens, np.random.default_rng(3))
        times: tuple[list, list] = ([], [])
        for _ in range(25):
            for run, taken in zip(sessions, times):
                started = time.perf_counter()
                run.run(None, feed)
                taken.append((time.perf_counter() - started) * 1000)
        lines.append((f"{tokens} tokens x {rows}", *(statistics.median(taken) for taken in times)))
    return lines


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model", type=Path, metavar="MODEL.onnx")
    arguments.add_argument("into", type=Path, metavar="INTO.onnx")
    arguments.add_argument("--cls-output", action="store_true", help="the last hidden state is the output")
    arguments.add_argument("--tolerance", type=float, default=1e-6, help="how far a score may move (1e-6)")
    options = arguments.parse_args()
    whole = onnx.load(options.model)
    try:
        first = rewrite(whole, options.cls_output)
        apart = difference(whole, first, options.cls_output)
        if apart > options.tolerance:
            raise Refused(
                f"scores move by {apart:.1e}, more than {options.tolerance:.0e} "
                "(--tolerance 1e-5 allows what is still rounding of fp32)"
            )
    except Refused as reason:
        sys.exit(f"{options.model}: {reason}")
    onnx.save(first, options.into)
    print(f"{options.into}: scores move by at most {apart:.1e}")
    for size, before, after in gain(whole, first):
        print(f"  {size}: {before:.2f} ms -> {after:.2f} ms, {1 - after / before:.0%} less")


if __name__ == "__main__":
    main()
