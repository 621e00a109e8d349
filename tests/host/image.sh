# The host that tests/host.sh boots: its disks, made once and kept in $state.
# shellcheck shell=bash
#
# root.raw is Debian 12 with systemd, AppArmor, sshd and LXD; pool.raw is LXD's storage. Both are as they are after the
# first boot, in which LXD was initialised and the base image imported. Runs write to overlays above them.

: "${top:?}" "${state:?}"
host_packages=systemd-sysv,dbus,udev,kmod,openssh-server,apparmor,btrfs-progs,sudo,lxd,lxd-client,dnsmasq-base,nftables
host_packages+=,iptables,iproute2,linux-image-amd64,initramfs-tools,ca-certificates,curl,procps,openssl,e2fsprogs

# Changes with everything that goes into the disks.
recipe() {
    { echo "$host_packages" && declare -f make_root first_boot make_image allow_services; } | sha256sum
}

ensure_host() {
    need qemu-system-x86
    # Where it is of another release than QEMU, its installation removed it.
    need qemu-utils debootstrap debian-archive-keyring squashfs-tools e2fsprogs openssh-client curl jq
    [ "$(cat "$state/recipe" 2>/dev/null)" != "$(recipe)" ] || return 0
    rm -f "$state/recipe"
    [ -e "$state/key" ] || ssh-keygen -q -t ed25519 -N '' -C tests/host.sh -f "$state/key"
    make_image "$state/image.tmp"
    make_root "$state/root.tmp"
    as_root install -d "$state/root.tmp/var/tmp/image"
    as_root cp "$state/image.tmp/metadata.tar" "$state/image.tmp/root.squashfs" "$state/root.tmp/var/tmp/image/"
    as_root cp "$state/root.tmp/vmlinuz" "$state/root.tmp/initrd.img" "$state/"
    rm -f "$state/root.raw" "$state/pool.raw"
    truncate -s 6G "$state/root.raw"
    truncate -s 8G "$state/pool.raw"
    logged "making the host's disk" as_root mke2fs -q -t ext4 -d "$state/root.tmp" "$state/root.raw"
    as_root chown "$(id -u):$(id -g)" "$state/vmlinuz" "$state/initrd.img" "$state/root.raw"
    remove_tree "$state/root.tmp"
    remove_tree "$state/image.tmp"
    first_boot
    recipe >"$state/recipe"
}

# make_root FOLDER
make_root() {
    remove_tree "$1"
    say "installing Debian 12 for the host (some minutes)"
    mirror=http://deb.debian.org/debian
    [ "$(os_release ID)" != debian ] || mirror=$(own_mirror)
    logged "installing the host" as_root debootstrap --variant=minbase --include="$host_packages" bookworm "$1" "$mirror"
    # What every instance and job needs of the kernel has a module; the boot needs only these.
    as_root sed -i 's/^MODULES=.*/MODULES=list/' "$1/etc/initramfs-tools/initramfs.conf"
    printf '%s\n' virtio_pci virtio_blk virtio_net ext4 | as_root tee -a "$1/etc/initramfs-tools/modules" >/dev/null
    logged "making the host's initrd" as_root chroot "$1" update-initramfs -u
    echo farm | as_root tee "$1/etc/hostname" >/dev/null
    echo '127.0.0.1 localhost farm' | as_root tee "$1/etc/hosts" >/dev/null
    echo '/dev/vda / ext4 errors=remount-ro 0 1' | as_root tee "$1/etc/fstab" >/dev/null
    printf '[Match]\nName=en*\n[Network]\nDHCP=ipv4\n' | as_root tee "$1/etc/systemd/network/host.network" >/dev/null
    echo 'nameserver 10.0.2.3' | as_root tee "$1/etc/resolv.conf" >/dev/null
    # The journal of the boot before is what a failure is explained with.
    as_root install -d "$1/var/log/journal"
    logged "setting up the host" as_root chroot "$1" sh -ec '
        useradd -m -s /bin/bash admin
        echo "admin ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/admin
        systemctl enable systemd-networkd ssh
        systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
            fstrim.timer man-db.timer systemd-networkd-wait-online.service
        find /var/cache/apt/archives /var/lib/apt/lists -type f -delete'
    as_root install -d -m 0700 -o 1000 -g 1000 "$1/home/admin/.ssh"
    as_root install -m 0600 -o 1000 -g 1000 "$state/key.pub" "$1/home/admin/.ssh/authorized_keys"
}

# README's step 2: LXD, initialised.
first_boot() {
    say "booting the host for the first time"
    power_on "file=$state/root.raw,format=raw" "file=$state/pool.raw,format=raw"
    in_guest 'sudo lxd init --preseed' >"$state/last.log" <<YAML
storage_pools:
- {name: default, driver: btrfs, config: {source: /dev/vdb}}
networks:
- {name: lxdbr0, type: bridge, config: {ipv4.address: 10.77.0.1/24, ipv4.nat: "true", ipv6.address: none}}
profiles:
- name: default
  devices:
    root: {type: disk, path: /, pool: default}
    eth0: {type: nic, network: lxdbr0, name: eth0}
YAML
    # The instance makes LXD unpack the image once.
    in_guest "cd /var/tmp/image && sudo lxc image import -q metadata.tar root.squashfs --alias $image_alias &&
        sudo rm -r /var/tmp/image && sudo lxc init -q $image_alias first && sudo lxc delete first" </dev/null
    in_guest 'sudo aa-status --enabled' </dev/null || die "AppArmor is off in the host"
    in_guest 'sudo systemctl poweroff' </dev/null || true
    wait_off
}
