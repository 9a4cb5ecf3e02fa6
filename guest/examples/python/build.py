"""Makes a component of a policy: build.py [POLICY.py OUT.wasm]

`--stub-wasi` leaves no WASI in the component, so that it imports nothing but the contract; but
componentize-py takes `wasi:nn` for a part of WASI. So it gets a copy of the contract in which that
package has another name of the same length, and the component gets the right one back.

The cases beside the policy, cases/*.json, become a part of the component: docs/cases.md.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
WIT = HERE.parents[2] / "wit"
OUT = HERE.parents[1] / "dist/examples/semantic-blend-python.wasm"
NAME, STAND_IN = "wasi:nn", "xasi:nn"


def main(policy: Path, out: Path) -> None:
    with TemporaryDirectory() as folder:
        wit, component = Path(folder, "wit"), Path(folder, "component.wasm")
        for file in [*WIT.glob("*.wit"), *WIT.glob("deps/**/*.wit")]:
            copy = wit / file.relative_to(WIT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(file.read_text("utf-8").replace(NAME, STAND_IN), "utf-8")
        tool = Path(sys.executable).with_name("componentize-py")
        contract = ["--wit-path", wit, "--world", "reranker", "--quiet"]
        modules = ["--python-path", policy.parent, "--python-path", HERE]
        target = ["--stub-wasi", *modules, "--output", component, policy.stem]
        subprocess.run([tool, *contract, "componentize", *target], check=True)
        named = component.read_bytes().replace(STAND_IN.encode(), NAME.encode())
    cases = [file.read_bytes() for file in sorted(policy.parent.glob("cases/*.json"))]
    if cases:
        named += custom_section("rerank:cases", b"\n".join(cases))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(named)
    print(f"guest: made {out} ({len(named)} bytes)")


def custom_section(name: str, content: bytes) -> bytes:
    body = leb128(len(name)) + name.encode() + content
    return b"\0" + leb128(len(body)) + body


def leb128(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + leb128(rest) if rest else bytes([low])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:] or [HERE / "policy.py", OUT]))
