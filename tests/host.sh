#!/usr/bin/env bash
# Plays lxdrunner on a whole host: Debian 12 with systemd, AppArmor and LXD in QEMU, set up by README's own lines, with
# reboots, upgrades and power cuts. GitHub is a stand-in outside of the host, which the cuts do not touch.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=provision/lib.sh
. "$top/provision/lib.sh"
target=${CARGO_TARGET_DIR:-$top/target}
state=$target/host

usage() {
    cat <<TXT
usage: tests/host.sh [all | CASE…]

Without an argument a short form (about ten minutes): the unit, a set-up that fails, three power cuts. all: everything,
with a cut in every phase of a job's, a template's and a standby's life (two hours and more). CASE: a function of
tests/host/cases.sh, such as cuts_of_a_standby, after the set-up.

  LXDRUNNER_BIN=FILE   a static binary to use in place of building one

The host's disks are made at the first run, of Debian's packages, and kept in $state. Needs no KVM.
TXT
}

cases=("$@")
case ${1:-} in
'') cases=(short_form) ;;
all) cases=(short_form long_form) ;;
-h | --help)
    usage
    exit 0
    ;;
esac
# Whether the config has the classes that only the long form needs.
all=yes
[ "${cases[*]}" != short_form ] || all=no

# Emulated, and on machines that do other things: so much slower may it be than a real host.
slow=4
rows=()
row_begun=0

say() {
    printf '%5d s  %s\n' "$SECONDS" "$*" >&2
}

# What is played now, for the table.
play() {
    row=$1 row_begun=$SECONDS
    say "== $row"
    mark
}

played() {
    rows+=("| $row | $((SECONDS - row_begun)) s | ${1:-} |")
    say "   ok: $row${1:+ ($1)}"
}

fail() {
    say "FAILED: $row: $*"
    {
        echo "-- what the host and GitHub told since this began:"
        tail -n "+$((marked + 1))" "$events" | grep -v '^{' | tail -n 60
        echo "-- jobs and runners at GitHub:"
        order /jobs
        order /runners
        if lives; then
            echo "-- instances, status, the journal's end:"
            in_guest "sudo lxc list -c nsS,user.lxdrunner.phase,user.lxdrunner.job -f csv; sudo lxdrunner status
                sudo journalctl -b -n 40 --no-pager -o short-precise" </dev/null
        fi
    } >&2 || true
    exit 1
}

end() {
    local code=$?
    trap '' EXIT HUP INT TERM
    set +e
    lives && power_cut
    [ -z "$github_pid" ] || { kill "$github_pid" && wait "$github_pid"; } 2>/dev/null
    rm -f "$state/root.qcow2" "$state/pool.qcow2" "$state/ssh.sock"
    remove_tree "$state/root.tmp"
    remove_tree "$state/image.tmp"
    exit "$code"
}

# shellcheck source=tests/host/machine.sh
. "$top/tests/host/machine.sh"
# shellcheck source=tests/host/image.sh
. "$top/tests/host/image.sh"
# shellcheck source=tests/host/checks.sh
. "$top/tests/host/checks.sh"
# shellcheck source=tests/host/cases.sh
. "$top/tests/host/cases.sh"
for case in "${cases[@]}"; do
    [ "$(type -t "$case")" = function ] || die "there is no case '$case' (see --help)"
done

check_system
check_build_tools
binary=${LXDRUNNER_BIN:-}
if [ -z "$binary" ]; then
    "$top/provision/build-static.sh"
    binary=$target/$(uname -m)-unknown-linux-musl/release/lxdrunner
fi
[ -x "$binary" ] || die "there is no program at $binary${LXDRUNNER_BIN:+ (LXDRUNNER_BIN)}"
(cd "$top" && cargo build -q --locked --example github) || die "the GitHub stand-in does not build (see above)"
github=$target/debug/examples/github

exec 9>"$state/lock"
flock -n 9 || die "another run uses $state"
trap end EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
: >"$events"
ssh_port=$(free_port 15500) hook_port=$(free_port 15510) github_port=$(free_port 15520) orders_port=$(free_port 15530)
ensure_host
for disk in root pool; do
    qemu-img create -q -f qcow2 -b "$state/$disk.raw" -F raw "$state/$disk.qcow2"
done
start_github
boot
set_up
for case in "${cases[@]}"; do "$case"; done
take_away
printf '\n| played | took | |\n|---|---|---|\n'
printf '%s\n' "${rows[@]}"
say "all ${#rows[@]} hold: $cuts power cuts, $(order /jobs | wc -l) jobs, none ran twice"
