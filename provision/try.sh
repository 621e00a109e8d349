#!/bin/sh
# Shows lxdrunner at work on this machine: the real daemon, real containers, a stand-in for GitHub.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=provision/lib.sh
. "$top/provision/lib.sh"

usage() {
    cat <<TXT
usage: provision/try.sh [DEMO OPTION]…
       provision/try.sh --clean [--packages]

Sets up what is missing (packages, an LXD of its own, a base image), builds lxdrunner, and runs its demo
on real containers. Works on Debian and Ubuntu, as root or with sudo. An LXD that is set up already is
used as it is. The first run takes a few minutes, the next ones start at once.

  --jobs N     so many jobs instead of one; 'cargo run -p standin --bin demo -- --help' tells the other DEMO OPTIONs
  --standin    with a stand-in for LXD, too: needs no root, and starts no container
  --clean      removes all that this script and test.sh have set up: the LXD of its own ($state)
               and the image '$image_alias'
  --packages   with --clean: also the packages that they have installed

  LXDRUNNER_BIN=FILE                 runs this binary instead of building one
  LXDRUNNER_DEMO=FILE                runs this demo instead of building one
  LXDRUNNER_TEST_LXD_SOCKET=SOCKET   uses the LXD that listens there
TXT
}

case ${1:-} in
-h | --help)
    usage
    exit 0
    ;;
--clean)
    case ${2:-} in
    '' | --packages) ;;
    *) die "'$2' is no option of --clean; there is --packages (see try.sh --help)" ;;
    esac
    clean "${2:-}"
    exit 0
    ;;
esac

set_up_build
build_demo
binary=${LXDRUNNER_BIN:-}
if [ -z "$binary" ]; then
    (cd "$top" && cargo build --release --locked --bin lxdrunner) || die "the build failed (see above)"
    binary=${CARGO_TARGET_DIR:-$top/target}/release/lxdrunner
fi
[ -x "$binary" ] || die "there is no program at $binary${LXDRUNNER_BIN:+ (LXDRUNNER_BIN)}"
case " $* " in
*' --standin '*) exec "$demo" --daemon "$binary" "$@" ;;
esac
set_up_lxd
with_socket "$demo" --daemon "$binary" --socket "$LXDRUNNER_TEST_LXD_SOCKET" --image "$LXDRUNNER_TEST_IMAGE" "$@" 9>&-
