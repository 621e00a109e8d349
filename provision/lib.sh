# What try.sh and test.sh share: a machine on which lxdrunner can be built, and an LXD for it to use.
# To be sourced by a POSIX sh that has set -eu and, in $top, the top of the source tree.
# shellcheck shell=sh
#
# An LXD (or Incus) that the user has is used as it is; only an image, $image_alias, is added to it. Where
# there is none, a daemon of our own runs below $state while the script runs. Its storage and image stay
# there for the next time; `try.sh --clean` removes them.

: "${top:?}"
state=/var/lib/lxdrunner-try
image_alias=lxdrunner-base
bridge=lxdrtry0
# Set by find_lxd.
socket=
# The pid of the daemon if this script runs one, else empty; launcher is the job that starts it.
daemon_pid=
launcher=

say() {
    printf '%s\n' "${0##*/}: $*" >&2
}

die() {
    say "$*"
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        command -v sudo >/dev/null || die "'$1' needs root: run this as root, or install sudo"
        sudo "$@"
    fi
}

# logged WHAT COMMAND…: keeps the output for the case of failure.
logged() {
    what=$1
    shift
    if ! "$@" >"$state/last.log" 2>&1 </dev/null; then
        tail -n 20 "$state/last.log" >&2
        die "$what failed: '$*' (its last lines are above, all of them in $state/last.log)"
    fi
}

# os_release KEY
os_release() {
    sed -n "s/^$1=//p" /etc/os-release | tr -d '"'
}

is_ubuntu() {
    [ "$(os_release ID)" = ubuntu ]
}

# The daemon's directory in it is root's, the notes beside that are whose script it is.
make_state() {
    [ "$(stat -c %u "$state" 2>/dev/null)" != "$(id -u)" ] || return 0
    as_root install -d -m 0755 "$state"
    as_root find "$state" -maxdepth 1 '(' -type f -o -name client ')' -exec chown -R "$(id -u):$(id -g)" '{}' +
    as_root chown "$(id -u):$(id -g)" "$state"
}

# ---- packages ----

# A list of packages is good for a day.
update_packages() {
    [ -z "$(find "$state/apt-updated" -mmin -1440 2>/dev/null)" ] || return 0
    say "asking for the list of packages"
    logged "asking for the list of packages" as_root apt-get update -q
    : >"$state/apt-updated"
}

# need PACKAGE…: installs what is missing and remembers it for --clean --packages.
need() {
    missing=
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    update_packages
    # shellcheck disable=SC2086
    logged "installing$missing" as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends $missing
    # shellcheck disable=SC2086
    printf '%s\n' $missing >>"$state/packages"
}

check_system() {
    command -v apt-get >/dev/null ||
        die "this sets up Debian and Ubuntu only. Elsewhere install LXD or Incus, 'lxd init' it, and run this again: it will be used"
    make_state
}

check_build_tools() {
    [ -z "${LXDRUNNER_BIN:-}" ] || return 0
    command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
    command -v cargo >/dev/null ||
        die "Rust is missing: install it from https://rustup.rs (or, where it is 1.89 or newer, 'apt-get install cargo'), then run this again"
    command -v cc >/dev/null || need gcc libc6-dev
}

# ---- what GitHub says of itself ----

# GitHub's own description of its API and its examples of webhooks, as tests use them: unpacked once into $descriptions.
fetch_github_descriptions() {
    descriptions=$state/github-descriptions
    fetch_npm @octokit/openapi 23.0.2 openapi package/generated/api.github.com.json package/generated/ghec.json
    fetch_npm @octokit/webhooks-examples 7.6.1 webhooks-examples
}

# fetch_npm PACKAGE VERSION FOLDER [FILE…]: all of it, or these files alone.
fetch_npm() {
    package=$1 version=$2 folder=$descriptions/$3
    shift 3
    [ "$(cat "$folder/version" 2>/dev/null)" != "$version" ] || return 0
    command -v npm >/dev/null || need npm
    say "fetching $package $version"
    fresh=$(mktemp -d "$state/npm.XXXXXX")
    mkdir "$fresh/unpacked"
    logged "fetching $package" npm pack --silent --cache "$fresh/cache" --pack-destination "$fresh" "$package@$version"
    logged "unpacking $package" tar -xzf "$fresh"/*.tgz -C "$fresh/unpacked" --strip-components=1 "$@"
    printf '%s\n' "$version" >"$fresh/unpacked/version"
    mkdir -p "$descriptions"
    rm -rf "$folder"
    mv "$fresh/unpacked" "$folder"
    rm -rf "$fresh"
}

# ---- which LXD ----

# with_socket COMMAND…: with the socket's group. A user with sudo need not be in it, and on a cloud's image may become root
# alone.
with_socket() {
    if [ -w "$socket" ]; then
        "$@"
    else
        as_root setpriv --reuid="$(id -u)" --regid="$(id -g)" --groups="$(id -G | tr ' ' ,),$(stat -c %g "$socket")" \
            env PATH="$PATH" HOME="$HOME" "$@"
    fi
}

# client ARGUMENT…: lxc or incus, with a configuration of its own so that the user's default remote does not
# matter and nothing is written to their home.
client() {
    case $socket in
    *incus*) with_socket env INCUS_SOCKET="$socket" INCUS_CONF="$state/client" incus "$@" </dev/null ;;
    *) with_socket env LXD_SOCKET="$socket" LXD_CONF="$state/client" lxc "$@" </dev/null ;;
    esac
}

# A daemon that answers but has no storage was installed and never set up: nobody's.
usable() {
    [ -S "$1" ] || return 1
    socket=$1
    [ -n "$(client storage list --format csv 2>/dev/null)" ]
}

find_lxd() {
    if [ -n "${LXDRUNNER_TEST_LXD_SOCKET:-}" ]; then
        usable "$LXDRUNNER_TEST_LXD_SOCKET" ||
            die "LXDRUNNER_TEST_LXD_SOCKET names $LXDRUNNER_TEST_LXD_SOCKET, but no LXD with a storage pool answers there; unset it, or 'lxd init'"
        return
    fi
    for candidate in "${LXD_SOCKET:-}" "${LXD_DIR:+$LXD_DIR/unix.socket}" "${INCUS_SOCKET:-}" \
        /var/snap/lxd/common/lxd/unix.socket /var/lib/lxd/unix.socket /var/lib/incus/unix.socket; do
        [ -n "$candidate" ] || continue
        if usable "$candidate"; then
            say "using the LXD at $socket"
            return
        fi
    done
    # Ubuntu's LXD is a snap, which cannot be run a second time on the side.
    if is_ubuntu && command -v snap >/dev/null; then
        start_snap
    else
        start_private
    fi
}

# A /24 that no interface and no route of this machine overlaps with. (LXD's own search, "auto", fails where
# every address seems to answer.)
free_subnet() {
    taken=$(ip -4 -o addr show; ip -4 route show)
    number=200
    while [ "$number" -lt 255 ]; do
        case $taken in
        *" 10.$number."*) number=$((number + 1)) ;;
        *)
            echo "10.$number.7.1/24"
            return
            ;;
        esac
    done
    die "no 10.x.0.0/16 from 10.200 to 10.254 is free for the bridge $bridge"
}

# preseed POOL-CONFIG DRIVER: storage, a bridge with DHCP and NAT, and a profile with both.
preseed() {
    cat <<YAML
storage_pools:
- name: lxdrunner-try
  driver: $2
  config: {$1}
networks:
- name: $bridge
  type: bridge
  config: {ipv4.address: $(free_subnet), ipv4.nat: "true", ipv6.address: none}
profiles:
- name: default
  devices:
    root: {type: disk, path: /, pool: lxdrunner-try}
    eth0: {type: nic, network: $bridge, name: eth0}
YAML
}

# Copy-on-write in a file of its own where the kernel can do it, else a plain directory.
storage() {
    if as_root sh -c 'grep -qw btrfs /proc/filesystems || modprobe btrfs' 2>/dev/null && [ -e /dev/loop-control ]; then
        # Sparse: takes what is used. Never more than half of what is free.
        size=$(($(df -Pk "$state" | awk 'NR == 2 { print $4 }') / 2097152))
        [ "$size" -le 20 ] || size=20
        [ "$size" -ge 3 ] || die "$state has less than 6 GiB free, too little for a base image and containers"
        preseed "size: ${size}GiB" btrfs
    else
        preseed '' dir
    fi
}

start_snap() {
    socket=/var/snap/lxd/common/lxd/unix.socket
    if [ ! -S "$socket" ]; then
        say "installing LXD (a snap, about a minute)"
        logged "installing LXD" as_root snap install lxd
        : >"$state/snap-installed"
    fi
    logged "starting LXD" as_root lxd waitready --timeout 120
    say "setting up LXD"
    : >"$state/snap-set-up"
    storage >"$state/preseed.yaml"
    as_root lxd init --preseed <"$state/preseed.yaml" || die "LXD refused $state/preseed.yaml (see above)"
}

# ---- a daemon of our own ----

# Sets the names that LXD and Incus differ in.
private_names() {
    flavour=lxd
    if [ -e "$state/flavour" ]; then
        flavour=$(cat "$state/flavour")
    elif is_ubuntu || [ -z "$(apt-cache madison lxd 2>/dev/null)" ]; then
        # Ubuntu's package lxd only installs the snap.
        flavour=incus
    fi
    case $flavour in
    lxd)
        flavour_packages='lxd lxd-client'
        dir_variable=LXD_DIR
        initialise='lxd init --preseed'
        ;;
    incus)
        flavour_packages='incus-base incus-client'
        dir_variable=INCUS_DIR
        initialise='incus admin init --preseed'
        ;;
    esac
    # The name has to tell client() which it is.
    dir=$state/$flavour
    socket=$dir/unix.socket
}

daemon_binary() {
    case $flavour in
    lxd) command -v lxd ;;
    incus) for file in /usr/libexec/incus/incusd /usr/lib/incus/incusd /usr/bin/incusd; do [ ! -x "$file" ] || { echo "$file" && break; }; done ;;
    esac
}

# is_ours PID: whether this process is the daemon that was started for $dir, not a later one of the same number.
is_ours() {
    [ -n "$1" ] && as_root grep -qsz "^$dir_variable=$dir\$" "/proc/$1/environ"
}

read_daemon_pid() {
    daemon_pid=$(cat "$state/daemon.pid" 2>/dev/null || true)
    is_ours "$daemon_pid" || daemon_pid=
}

# Starts the daemon in $dir and waits until it answers.
start_daemon() {
    daemon=$(daemon_binary)
    [ -n "$daemon" ] || die "the package ${flavour_packages%% *} is installed but its daemon is not there"
    as_root install -d -m 0711 "$dir"
    : >"$state/daemon.pid"
    # In a session of its own: Ctrl-C is for us, and we end it in good order. Without the lock: should we
    # be killed, the next run takes the daemon over.
    # shellcheck disable=SC2016
    (
        exec 9>&-
        as_root setsid sh -c 'echo $$ >"$1"; shift; exec "$@"' sh "$state/daemon.pid" \
            env "$dir_variable=$dir" "$daemon" --group "$(id -gn)" --logfile "$state/daemon.log"
    ) </dev/null >"$state/daemon.out" 2>&1 &
    launcher=$!
    tries=300
    until [ -S "$socket" ] && client query /1.0 >/dev/null 2>&1; do
        tries=$((tries - 1))
        if [ "$tries" = 0 ] || ! kill -0 "$launcher" 2>/dev/null; then
            tail -n 5 "$state/daemon.out" "$state/daemon.log" >&2 || true
            die "$flavour does not start in $dir (see above); '$top/provision/try.sh --clean' and another try may help"
        fi
        sleep 0.1
    done
    read_daemon_pid
}

# Ends the daemon as its upgrade would, instances left running, and starts it again.
restart_private() {
    private_names
    read_daemon_pid
    [ -n "$daemon_pid" ] || die "no $flavour of this script's runs in $dir"
    as_root kill -s TERM "$daemon_pid"
    while is_ours "$daemon_pid"; do sleep 0.1; done
    start_daemon
}

start_private() {
    # One daemon and one set of containers at a time; a second script waits for the first.
    exec 9>"$state/lock"
    if ! flock -n 9; then
        say "another run uses $state; waiting for it to end"
        flock 9
    fi
    [ -e "$state/flavour" ] || update_packages
    private_names
    fresh=yes
    [ "$(dpkg-query -W -f '${db:Status-Status}' "${flavour_packages%% *}" 2>/dev/null)" != installed ] || fresh=no
    # shellcheck disable=SC2086
    need $flavour_packages btrfs-progs dnsmasq-base nftables iptables iproute2
    echo "$flavour" >"$state/flavour"
    # The package starts a daemon where it can; nobody asked for that one.
    if [ "$fresh" = yes ] && [ -d /run/systemd/system ]; then
        as_root systemctl disable --now "$flavour.socket" "$flavour.service" >/dev/null 2>&1 || true
    fi

    read_daemon_pid
    [ -n "$daemon_pid" ] || start_daemon
    if [ ! -e "$state/set-up" ]; then
        say "setting up $flavour in $dir"
        storage >"$state/preseed.yaml"
        # shellcheck disable=SC2086
        as_root env "$dir_variable=$dir" $initialise <"$state/preseed.yaml" ||
            die "$flavour refused $state/preseed.yaml (see above)"
        : >"$state/set-up"
    fi
    # What a run that was killed has left.
    delete_instances
}

# Everything that is mounted below a directory, the innermost first.
unmount_below() {
    awk -v below="$1/" 'index($2, below) == 1 { print $2 }' /proc/mounts | sort -r | while read -r mounted; do
        as_root umount -l "$mounted" || true
    done
}

# All of them: nothing else runs on this daemon.
delete_instances() {
    client list --format csv --columns n 2>/dev/null | while read -r instance; do
        client delete --force "$instance" >/dev/null 2>&1 || true
    done
}

stop_private() {
    # Stopped between the start of the daemon and the first word from it.
    while [ -z "$daemon_pid" ] && [ -n "$launcher" ] && kill -0 "$launcher" 2>/dev/null; do
        sleep 0.1
        read_daemon_pid
    done
    [ -n "$daemon_pid" ] || return 0
    # It may have been restarted meanwhile.
    read_daemon_pid
    delete_instances
    # The signal that means "the machine goes down": the bridge and the storage go with the daemon.
    as_root kill -s PWR "$daemon_pid" 2>/dev/null || true
    waited=0
    while is_ours "$daemon_pid"; do
        waited=$((waited + 1))
        [ "$waited" != 20 ] || say "stopping $flavour"
        [ "$waited" != 300 ] || as_root kill -s TERM "$daemon_pid" 2>/dev/null || true
        [ "$waited" != 350 ] || as_root kill -s KILL "$daemon_pid" 2>/dev/null || true
        [ "$waited" -lt 400 ] || break
        sleep 0.1
    done
    rm -f "$state/daemon.pid"
    # Only what a daemon that was killed would leave.
    if [ -e "/sys/class/net/$bridge" ]; then
        dnsmasq=$(sed -n 's/^pid: *//p' "$dir/networks/$bridge/dnsmasq.pid" 2>/dev/null || true)
        [ -z "$dnsmasq" ] || ! grep -qs -- "--interface=$bridge" "/proc/$dnsmasq/cmdline" || as_root kill "$dnsmasq" || true
        as_root ip link delete "$bridge" 2>/dev/null || true
    fi
    unmount_below "$dir"
    daemon_pid=
    launcher=
}

# ---- the base image ----

has_image() {
    client query "/1.0/images/aliases/$image_alias" >/dev/null 2>&1
}

# The public image servers, for each kind of daemon the one that serves it.
image_server() {
    case $socket in
    *incus*) echo https://images.linuxcontainers.org ;;
    *) echo https://images.lxd.canonical.com ;;
    esac
}

fetch_image() {
    server=$(image_server)
    command -v wget >/dev/null || need wget ca-certificates
    wget -q -T 4 -t 1 -O /dev/null "$server/streams/v1/index.json" 2>/dev/null || return 1
    say "fetching the base image from $server (about 100 MB)"
    client query --wait --request POST /1.0/images --data "{
        \"aliases\": [{\"name\": \"$image_alias\"}],
        \"source\": {\"type\": \"image\", \"mode\": \"pull\", \"protocol\": \"simplestreams\",
                     \"server\": \"$server\", \"alias\": \"debian/12\"}}" >/dev/null
}

# own_mirror: where this machine's own packages come from.
own_mirror() {
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
        awk -v release="$(os_release VERSION_CODENAME)" '$2 == release && $3 == "main" { print $1; exit }'
}

build_image() {
    work=$state/image.tmp
    make_image "$work"
    logged "importing the base image" client image import "$work/metadata.tar" "$work/root.squashfs" --alias "$image_alias"
    remove_tree "$work"
}

# make_image FOLDER: the base image's two files, metadata.tar and root.squashfs, of the release that this machine runs.
make_image() {
    need debootstrap squashfs-tools
    release=$(os_release VERSION_CODENAME)
    remove_tree "$1"
    as_root install -d -m 0755 "$1"
    say "building the base image from $release (about a minute)"
    packages=systemd-sysv,libpam-systemd,udev,dbus,ca-certificates,curl,iproute2,sudo,procps
    # Older releases have it in systemd.
    [ -z "$(apt-cache madison systemd-resolved 2>/dev/null)" ] || packages=$packages,systemd-resolved
    # shellcheck disable=SC2046
    logged "building the base image" as_root debootstrap --variant=minbase --include="$packages" "$release" "$1/root" $(own_mirror)
    printf '[Match]\nName=eth0\n[Network]\nDHCP=ipv4\n' | as_root tee "$1/root/etc/systemd/network/eth0.network" >/dev/null
    allow_services "$1/root/etc/systemd/system/service.d"
    logged "enabling the image's network" as_root chroot "$1/root" systemctl enable systemd-networkd systemd-resolved
    as_root find "$1/root/var/cache/apt/archives" "$1/root/var/lib/apt/lists" -type f -delete
    as_root ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/root/etc/resolv.conf"
    cat <<YAML | as_root tee "$1/metadata.yaml" >/dev/null
architecture: $(uname -m)
creation_date: $(date +%s)
properties: {os: $(os_release ID), release: $release, description: "$release, for lxdrunner's demo and tests"}
templates:
  /etc/hostname: {when: [create, copy], template: hostname.tpl}
  /etc/hosts: {when: [create, copy], template: hosts.tpl}
YAML
    as_root mkdir "$1/templates"
    echo '{{ container.name }}' | as_root tee "$1/templates/hostname.tpl" >/dev/null
    echo '127.0.0.1 localhost {{ container.name }}' | as_root tee "$1/templates/hosts.tpl" >/dev/null
    logged "packing the base image" as_root tar -C "$1" -cf "$1/metadata.tar" metadata.yaml templates
    logged "packing the base image" as_root mksquashfs "$1/root" "$1/root.squashfs" -noappend -comp gzip -quiet -no-progress
}

# allow_services FOLDER: AppArmor refuses the mounts that these settings need in an unprivileged container, and
# systemd-networkd would not start. The official images of LXD and Incus carry the same.
allow_services() {
    as_root install -d -m 0755 "$1"
    cat <<INI | as_root tee "$1/zzz-lxc-service.conf" >/dev/null
[Service]
ProcSubset=all
ProtectProc=default
ProtectControlGroups=no
ProtectKernelTunables=no
NoNewPrivileges=no
LoadCredential=
INI
}

ensure_image() {
    has_image && return 0
    # Where it went, for --clean.
    echo "$socket" >>"$state/images"
    fetch_image || build_image
    has_image || die "the base image was imported into $socket but $image_alias is not there"
}

remove_tree() {
    [ -e "$1" ] || return 0
    unmount_below "$1"
    as_root rm -rf --one-file-system "$1"
}

# ---- all together ----

# Called on every way out, Ctrl-C included.
end() {
    code=$?
    trap '' EXIT HUP INT TERM
    set +e
    remove_tree "$state/image.tmp"
    stop_private
    exit "$code"
}

# The same where the LXD is this script's alone: nothing of it stays.
end_of_own() {
    code=$?
    trap '' EXIT HUP INT TERM
    set +e
    stop_private
    clean ""
    exit "$code"
}

# What is needed to build; to be called first, so that nothing of LXD runs while that lasts.
set_up_build() {
    check_system
    check_build_tools
}

# Builds the demo, where LXDRUNNER_DEMO names none, and names it in $demo.
# shellcheck disable=SC2034
build_demo() {
    demo=${LXDRUNNER_DEMO:-${CARGO_TARGET_DIR:-$top/target}/debug/demo}
    [ -n "${LXDRUNNER_DEMO:-}" ] || (cd "$top" && cargo build --locked -p standin --bin demo) ||
        die "the build of the demo failed (see above)"
}

set_up_lxd() {
    trap end EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    find_lxd
    ensure_image
    export LXDRUNNER_TEST_LXD_SOCKET="$socket" LXDRUNNER_TEST_IMAGE="$image_alias" LXDRUNNER_TEST_REQUIRE_LXD=1
}

# clean [--packages]: takes back all of the above.
clean() {
    [ -d "$state" ] || {
        say "nothing to remove: there is no $state"
        return 0
    }
    make_state
    dir_variable=LXD_DIR
    exec 9>"$state/lock"
    flock -n 9 || die "another run uses $state; end it first"
    if [ -e "$state/flavour" ]; then
        private_names
        read_daemon_pid
        stop_private
    fi
    if [ -e "$state/images" ]; then
        sort -u "$state/images" | while read -r socket; do
            case $socket in "$state"/*) continue ;; esac
            if [ -S "$socket" ] && has_image; then
                client image delete "$image_alias" && say "removed the image $image_alias from $socket"
            fi
        done
    fi
    clean_snap
    unmount_below "$state"
    if [ "${1:-}" = --packages ] && [ -s "$state/packages" ]; then
        packages=$(sort -u "$state/packages" | tr '\n' ' ')
        say "removing $packages"
        # shellcheck disable=SC2086
        logged "removing packages" as_root env DEBIAN_FRONTEND=noninteractive apt-get purge -q -y $packages
        logged "removing packages" as_root env DEBIAN_FRONTEND=noninteractive apt-get autoremove -q -y --purge
    fi
    as_root rm -rf --one-file-system "$state"
    say "removed $state and all that was set up there"
}

clean_snap() {
    if [ -e "$state/snap-installed" ]; then
        say "removing LXD"
        logged "removing LXD" as_root snap remove --purge lxd
    elif [ -e "$state/snap-set-up" ]; then
        socket=/var/snap/lxd/common/lxd/unix.socket
        client profile device remove default root || true
        client profile device remove default eth0 || true
        client network delete "$bridge" || true
        client storage delete lxdrunner-try || true
    fi
}
