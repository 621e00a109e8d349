#!/bin/sh
# Makes a fresh instance ready for a runner. Runs as root inside the instance; exit code 0 means ready.
#
# Found on arrival: /opt/lxdrunner/package.tar.gz, the runner as GitHub publishes it.
#                   /opt/lxdrunner/start-runner.sh, which can wait for the boot's end and the network.
# Left behind:      user `runner`, the runner unpacked in /opt/lxdrunner/runner and owned by that user.
#
# Run again, also after a reboot or in a copy of an instance, it does only what is missing. Everything said
# here is kept in /var/log/lxdrunner-setup.log too.
#
# Environment: LXDRUNNER_SETUP_TIMEOUT, seconds that all waiting together may take (default 240).
#              LXDRUNNER_PACKAGES, packages to install; LXDRUNNER_DOCKER=1, install Docker.
set -eu

base=/opt/lxdrunner
runner=$base/runner
package=$base/package.tar.gz
log=/var/log/lxdrunner-setup.log
PATH=${PATH:-}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

say() {
    read -r up _ </proc/uptime
    echo "lxdrunner-setup: $up $*"
}

die() {
    say "FAILED: $*"
    exit 1
}

# Seconds since boot, whole, without starting a process.
uptime_seconds() {
    read -r now _ </proc/uptime
    now=${now%%.*}
}

# ---- the package ----

unpack() {
    if [ ! -e "$package" ]; then
        [ -x "$runner/run.sh" ] || die "no runner in $runner and no $package to unpack; start again with a new instance"
        return 0
    fi
    # A package that is still here was never unpacked to the end: an earlier try was cut.
    rm -rf "$runner"
    mkdir -p "$runner"
    chmod 0755 "$base"
    tar -xzof "$package" -C "$runner" || die "cannot unpack $package into $runner (see above; often a full disk or a cut download)"
    [ -x "$runner/run.sh" ] || die "$package holds no run.sh: it is not a runner package for Linux"
    owned=no
}

# ---- waiting for what boots beside us ----

# It waits for as long as is left, and says itself what it waited for in vain.
wait_for_boot() {
    uptime_seconds
    LXDRUNNER_SETUP_TIMEOUT=$((deadline > now ? deadline - now : 1)) "$base/start-runner.sh" await || exit $?
}

# ---- the user ----

make_user() {
    id -u runner >/dev/null 2>&1 || add_user
    # An image may bring the user, with or without a home.
    home=$(eval echo ~runner)
    if [ ! -d "$home" ]; then
        mkdir -p "$home"
        chown "runner:$(id -g runner)" "$home"
    fi
    if grep -q '^docker:' /etc/group; then
        usermod -a -G docker runner 2>/dev/null || addgroup runner docker || say "cannot put runner into group docker, going on"
    fi
}

add_user() {
    say "making user runner"
    shell=/bin/bash
    [ -x "$shell" ] || shell=/bin/sh
    if command -v useradd >/dev/null; then
        useradd --create-home --home-dir /home/runner --shell "$shell" --user-group runner
    else
        adduser -D -h /home/runner -s "$shell" runner
    fi || die "cannot make user runner (see above)"
}

# Jobs written for GitHub's own machines expect sudo to ask for nothing.
allow_sudo() {
    [ -d /etc/sudoers.d ] && [ ! -e /etc/sudoers.d/lxdrunner ] || return 0
    (
        umask 0227
        echo 'runner ALL=(ALL:ALL) NOPASSWD:ALL' >/etc/sudoers.d/lxdrunner
    )
}

own_runner() {
    if [ "$owned" = no ]; then
        chown -R "runner:$(id -g runner)" "$runner"
        rm -f "$package"
    fi
}

# ---- what the runner is linked against ----

any_file() {
    for file in "$@"; do
        [ -e "$file" ] && return 0
    done
    return 1
}

# Prints what the runner's .NET misses; the same questions as the package's config.sh asks.
missing_libraries() {
    [ -e "$runner/bin/libcoreclr.so" ] || return 0
    for library in libcoreclr libSystem.Security.Cryptography.Native.OpenSsl libSystem.IO.Compression.Native; do
        [ -e "$runner/bin/$library.so" ] || continue
        ldd "$runner/bin/$library.so" 2>&1 | sed -n 's/^[[:space:]]*\([^ ]*\) => not found.*/\1/p'
    done
    # These are opened at run time, so ldd does not know of them.
    any_file /usr/lib/*/libssl.so.* /usr/lib64/libssl.so.* /usr/lib/libssl.so.* /lib/libssl.so.* /lib/*/libssl.so.* || echo libssl
    any_file /usr/lib/*/libicuuc.so.* /usr/lib64/libicuuc.so.* /usr/lib/libicuuc.so.* ||
        grep -q '"System.Globalization.Invariant": *true' "$runner/bin/Runner.Listener.runtimeconfig.json" 2>/dev/null || echo libicu
}

install_packages() {
    say "installing $*"
    for try in 1 2 3; do
        ! install_once "$@" || return 0
        say "installing failed (try $try of 3)"
        # Most often another package manager holds the lock.
        [ "$try" = 3 ] || sleep 5
    done
    die "cannot install $* (see above); put it into the image"
}

install_once() {
    if command -v apk >/dev/null; then
        apk add --no-cache "$@"
    elif command -v apt-get >/dev/null; then
        # Not -qq: lxdrunner takes a set-up that prints nothing for one that hangs.
        apt-get update -q && apt-get install -q -y --no-install-recommends "$@"
    elif command -v dnf >/dev/null; then
        dnf install -y "$@"
    elif command -v yum >/dev/null; then
        yum install -y "$@"
    elif command -v zypper >/dev/null; then
        zypper --non-interactive install "$@"
    else
        say "no package manager is known here"
        return 1
    fi
}

install_what_the_class_wants() {
    export DEBIAN_FRONTEND=noninteractive
    # Unquoted on purpose: each is a word.
    # shellcheck disable=SC2086
    [ -z "${LXDRUNNER_PACKAGES:-}" ] || install_packages $LXDRUNNER_PACKAGES
    [ -n "${LXDRUNNER_DOCKER:-}" ] || return 0
    if ! command -v dockerd >/dev/null; then
        if command -v apt-get >/dev/null; then
            install_packages docker.io
        elif grep -q '^ID=fedora' /etc/os-release 2>/dev/null; then
            install_packages moby-engine
        else
            install_packages docker
        fi
    fi
    if [ -d /run/systemd/system ]; then
        systemctl enable docker.service || say "cannot enable docker.service, going on"
    fi
}

install_dependencies() {
    export DEBIAN_FRONTEND=noninteractive
    # run.sh is a script of bash, which small images lack.
    read -r first <"$runner/run.sh" || true
    case $first in
    '#!'*bash*) command -v bash >/dev/null || install_packages bash ;;
    esac
    missing=$(missing_libraries)
    [ -n "$missing" ] || return 0
    any_file /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1 /lib/ld-linux-armhf.so.3 ||
        die "the runner is built for glibc and this image has none (Alpine?); use an image of Debian, Ubuntu or Fedora"
    # Unquoted on purpose: one line.
    # shellcheck disable=SC2086
    say "the runner misses" $missing
    for try in 1 2 3; do
        "$runner/bin/installdependencies.sh" || say "installdependencies.sh failed (try $try of 3)"
        missing=$(missing_libraries)
        [ -n "$missing" ] || return 0
        # Most often another package manager holds the lock.
        sleep 5
    done
    # shellcheck disable=SC2086
    die "cannot install what the runner needs:" $missing "(see above); put it into the image"
}

# The order lets unpacking, the longest step, go on while the instance boots.
setup() {
    timeout=${LXDRUNNER_SETUP_TIMEOUT:-240}
    uptime_seconds
    deadline=$((now + timeout))
    owned=yes
    "$base/start-runner.sh" calm || say "cannot keep packages from being updated by themselves, going on"
    say "setting up ${LXDRUNNER_NAME:-this instance}${LXDRUNNER_CLASS:+ (class $LXDRUNNER_CLASS)}"
    unpack
    wait_for_boot
    install_what_the_class_wants
    make_user
    allow_sudo
    own_runner
    install_dependencies
    say "ready"
}

if [ "${1:-}" = logged ]; then
    setup </dev/null
    exit 0
fi
# The exit code goes around tee by a descriptor of its own.
exec 4>&1
status=$({ { "$0" logged 2>&1 3>&- 4>&- || echo $? >&3; } | tee -a "$log" >&4; } 3>&1)
exit "${status:-0}"
