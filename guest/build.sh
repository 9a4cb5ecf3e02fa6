#!/usr/bin/env bash
# Builds the policies and the faulty guests into components:
#
#   guest/build.sh [policies] [faulty]      both, if none is named
#
# guest/dist/policies/NAME.wasm   one for each folder of guest/policies
# guest/dist/faulty/NAME.wasm     one for each file of guest/faulty/examples, for the host's tests
#
# A policy's cases, guest/policies/NAME/cases/*.json, become a part of its component. compile.sh chooses
# the toolchain and says what it needs.
set -euo pipefail
# A policy need not have cases.
shopt -s nullglob
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly components="$PWD/target/components"
readonly modules="$components/wasm32-unknown-unknown/release"

say() { echo "guest: $*"; }
fail() {
    echo "guest: $*" >&2
    exit 1
}

main() {
    local what=("$@")
    [ ${#what[@]} -gt 0 ] || what=(policies faulty)
    local packages=() kind
    for kind in "${what[@]}"; do
        case $kind in
        policies)
            local folder
            for folder in policies/*/; do packages+=(-p "$(basename "$folder")"); done
            ;;
        faulty) packages+=(-p faulty --examples) ;;
        *) fail "usage: guest/build.sh [policies] [faulty]" ;;
        esac
    done

    cargo build -p componentize
    bash compile.sh . "$components" "${packages[@]}" --lib
    for kind in "${what[@]}"; do "componentize_$kind"; done
}

componentize_policies() {
    local folder name
    local names=()
    for folder in policies/*/; do
        name=$(basename "$folder")
        names+=("$name")
        componentize "$modules/${name//-/_}.wasm" "dist/policies/$name.wasm" "${folder}cases"
    done
    remove_all_but dist/policies "${names[@]}"
}

componentize_faulty() {
    local file name
    local names=()
    for file in faulty/examples/*.rs; do
        name=$(basename "$file" .rs)
        names+=("$name")
        componentize "$modules/examples/${name//-/_}.wasm" "dist/faulty/$name.wasm"
    done
    remove_all_but dist/faulty "${names[@]}"
}

# componentize MODULE COMPONENT [CASES_DIR], only what changed.
componentize() {
    local module=$1 component=$2 cases=${3:-} tool=target/debug/componentize source
    local sources=("$module" "$tool")
    # The folder is newer than a file that is gone from it.
    [ ! -d "$cases" ] || sources+=("$cases" "$cases"/*.json)
    for source in "${sources[@]}"; do
        [ "$component" -nt "$source" ] && continue
        mkdir -p "$(dirname "$component")"
        "$tool" "$module" "$component" ${cases:+"$cases"}
        say "made guest/$component ($(wc -c <"$component") bytes)"
        break
    done
}

# A component whose source is gone must not be served by accident.
remove_all_but() {
    local folder=$1 file
    shift
    for file in "$folder"/*.wasm; do
        [[ " $* " == *" $(basename "$file" .wasm) "* ]] || rm -f "$file"
    done
}

main "$@"
