"""A policy in Python that fails as its parameter `case` says."""

import json

from componentize_py_types import Err
from panics import reported
from wit_world.exports import Policy as Contract
from wit_world.imports import graph, types

MANIFEST = {
    "manifest_version": 1,
    "name": "faulty-python",
    "version": "0.1.0",
    "description": "Fails as it is told.",
    "score_kind": "blend",
    "fields": [],
    "parameters": {"type": "object", "properties": {"case": {"type": "string"}}},
}


class Policy(Contract):
    def describe(self) -> str:
        return json.dumps(MANIFEST)

    @reported
    def rerank(self, request: types.Request) -> list[types.Judgment]:
        match json.loads(request.parameters)["case"]:
            case "refuses":
                raise Err(types.Error_InvalidRequest("`case`: the policy refuses it"))
            case "internal":
                raise Err(types.Error_Internal("it does not know"))
            case "foreign-model":
                try:
                    graph.load_by_name("other")
                except Err as error:
                    raise Err(types.Error_Model(error.value.data()))
            case "throws":
                raise ValueError("no such case")
            case "loops":
                while True:
                    pass
            case "grows":
                return [bytearray(1 << 20) for _ in range(1 << 20)]
            case "recurses":
                return self.recurse()

    def recurse(self):
        return self.recurse()
