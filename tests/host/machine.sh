# The host as a machine: power, and a shell in it.
# shellcheck shell=bash

: "${state:?}"
ssh_port=0
hook_port=0
qemu_pid=
listener_pid=
# What the host's journal, its LXD and GitHub tell, line by line as it happens.
events=$state/events
console=$state/console

# power_on ROOT-DRIVE POOL-DRIVE [CLOCK]: starts the host and waits until one can log in.
power_on() {
    : >"$console"
    qemu-system-x86_64 -machine q35 -accel tcg,thread=multi -smp 2 -m 2560 -nodefaults -no-user-config -display none \
        -kernel "$state/vmlinuz" -initrd "$state/initrd.img" -no-reboot \
        -append "root=/dev/vda rw console=ttyS0 quiet loglevel=4 mitigations=off panic=-1" \
        -drive "if=virtio,cache=none,$1" -drive "if=virtio,cache=none,$2" -rtc "base=${3:-utc}" -serial "file:$console" \
        -device virtio-rng-pci -device virtio-net-pci,netdev=net -netdev \
        "user,id=net,hostfwd=tcp:127.0.0.1:$ssh_port-:22,hostfwd=tcp:127.0.0.1:$hook_port-:5000" \
        </dev/null >"$state/qemu.log" 2>&1 9>&- &
    qemu_pid=$!
    local deadline=$((SECONDS + 600))
    # The first to log in stays: all others come through its connection.
    until connect -fNM -o ConnectTimeout=10 2>/dev/null; do
        lives || die "QEMU ended while the host booted: $(tail -n 5 "$state/qemu.log" "$console")"
        [ "$SECONDS" -lt "$deadline" ] || die "nobody can log in to the host 600 s after power-on: $(tail -n 5 "$console")"
        sleep 1
    done
}

connect() {
    ssh -q -F none -i "$state/key" -p "$ssh_port" -S "$state/ssh.sock" -o BatchMode=yes -o StrictHostKeyChecking=no \
        -o UserKnownHostsFile=/dev/null "$@" admin@127.0.0.1 </dev/null >/dev/null 9>&-
}

# in_guest COMMAND…: by a shell of the user admin.
in_guest() {
    ssh -q -F none -S "$state/ssh.sock" -o BatchMode=yes admin@127.0.0.1 "$@" 9>&-
}

lives() {
    [ -n "$qemu_pid" ] && kill -0 "$qemu_pid" 2>/dev/null
}

# The host was told to go down (QEMU ends when it would reboot, too).
wait_off() {
    local deadline=$((SECONDS + 300))
    while lives; do
        [ "$SECONDS" -lt "$deadline" ] || die "the host does not go down within 300 s: $(tail -n 5 "$console")"
        sleep 0.5
    done
    forget_qemu
}

power_cut() {
    kill -KILL "$qemu_pid"
    forget_qemu
}

forget_qemu() {
    wait "$qemu_pid" 2>/dev/null || true
    [ -z "$listener_pid" ] || wait "$listener_pid" 2>/dev/null || true
    qemu_pid='' listener_pid=''
    rm -f "$state/ssh.sock"
}

# Appends to $events what the journal has of this boot, and what LXD does from now on.
listen() {
    in_guest 'sudo journalctl -b -n all -f -o short-unix -u lxd -u lxdrunner &
        exec sudo lxc monitor --type=lifecycle --format=json' </dev/null >>"$events" 2>/dev/null &
    listener_pid=$!
}

free_port() {
    local port=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
    echo "$port"
}

# boot [CLOCK]: on overlays that are as the last boot of this run left them.
boot() {
    local began=$SECONDS
    power_on "file=$state/root.qcow2,format=qcow2" "file=$state/pool.qcow2,format=qcow2" "$@"
    listen
    say "   one can log in, $((SECONDS - began)) s after power-on"
}
