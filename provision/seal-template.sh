#!/bin/sh
# Takes from an instance what must not be the same in its copies: the machine's id, SSH host keys, names, leases and
# seeds. Runs as root, as the last thing before the instance is stopped and becomes a template.
#
# Environment: LXDRUNNER_NAME, the instance's name, which a copy must not keep.
set -eu

say() {
    read -r up _ </proc/uptime
    echo "lxdrunner-seal: $up $*"
}

is_systemd() {
    [ -d /run/systemd/system ]
}

# systemd makes a new id where the file is empty; where it is missing it takes the boot for the very first one. D-Bus's
# copy would be taken for the old one.
forget_machine_id() {
    [ ! -e /etc/machine-id ] || : >/etc/machine-id
    if [ -d /var/lib/dbus ]; then
        rm -f /var/lib/dbus/machine-id
        [ ! -e /etc/machine-id ] || ln -s /etc/machine-id /var/lib/dbus/machine-id
    fi
}

# Fedora and Alpine make missing host keys when sshd starts; Debian and Ubuntu do only when it is installed.
forget_host_keys() {
    found=no
    for key in /etc/ssh/ssh_host_*_key; do
        [ ! -e "$key" ] || found=yes
    done
    [ "$found" = yes ] || return 0
    if is_systemd; then
        cat >/etc/systemd/system/lxdrunner-host-keys.service <<'UNIT'
[Unit]
Description=SSH host keys of this copy
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key
Before=ssh.service sshd.service

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
UNIT
        systemctl --quiet enable lxdrunner-host-keys.service
    elif ! command -v openrc >/dev/null; then
        say "SSH host keys stay as they are: this init is not known to make new ones"
        return 0
    fi
    rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
}

# LXD writes the files again in a copy where the image says how. Where it does not, a container without the file has
# the name that LXD gives it.
forget_name() {
    name=${LXDRUNNER_NAME:-}
    [ -n "$name" ] || return 0
    if [ -f /etc/hostname ] && [ "$(cat /etc/hostname)" = "$name" ]; then rm -f /etc/hostname; fi
    if grep -q "[[:space:]]$name\([[:space:]]\|\$\)" /etc/hosts 2>/dev/null; then
        # Not with -i: the file may be mounted.
        sed "s/\([[:space:]]\)$name\([[:space:]]\|\$\)/\1localhost\2/" /etc/hosts >/etc/hosts.lxdrunner
        cat /etc/hosts.lxdrunner >/etc/hosts
        rm -f /etc/hosts.lxdrunner
    fi
}

forget_leases_and_seeds() {
    rm -rf /var/lib/dhcp/* /var/lib/dhclient/* /var/lib/dhcpcd/* /var/lib/systemd/network/* \
        /var/lib/NetworkManager/*.lease /var/lib/NetworkManager/secret_key \
        /var/lib/systemd/random-seed /var/lib/urandom/random-seed /var/lib/random-seed /var/lib/seedrng
}

# cloud-init has done its work. In a copy it would see another instance and do it all over again: it takes seconds, and
# may change the network under a job.
retire_cloud_init() {
    [ -d /etc/cloud ] || return 0
    : >/etc/cloud/cloud-init.disabled
    # What it wrote for this instance's network card must hold for another's.
    for file in /etc/netplan/*.yaml; do
        if grep -q '^ *macaddress:' "$file" 2>/dev/null; then
            sed -i '/^ *match: *$/d; /^ *macaddress:/d; /^ *set-name:/d' "$file"
        fi
    done
    for file in /etc/systemd/network/*cloud-init* /etc/NetworkManager/system-connections/cloud-init-* \
        /etc/sysconfig/network-scripts/ifcfg-*; do
        [ ! -f "$file" ] || sed -i '/^\(Permanent\)\{0,1\}MACAddress=/d; /^mac-address=/d; /^HWADDR=/d' "$file"
    done
    rm -f /etc/udev/rules.d/70-persistent-net.rules
}

forget_logs_and_downloads() {
    rm -rf /var/log/journal/* /run/log/journal/* /var/cache/apt/archives/*.deb
}

# What most workflows take for granted. The daemon tells of lines with this word.
tell_what_is_missing() {
    missing=
    for program in git sudo tar curl; do
        command -v "$program" >/dev/null || missing="$missing $program"
    done
    [ -z "$missing" ] || say "WARNING: the image lacks$missing, which most workflows call (without git actions/checkout has no history); add them to the image or to packages of the class"
}

/opt/lxdrunner/start-runner.sh calm || say "cannot keep packages from being updated by themselves, going on"
tell_what_is_missing
forget_machine_id
forget_host_keys
forget_name
forget_leases_and_seeds
retire_cloud_init
forget_logs_and_downloads
rm -f "$0"
sync
say "sealed"
