#!/usr/bin/env bash
# Runs a fuzz target, or keeps what it found (docs/fuzzing.md):
#
#   scripts/fuzz.sh run TARGET [SECONDS] [LIBFUZZER'S ARGUMENTS...]
#   scripts/fuzz.sh replay TARGET INPUT...
#   scripts/fuzz.sh minimize TARGET
#   scripts/fuzz.sh shrink TARGET INPUT      the smallest input that fails in the same way
#
# FUZZ_SANITIZER is `address` (the default) or `none`, which is quicker and finds panics, hangs and
# memory all the same: the host has hardly any unsafe code of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly action=$1 target=$2
shift 2
readonly sanitizer="${FUZZ_SANITIZER:-address}"
# One input: seconds, MiB of the whole process (the sanitizer's own included), bytes.
readonly limits=(-timeout=10 -rss_limit_mb=2048 -max_len=65536)
readonly corpus="$PWD/fuzz/corpus/$target" artifacts="$PWD/fuzz/artifacts/$target"
readonly seeds="$PWD/fuzz/seeds/$target" regressions="$PWD/fuzz/regressions/$target"
# Most bytes of all seeds of a target, and of one that is kept of a run; most seeds.
readonly most=1000000 most_each=4096 most_seeds=500

# Looking for leaks takes ptrace, which containers mostly do not have.
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0}"

flags=(--sanitizer "$sanitizer")
[ "$target" = wire ] || flags+=(--features host)

# Sanitizers are flags of the nightly compiler, which the stable one takes as well.
fuzz() {
    RUSTC_BOOTSTRAP=1 .ci/tool cargo-fuzz "$@"
}

case $action in
run)
    seconds="${1:-60}"
    shift $(($# > 0 ? 1 : 0))
    mkdir -p "$corpus" "$artifacts"
    inputs=("$corpus" "$seeds")
    [ ! -d "$regressions" ] || inputs+=("$regressions")
    fuzz run "${flags[@]}" "$target" "${inputs[@]}" -- \
        "${limits[@]}" -dict="$PWD/fuzz/$target.dict" -artifact_prefix="$artifacts/" \
        -max_total_time="$seconds" -print_final_stats=1 "$@"
    ;;
replay)
    fuzz run "${flags[@]}" "$target" "$@" -- "${limits[@]}"
    ;;
minimize)
    kept=$(mktemp -d "$PWD/fuzz/corpus/kept.XXXXXX")
    trap 'rm -rf "$kept"' EXIT
    # Only those that reach what the seeds do not.
    mkdir -p "$corpus"
    cp "$seeds"/* "$kept"
    fuzz run "${flags[@]}" "$target" -- "${limits[@]}" -merge=1 "$kept" "$corpus"
    total=$(cat "$seeds"/* | wc -c)
    # The small ones first.
    while read -r size name; do
        [ -e "$seeds/$name" ] && continue
        total=$((total + size))
        [ "$size" -le $most_each ] && [ $total -le $most ] || break
        [ "$(ls "$seeds" | wc -l)" -lt $most_seeds ] || break
        cp "$kept/$name" "$seeds/$name"
    done < <(cd "$kept" && wc -c -- * | grep -v ' total$' | sort -n)
    echo "$target: $(ls "$seeds" | wc -l) seeds, $(cat "$seeds"/* | wc -c) bytes"
    ;;
shrink)
    fuzz tmin "${flags[@]}" "$target" "$1" -- "${limits[@]}"
    ;;
*)
    echo "scripts/fuzz.sh: unknown action \`$action\`" >&2
    exit 2
    ;;
esac
