#!/bin/sh
# Builds and runs all benches, and writes the tables of docs/benchmarks.md. `make bench` calls it.
# BENCH_QUICK=1 only tries it out. With an argument only that part is run: `releases`,
# `proxy`, `caches`, `plugin`, `load`, `footprint`, `hostile`, or `soak`, which no other run includes.
set -eu
cd "$(dirname "$0")/../.."

# Before the build, which is a load itself.
BENCH_LOAD=$(cut -d ' ' -f 1-3 /proc/loadavg)
export BENCH_LOAD
case $BENCH_LOAD in
0.*) ;;
*) echo "bench: the load average is $BENCH_LOAD: something else is running, so this takes longer" ;;
esac

releases() {
    echo "bench: releases while searches run (about 6 minutes)"
    target/release/rerankd-bench releases docs/benchmarks.md
}

proxy() {
    echo "bench: the search proxy before a real OpenSearch (about 2 minutes)"
    target/release/rerankd-bench proxy docs/benchmarks.md
}

caches() {
    echo "bench: what is known already (about a minute)"
    target/release/rerankd-bench caches docs/benchmarks.md
}

load() {
    echo "bench: more load than it can take (about 4 minutes)"
    target/release/rerankd-bench load docs/benchmarks.md
}

footprint() {
    echo "bench: start, memory and size as it comes (about 2 minutes)"
    target/release/rerankd-bench footprint docs/benchmarks.md
}

hostile() {
    echo "bench: hostile policies, clients and pushers (about 4 minutes)"
    target/release/rerankd-bench hostile docs/benchmarks.md
}

soak() {
    echo "bench: mixed traffic for ${SOAK_MINUTES:-30} minutes"
    target/release/rerankd-bench soak docs/benchmarks.md
}

plugin() {
    echo "bench: the plugin in a real OpenSearch (about 3 minutes)"
    target/release/rerankd-bench plugin docs/benchmarks.md
}

case ${1-} in
releases | proxy | caches | plugin | load | footprint | hostile | soak)
    cargo build --release --workspace --bins
    "$1"
    exit
    ;;
esac

missing=
for model in all-minilm-l6-v2-fp32 bench-cross-encoder-fp32 bench-cross-encoder-int8; do
    [ -f "models/$model/model.onnx" ] || missing="$missing --only $model"
done
if [ -n "$missing" ]; then
    echo "bench: making the models that only benches need (a minute)"
    [ -x .venv/export/bin/python ] || python3 -m venv .venv/export
    .venv/export/bin/pip install --quiet --no-deps --require-hashes -r models/export/requirements.txt
    # shellcheck disable=SC2086 # one word each
    .venv/export/bin/python models/export/export.py $missing
fi

echo "bench: building"
cargo build --release -p rerankd -p rerankd-tests --bins

mkdir -p target/bench
echo "bench: inside the process"
cargo bench -p rerankd --bench in_process > target/bench/in-process.json
echo "bench: the process as a whole (about 10 minutes)"
target/release/rerankd-bench target/bench/in-process.json docs/benchmarks.md
releases
proxy
caches
plugin
load
footprint
