#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets, fuzz/seeds/TARGET/*, anew from the recorded messages, the
scenarios, the cases and the manifests of this checkout. What fuzzing found beside them (`make fuzz-minimize`)
has names of 40 hex digits and is left alone."""

import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
SEEDS = ROOT / "fuzz" / "seeds"
MOST_BYTES = 6 << 10


def main():
    for target, seeds in {"wire": wire(), "artifact": artifact(), "manifest": manifest()}.items():
        folder = SEEDS / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if not re.fullmatch(r"[0-9a-f]{40}", old.name):
                old.unlink()
        known, number = set(), 0
        for name, content in seeds:
            if content in known or len(content) > MOST_BYTES:
                continue
            known.add(content)
            (folder / f"{number:03}-{slug(name)}").write_bytes(content)
            number += 1
        print(f"{target}: {number} seeds, {sum(map(len, known))} bytes")


def slug(name):
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]


def wire():
    fixtures = ROOT / "host" / "wire" / "fixtures"
    for path in sorted(fixtures.glob("*/*.request.json")):
        yield path.parent.name + " " + path.name.split(".")[0], b"b0" + path.read_bytes()
        yield path.parent.name + " " + path.name.split(".")[0] + " partial", b"b1" + path.read_bytes()
    hits = (ROOT / "tests" / "fixtures" / "elasticsearch" / "odd-sources.json").read_bytes()
    yield "hits odd sources", b'b0{"query":"q","response":' + hits + b"}"
    answer = json.dumps(engine_answer(7), separators=(",", ":")).encode()
    pretty = json.dumps(engine_answer(3), indent=2).encode()
    several = json.dumps({"took": 3, "responses": [engine_answer(4), {"error": {"reason": "no"}, "status": 400}]})
    for scenario in json.loads((ROOT / "tests" / "scenarios" / "search.json").read_text()):
        query = scenario.get("query", "")
        options = scenario.get("options", {})
        body = scenario.get("body")
        headers = {**scenario.get("headers", {}), **options.get("headers", {})}
        lines = [f"{name}: {value}" for name, value in headers.items()]
        query = "&".join(filter(None, [query, options.get("query")]))
        path = scenario["path"]
        if "lines" in scenario:
            texts = [json.dumps(line, separators=(",", ":")) + "\n" for line in scenario["lines"]]
            if options.get("ext"):
                continue
            parts = [query, "\n".join(lines), "".join(texts), several, json.dumps({"responses": [engine_answer(2)]})]
            yield scenario["name"], b"m0" + b"\xff".join(part.encode() for part in parts)
            continue
        if options.get("ext") is not None and isinstance(body, dict):
            body = {**body, "ext": {"rerankd": options["ext"]}}
        text = scenario.get("text", "" if body is None else json.dumps(body, separators=(",", ":")))
        parts = [query.encode(), "\n".join(lines).encode(), text.encode(), answer, path.encode()]
        yield scenario["name"], b"s0" + b"\xff".join(parts)
    search = b'{"query":{"match":{"title":"shoe"}},"_source":["sku"],"size":3,"from":1}'
    for choice in range(0, 256, 13):
        parts = [b"", b"", search, pretty, b"/products/_search"]
        yield f"choice {choice}", b"s" + bytes([choice]) + b"\xff".join(parts)


def engine_answer(count):
    hits = [
        {
            "_index": "products",
            "_id": str(number),
            "_score": 9.5 - number,
            "_source": {"title": f"garden shoe {number}", "brand": {"name": "x"}, "sizes": [38, 39]},
        }
        for number in range(count)
    ]
    if count > 5:
        hits[5]["fields"] = {"sku": ["a-1"], "brand.name": ["y"]}
        hits[4]["_score"] = None
        hits[3]["ignored_field_values"] = {"price": ["none"]}
        del hits[2]["_source"]
    return {
        "took": 2,
        "timed_out": False,
        "_shards": {"total": 1, "successful": 1, "failed": 0},
        "hits": {"total": {"value": count, "relation": "eq"}, "max_score": 9.5, "hits": hits},
        "status": 200,
    }


def leb128(value):
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


EMPTY = b"\0asm\x0d\0\1\0"
MODULE = b"\0asm\1\0\0\0"


def section(kind, content):
    return bytes([kind]) + leb128(len(content)) + content


def name(text):
    return leb128(len(text)) + text.encode()


def custom(title, content):
    return section(0, name(title) + content)


def artifact():
    for path in sorted((ROOT / "guest" / "policies").glob("*/cases/*.json")):
        yield "cases " + path.stem, b"c" + path.read_bytes()
        yield "with cases " + path.stem, b"w" + path.read_bytes() + b"\xff" + EMPTY
        yield "component with cases " + path.stem, b"x" + EMPTY + custom("rerank:cases", path.read_bytes())
    page = (ROOT / "docs" / "cases.md").read_text()
    for number, block in enumerate(re.findall(r"```json\n(.*?)```", page, re.S)):
        yield f"cases of the page {number}", b"c" + block.encode()
    expectations = {
        "order": '{"order":["b","a"],"top":["b"],"before":[["b","a"]],"unscored":[],"filtered":[]}',
        "scores": '{"scores":{"a":0.8,"0":{"min":0.5,"max":1},"b":{"is":0.2,"tolerance":0.01}},"status":"partial"}',
        "positions": '{"order":[1,0],"before":[[1,0]],"unscored":[0]}',
        "error": '{"error":"unknown parameter"}',
        "failed": '{"status":"failed"}',
        "unknown": '{"moon":1}',
    }
    for title, expect in expectations.items():
        case = '{"cases":[{"name":"n","request":{"query":"q","documents":[{"id":"a"},{"id":"b","score":1}]},"expect":%s}]}'
        yield "expect " + title, b"c" + (case % expect).encode()
        yield "expect twice " + title, b"c" + (case % expect).encode() * 2
    yield "empty", b"x" + EMPTY
    yield "module", b"x" + MODULE
    yield "cut", b"x" + EMPTY[:6]
    yield "nested", b"x" + EMPTY + section(4, EMPTY + custom("rerank:cases", b"{}")) + section(1, MODULE)
    yield "deep", b"x" + nested(40)
    yield "two sections of cases", b"x" + EMPTY + custom("rerank:cases", b"{}") * 2
    yield "not UTF-8", b"x" + EMPTY + custom("rerank:cases", b"\xff\xfe")
    # (import "name" (instance (type 0))), an empty instance type before it.
    instance_type = section(7, b"\1\x42\0")
    for title in ["wasi:io/poll@0.2.0", "rerank:policy/log@0.1.0", "x" * 200, "a:b/c"]:
        yield "import " + title, b"x" + EMPTY + instance_type + section(10, b"\1\0" + name(title) + b"\5\0")
    # A component-level export of an instance made of nothing.
    yield "export", b"x" + EMPTY + section(5, b"\1\1\0") + section(
        11, b"\1\0" + name("rerank:policy/policy@0.1.0") + b"\5\0\0"
    )


def nested(depth):
    inner = EMPTY
    for _ in range(depth):
        inner = EMPTY + section(4, inner)
    return inner


def manifest():
    manifests = []
    for path in sorted((ROOT / "guest" / "policies").glob("*/manifest.json")):
        manifests.append(json.loads(path.read_text()))
        yield path.parent.name, b"m" + path.read_bytes() + b"\xff{}"
    parameters = [
        '{"weight":0.5,"fields":["title"]}',
        '{"weight":1.5}',
        '{"wieght":1}',
        '{"a":{"b":[1,2,{"c":null}]},"name":"aaaaaaaaaaaaaaaab"}',
    ]
    for path, own in zip(["a", "b", "c"], manifests):
        schema = json.dumps(own.get("parameters"), separators=(",", ":")).encode()
        for number, given in enumerate(parameters):
            yield f"schema of {path} {number}", b"s" + schema + b"\xff" + given.encode()
    keywords = [
        '{"properties":{"name":{"pattern":"^(a+)+$","minLength":2,"format":"date"}}}',
        '{"$defs":{"a":{"type":["number","null"]}},"properties":{"a":{"$ref":"#/$defs/a"}}}',
        '{"allOf":[{"anyOf":[{"type":"object"},{"not":{"type":"string"}}]},{"oneOf":[true,false]}]}',
        '{"if":{"required":["a"]},"then":{"required":["b"]},"else":{"minProperties":1}}',
        '{"patternProperties":{"^a":{"items":{"type":"integer","multipleOf":3}}},"propertyNames":{"maxLength":4}}',
        '{"prefixItems":[{"const":1}],"contains":{"enum":[1,2]},"minContains":1,"maxContains":2,"uniqueItems":true}',
        '{"dependentSchemas":{"a":{"required":["b"]}},"dependentRequired":{"a":["c"]}}',
        '{"unevaluatedProperties":false,"allOf":[{"properties":{"a":true}}],"unevaluatedItems":false}',
        '{"$dynamicAnchor":"n","properties":{"a":{"$dynamicRef":"#n"}}}',
        '{"$anchor":"x","properties":{"a":{"$ref":"#x"}},"additionalProperties":{"$ref":"#"}}',
        '{"type":12}',
        '{"$ref":"https://example.com/schema.json"}',
    ]
    for number, keyword in enumerate(keywords):
        given = "\xff".join(parameters[:3]).encode("latin-1")
        yield f"keywords {number}", b"s" + keyword.encode() + b"\xff" + given
    # Each names the one before twice: checking them all takes 2 to the power of the depth.
    for depth in [4, 10]:
        levels = {f"l{level}": {"allOf": [{"$ref": f"#/$defs/l{level - 1}"}] * 2} for level in range(1, depth)}
        schema = {"$defs": {"l0": {"type": "object"}, **levels}, "$ref": f"#/$defs/l{depth - 1}"}
        yield f"twice as much {depth}", b"s" + json.dumps(schema, separators=(",", ":")).encode() + b"\xff{}"


main()
