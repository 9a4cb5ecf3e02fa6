#!/usr/bin/env bash
# Builds the policies and the faulty guests into components:
#
#   guest/build.sh [policies] [faulty]      both, if none is named
#
# guest/dist/policies/NAME.wasm   one for each folder of guest/policies
# guest/dist/faulty/NAME.wasm     one for each file of guest/faulty/examples, for the host's tests
#
# What it needs beside Cargo is a standard library for wasm32-unknown-unknown. It takes the first of
# these that works, and says which: the one that is installed; `rustup target add`; Debian's
# rustc-web, which builds the library from the sources in rust-web-src.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly target=wasm32-unknown-unknown
readonly oldest_rust_minor=95
readonly components="$PWD/target/components"
readonly modules="$components/$target/release"
# That `rustup target add` failed for this compiler. Delete it to try again.
readonly no_target="$PWD/target/rustup-has-no-wasm-target"

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
    choose_toolchain
    compile "${packages[@]}" --lib
    for kind in "${what[@]}"; do "componentize_$kind"; done
}

# Sets `toolchain`: the environment and the flags for Cargo.
toolchain_environment=()
toolchain_flags=()
choose_toolchain() {
    if target_is_installed; then
        say "compiling with $(rustc --version), whose $target library is installed"
    elif add_target; then
        say "compiling with $(rustc --version); rustup added the $target library"
    elif debian_rustc_is_usable || install_debian_rustc; then
        use_debian_rustc
        say "compiling with Debian's $(/usr/bin/rustc --version), which builds the $target library from source"
    else
        fail "there is no standard library for $target. Either run \`rustup target add $target\`," \
            "or on Debian \`apt-get install rustc-web rust-web-src\` (1.$oldest_rust_minor or newer);" \
            "then run this again."
    fi
}

target_is_installed() {
    local libraries
    libraries=$(rustc --print target-libdir --target "$target" 2>/dev/null) &&
        compgen -G "$libraries/libstd-*.rlib" >/dev/null
}

add_target() {
    command -v rustup >/dev/null || return 1
    if [ "$(cat "$no_target" 2>/dev/null)" = "$(rustc --version)" ]; then
        return 1
    fi
    say "trying \`rustup target add $target\` (up to 60 s)"
    if timeout 60 rustup target add "$target" >/dev/null 2>&1 && target_is_installed; then
        return 0
    fi
    say "rustup could not add the target; not tried again while guest/${no_target#"$PWD/"} exists"
    rustc --version >"$no_target"
    return 1
}

debian_rustc_is_usable() {
    [ -x /usr/bin/rustc ] || return 1
    local minor
    minor=$(/usr/bin/rustc --version | sed -nE 's/^rustc 1\.([0-9]+)\..*/\1/p')
    [ "${minor:-0}" -ge $oldest_rust_minor ] &&
        [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std" ] &&
        find_linker >/dev/null
}

install_debian_rustc() {
    command -v apt-get >/dev/null || return 1
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || return 1
        as_root=(sudo -n)
    fi
    say "installing Debian's rustc-web and rust-web-src"
    local log="$PWD/target/apt.log"
    if ! { "${as_root[@]}" apt-get update &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y --no-install-recommends rustc-web rust-web-src; } >"$log" 2>&1; then
        say "apt-get failed; see guest/${log#"$PWD/"}"
        return 1
    fi
    debian_rustc_is_usable
}

# Debian's compiler comes without a linker for WebAssembly; any Rust from rustup has one.
find_linker() {
    local host linker
    host=$(rustc -vV | sed -n 's/^host: //p')
    linker="$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld"
    if [ -x "$linker" ]; then echo "$linker"; else command -v wasm-ld; fi
}

use_debian_rustc() {
    toolchain_environment=(
        RUSTC=/usr/bin/rustc
        # -Zbuild-std is not stable.
        RUSTC_BOOTSTRAP=1
        CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$(find_linker)"
    )
    toolchain_flags=(-Zbuild-std=std,panic_abort)
}

compile() {
    # No path of this machine gets into a component: a panic names its file, and the digest of a
    # component should not depend on where it was built.
    local flags=(
        -Ctarget-feature=+simd128
        "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
        "--remap-path-prefix=/usr/src=rust"
        "--remap-path-prefix=/usr/lib/rustlib/src=rust"
        "--remap-path-prefix=$PWD=guest"
    )
    # The later of two that match counts. The folders exist by now: componentize is built first.
    local registry
    for registry in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
        flags+=("--remap-path-prefix=$registry=cargo")
    done
    local IFS=$'\x1f'
    local encoded="${flags[*]}"
    env "${toolchain_environment[@]}" CARGO_ENCODED_RUSTFLAGS="$encoded" \
        cargo build --release --target "$target" --target-dir "$components" \
        "${toolchain_flags[@]}" "$@"
}

componentize_policies() {
    local folder name
    local names=()
    for folder in policies/*/; do
        name=$(basename "$folder")
        names+=("$name")
        componentize "$modules/${name//-/_}.wasm" "dist/policies/$name.wasm"
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

# Only what changed.
componentize() {
    local module=$1 component=$2 tool=target/debug/componentize
    if [ ! "$component" -nt "$module" ] || [ ! "$component" -nt "$tool" ]; then
        mkdir -p "$(dirname "$component")"
        "$tool" "$module" "$component"
        say "made guest/$component ($(wc -c <"$component") bytes)"
    fi
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
