#!/usr/bin/env bash
# Compiles policies into core WebAssembly modules, with the first toolchain that works:
#
#   guest/compile.sh CRATE_DIR TARGET_DIR [ARGUMENT ..]
#
# TARGET_DIR/wasm32-unknown-unknown/release/NAME.wasm
#
# CRATE_DIR holds a Cargo.toml, of a package or a workspace; what follows goes to `cargo build`.
#
# What it needs beside Cargo is a standard library for wasm32-unknown-unknown. It takes the first of
# these that works, and says which: the one that is installed; `rustup target add`; Debian's
# rustc-web, which builds the library from the sources in rust-web-src.
#
# build.sh runs it for the policies of this folder. `rerankd policy build` runs its own copy of it
# (it is part of the binary), so it knows nothing of the checkout.
set -euo pipefail

readonly target=wasm32-unknown-unknown
readonly oldest_rust_minor=95

say() { echo "guest: $*"; }
fail() {
    echo "guest: $*" >&2
    exit 1
}

main() {
    [ $# -ge 2 ] || fail "usage: compile.sh CRATE_DIR TARGET_DIR [ARGUMENT ..]"
    mkdir -p "$2"
    target_folder=$(cd "$2" && pwd)
    # That `rustup target add` failed for this compiler. Delete it to try again.
    no_target="$target_folder/rustup-has-no-wasm-target"
    cd "$1"
    shift 2
    for tool in cargo rustc; do
        command -v $tool >/dev/null || fail "there is no \`$tool\`: get Rust from https://rustup.rs, then run this again"
    done
    choose_toolchain
    compile "$@"
}

# Sets the environment and the flags for Cargo.
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
    say "rustup could not add the target; not tried again while $no_target exists"
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
    local log="$target_folder/apt.log"
    if ! { "${as_root[@]}" apt-get update &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y --no-install-recommends rustc-web rust-web-src; } >"$log" 2>&1; then
        say "apt-get failed; see $log"
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
    # component should not depend on where it was built. Cargo names the crate's own files relative
    # to its folder.
    local flags=(
        -Ctarget-feature=+simd128
        "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo"
        "--remap-path-prefix=/usr/src=rust"
        "--remap-path-prefix=/usr/lib/rustlib/src=rust"
    )
    # The later of two that match counts. Where nothing was ever built, no folder exists yet.
    local registries="${CARGO_HOME:-$HOME/.cargo}/registry/src" registry
    [ -d "$registries" ] || cargo fetch
    for registry in "$registries"/*; do
        flags+=("--remap-path-prefix=$registry=cargo")
    done
    local IFS=$'\x1f'
    local encoded="${flags[*]}"
    # An empty array is unset to the bash of macOS, hence the `+`.
    env ${toolchain_environment[@]+"${toolchain_environment[@]}"} CARGO_ENCODED_RUSTFLAGS="$encoded" \
        cargo build --release --target "$target" --target-dir "$target_folder" \
        ${toolchain_flags[@]+"${toolchain_flags[@]}"} "$@"
}

main "$@"
