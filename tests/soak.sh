#!/bin/sh
# Runs many jobs on a real LXD while the daemon is killed, LXD restarted and the storage pool filled: each job must run
# exactly once, and nothing may be left. What LXD is not the scripts' own is neither restarted nor filled.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=provision/lib.sh
. "$top/provision/lib.sh"

jobs=200
kills=50

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
cargo test --locked --no-run --test soak || die "the test does not build (see above)"
set_up_lxd
restart=
fill=0
if [ -n "$daemon_pid" ]; then
    restart="'$top/tests/soak.sh' --restart-lxd"
    fill=1
else
    say "this LXD is not of our making: it is neither restarted nor filled"
fi
with_socket env LXDRUNNER_TEST_LXD_SOCKET="$LXDRUNNER_TEST_LXD_SOCKET" LXDRUNNER_TEST_IMAGE="$LXDRUNNER_TEST_IMAGE" \
    LXDRUNNER_TEST_REQUIRE_LXD=1 LXDRUNNER_SOAK_JOBS="$jobs" LXDRUNNER_SOAK_KILLS="$kills" \
    LXDRUNNER_SOAK_RESTART="$restart" LXDRUNNER_SOAK_FILL="$fill" \
    cargo test --locked --test soak -- --nocapture 9>&-
