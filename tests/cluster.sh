#!/bin/sh
# Runs the tests that need a real LXD on one that is a cluster (of one member, which LXD treats as any other): there the
# templates are images. The LXD is one of its own, beside any other, and goes when the tests are over.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=provision/lib.sh
. "$top/provision/lib.sh"
state=/var/lib/lxdrunner-cluster
bridge=lxdrclust0

case ${1:-} in
-h | --help)
    echo "usage: tests/cluster.sh [ARGUMENT…]     (arguments go to 'cargo test'; see below for the default)"
    exit 0
    ;;
esac
[ $# -gt 0 ] || set -- --test lxd_contract --test real_ready --test demo

set_up_build
cd "$top"
cargo test --locked --no-run "$@" || die "the tests do not build (see above)"
trap end_of_own EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
start_private
# Nobody but this member connects to it; another LXD may have the port.
port=18443
until client config set core.https_address "127.0.0.1:$port" >/dev/null 2>&1; do
    port=$((port + 1))
    [ "$port" -lt 18453 ] || die "LXD can listen on none of the ports from 18443 to 18452"
done
client cluster list >/dev/null 2>&1 || logged "making it a cluster" client cluster enable one
ensure_image
mkdir -p "$state/tmp"
with_socket env LXDRUNNER_TEST_LXD_SOCKET="$socket" LXDRUNNER_TEST_IMAGE="$image_alias" LXDRUNNER_TEST_REQUIRE_LXD=1 \
    TMPDIR="$state/tmp" cargo test --locked "$@" 9>&-
