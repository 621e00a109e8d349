#!/bin/sh
# Builds the static binary that is copied to LXD hosts: needs nothing of the system it runs on but a kernel. With the
# argument `demo`, the demo in its place.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"

die() {
    echo "build-static.sh: $*" >&2
    exit 1
}

command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
command -v cargo >/dev/null || die "Rust is missing: install it from https://rustup.rs"
host=$(rustc -vV | sed -n 's/^host: //p')
case $host in
x86_64-*) target=x86_64-unknown-linux-musl ;;
aarch64-*) target=aarch64-unknown-linux-musl ;;
*) die "no static target is known for $host: only for x86_64 and aarch64" ;;
esac

# Whoever names a sysroot in the target's flags brings the standard library and the C compiler's settings along.
variable=CARGO_TARGET_$(echo "$target" | tr 'a-z-' 'A-Z_')_RUSTFLAGS
flags=
eval "flags=\${$variable:-}"
case $flags in
*--sysroot*) ;;
*)
    mend="'rustup target add $target'"
    command -v rustup >/dev/null || mend="get Rust from https://rustup.rs, which can have one, then $mend"
    [ -n "$(find "$(rustc --print sysroot)/lib/rustlib/$target/lib" -name 'libstd-*' 2>/dev/null)" ] ||
        die "rustc has no standard library for $target: $mend"
    # For the parts that are written in C.
    [ -n "$(printenv "CC_$(echo "$target" | tr - _)" || true)" ] || command -v musl-gcc >/dev/null ||
        command -v "${target%%-*}-linux-musl-gcc" >/dev/null ||
        die "a C compiler for musl is missing: 'apt-get install musl-tools'"
    ;;
esac

# A panic ends the process without unwinding, so that the tables for it are bytes for nothing: neither made nor linked.
# (The path is relative because these flags are split at blanks; cargo links in this folder.)
export "$variable=$flags -Cforce-unwind-tables=no -Clink-arg=-Wl,-T,provision/no-unwind-tables.ld"
case ${1:-lxdrunner} in
lxdrunner) set -- -p lxdrunner --bin lxdrunner ;;
demo) set -- -p standin --bin demo ;;
*) die "unknown argument '$1': demo, or none" ;;
esac
cargo build --release --locked --target "$target" "$@"
binary=${CARGO_TARGET_DIR:-$top/target}/$target/release/$4
[ -x "$binary" ] || die "the build ended well but left no $binary"
echo "$binary: $(wc -c <"$binary" | awk '{ printf "%.1f MB", $1 / 1000000 }'), static"
