#!/bin/sh
# Runs every test, those on a real LXD included. Arguments go to 'cargo test'. Sets up what is missing, as
# try.sh does; 'provision/try.sh --clean' undoes it.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=provision/lib.sh
. "$top/provision/lib.sh"

set_up_build
cd "$top"
cargo test --locked --no-run "$@" || die "the tests do not build (see above)"
set_up_lxd
fetch_github_descriptions
with_socket env LXDRUNNER_TEST_GITHUB_DESCRIPTIONS="$descriptions" LXDRUNNER_TEST_REQUIRE_GITHUB_DESCRIPTIONS=1 \
    LXDRUNNER_TEST_LXD_SOCKET="$LXDRUNNER_TEST_LXD_SOCKET" LXDRUNNER_TEST_IMAGE="$LXDRUNNER_TEST_IMAGE" \
    LXDRUNNER_TEST_REQUIRE_LXD=1 cargo test --locked "$@" 9>&-
