#!/bin/sh
# Runs many jobs on a real LXD while the daemon is killed, LXD restarted and the storage pool filled: each job must run
# exactly once, and nothing may be left. The LXD is one of its own, beside any other, and goes when the test is over.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=provision/lib.sh
. "$top/provision/lib.sh"
state=/var/lib/lxdrunner-soak
bridge=lxdrsoak0

jobs=200
kills=50

# Small, so that it is soon full.
storage() {
    preseed 'size: 3GiB' btrfs
}

case ${1:-} in
'') ;;
-h | --help)
    echo "usage: tests/soak.sh [JOBS [KILLS]]     (default: $jobs jobs, $kills kills of the daemon)"
    exit 0
    ;;
--restart-lxd)
    restart_private
    exit 0
    ;;
*)
    jobs=$1
    kills=${2:-$kills}
    ;;
esac

set_up_build
cd "$top"
cargo test --locked --no-run --test soak --test real_ready || die "the test does not build (see above)"
trap end_of_own EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
start_private
ensure_image
mkdir -p "$state/tmp"
with_socket env LXDRUNNER_TEST_LXD_SOCKET="$socket" LXDRUNNER_TEST_IMAGE="$image_alias" LXDRUNNER_TEST_REQUIRE_LXD=1 \
    LXDRUNNER_SOAK_JOBS="$jobs" LXDRUNNER_SOAK_KILLS="$kills" LXDRUNNER_SOAK_RESTART="'$top/tests/soak.sh' --restart-lxd" \
    LXDRUNNER_SOAK_OWN=1 TMPDIR="$state/tmp" cargo test --locked --test soak -- --nocapture 9>&-
# A standby that waits for longer than systemd's watchdogs do.
with_socket env LXDRUNNER_TEST_LXD_SOCKET="$socket" LXDRUNNER_TEST_IMAGE="$image_alias" LXDRUNNER_TEST_REQUIRE_LXD=1 \
    LXDRUNNER_TEST_FROZEN=210 TMPDIR="$state/tmp" cargo test --locked --test real_ready frozen_for -- --nocapture 9>&-
