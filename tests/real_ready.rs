//! Templates and standbys on a real LXD: what a copy must not share, and that a claimed standby works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use lxdrunner::model::{JobId, keys};
use standin::github::JobSpec;
use support::*;

fn plan(class: &str) -> Plan {
    let classes = format!(
        "  - {{name: small, labels: [self-hosted], image: IMAGE, type: container, runner_os: linux, runner_arch: x64{class}}}\n"
    );
    Plan { classes, ..Plan::default() }
}

/// Prints what must be each copy's own, and checks what a job must find.
const IDENTITY: &str = r#"
set -eu
test -s /etc/machine-id
test "$(cat /etc/machine-id)" = "$(cat /var/lib/dbus/machine-id)"
test ! -e /opt/lxdrunner/package.tar.gz
test ! -e /opt/lxdrunner/seal-template.sh
sudo test ! -e /run/lxdrunner/credentials
test "$(hostname)" = "$(cat /etc/hostname 2>/dev/null || hostname)"
test ! -e "$HOME/was-here"
touch "$HOME/was-here"
echo "machine=$(cat /etc/machine-id)"
echo "hostname=$(hostname)"
echo "address=$(cat /sys/class/net/eth0/address)"
"#;

/// What an image with SSH and cloud-init leaves in an instance, which the test image has neither of. The key maker is a
/// stub: what matters is who is asked for keys, and when.
const TRACES: &str = r#"
mkdir -p /etc/ssh /etc/cloud /etc/netplan /var/lib/dhcp /var/lib/systemd/network
echo baked | tee /etc/ssh/ssh_host_rsa_key /etc/ssh/ssh_host_ed25519_key /etc/ssh/ssh_host_rsa_key.pub >/dev/null
printf '#!/bin/sh\ntest "$1" = -A\nfor kind in rsa ed25519; do cat /proc/sys/kernel/random/uuid >/etc/ssh/ssh_host_${kind}_key; done\n' >/usr/bin/ssh-keygen
chmod 755 /usr/bin/ssh-keygen
echo baked >/var/lib/dhcp/dhclient.eth0.leases
echo baked >/var/lib/systemd/random-seed
printf 'network:\n  ethernets:\n    eth0:\n      dhcp4: true\n      match:\n        macaddress: 00:16:3e:00:00:01\n      set-name: eth0\n' >/etc/netplan/50-cloud-init.yaml
echo "127.0.1.1 $LXDRUNNER_NAME" >>/etc/hosts
echo "$LXDRUNNER_NAME" >/etc/hostname
"#;

/// In a copy: none of it is left, what is needed was made anew, and the rest of what tells it from others.
const NO_TRACES: &str = r#"
for kind in rsa ed25519; do
    n=0
    until sudo test -s /etc/ssh/ssh_host_${kind}_key; do n=$((n + 1)); test $n -lt 200; sleep 0.1; done
    sudo cat /etc/ssh/ssh_host_${kind}_key | sed "s/^/$kind=/"
done
sudo grep -rs baked /etc/ssh /var/lib/dhcp /var/lib/systemd/random-seed && exit 7
grep -E 'macaddress|set-name' /etc/netplan/50-cloud-init.yaml && exit 8
grep -q 'dhcp4: true' /etc/netplan/50-cloud-init.yaml
test -e /etc/cloud/cloud-init.disabled
grep -e -template- /etc/hosts /etc/hostname && exit 9
echo "client=$(sudo cat /run/systemd/netif/leases/* | sed -n 's/^CLIENTID=//p' | head -n 1)"
"#;

/// True where templates are images.
fn is_clustered(rig: &Rig) -> bool {
    rig.lxd.server().unwrap().clustered
}

/// Fingerprints of the images that are templates of ours.
fn template_images(rig: &Rig) -> Vec<String> {
    let images = rig.lxd.images("default").unwrap().into_iter();
    let ours = images.filter(|image| image.properties.get(keys::OWNER) == Some(&rig.prefix));
    ours.map(|image| image.fingerprint).collect()
}

fn log_of(rig: &Rig, job: JobId) -> String {
    rig.github.with(|state| state.jobs[&job].log.clone())
}

fn value(log: &str, key: &str) -> String {
    let line = log.lines().find_map(|line| line.trim().strip_prefix(&format!("{key}=")));
    line.unwrap_or_else(|| panic!("no {key} in {log}")).to_owned()
}

fn identified(rig: &Rig) -> (JobId, String) {
    run(rig, IDENTITY)
}

fn run(rig: &Rig, script: &str) -> (JobId, String) {
    let job = rig.github.queue(&repo(), JobSpec::new(&["self-hosted"]).script(script));
    assert_eq!(rig.wait_done(job), "success", "{}", log_of(rig, job));
    (job, log_of(rig, job))
}

#[test]
fn copies_of_a_template_share_neither_ids_nor_names() {
    let scratch = Scratch::new();
    let script = scratch.0.join("setup.sh");
    let (first, rest) = include_str!("../provision/setup-runner.sh").split_once('\n').unwrap();
    std::fs::write(&script, format!("{first}\n{TRACES}{rest}")).unwrap();
    let Some(rig) = Rig::real(plan(&format!(", setup_script: {}", script.display()))) else { return };
    rig.daemon.wait(&["msg=\"template ready\""]);
    let mut seen: [BTreeSet<String>; 6] = Default::default();
    for _ in 0..2 {
        let (job, log) = run(&rig, &format!("{IDENTITY}{NO_TRACES}"));
        let made = rig.daemon.wait(&[&format!("job={job}"), "from=template", "msg=\"instance made\""]);
        assert!(made.contains(&format!("instance={} ", value(&log, "hostname"))), "{made}\n{log}");
        for (set, key) in seen.iter_mut().zip(["machine", "hostname", "address", "rsa", "ed25519", "client"]) {
            assert!(set.insert(value(&log, key)), "{key} again: {log}");
        }
    }
    assert_eq!(rig.complaints(), Vec::<String>::new());
}

#[test]
fn the_first_start_of_a_copy_has_nothing_to_remap() {
    let Some(rig) = Rig::real(plan("")) else { return };
    if is_clustered(&rig) {
        // An image has its ids as they are inside.
        return;
    }
    rig.daemon.wait(&["msg=\"template ready\""]);
    let idmap = |name: &str| {
        let (instance, _) = rig.lxd.instance("default", name).unwrap().unwrap();
        instance.config.get("volatile.last_state.idmap").cloned().unwrap()
    };
    let template = rig.instances().into_iter().find(|name| name.contains("-template-")).unwrap();
    // Empty where the kernel shifts ids as it mounts: then there is never anything to remap.
    assert!(idmap(&template) == "[]" || idmap(&template).contains("Hostid"), "{}", idmap(&template));
    let job = rig.github.queue(&repo(), JobSpec::new(&["self-hosted"]).script("sleep 2"));
    rig.daemon.wait(&[&format!("job={job}"), "msg=\"runner started\""]);
    let copy = rig.instances().into_iter().find(|name| name.contains(&job.to_string())).unwrap();
    assert_eq!(idmap(&copy), idmap(&template));
    assert_eq!(rig.wait_done(job), "success");
}

#[test]
fn a_standby_takes_its_job_and_another_is_prepared() {
    let Some(mut rig) = Rig::real(plan(", standby: 1")) else { return };
    let mut hosts = BTreeSet::new();
    for round in 1..=2 {
        let ready = rig.daemon.wait_count(&["msg=\"standby ready\""], round);
        let standby = ready.split_whitespace().find_map(|word| word.strip_prefix("instance=")).unwrap();
        // LXD answers 404 where a file that is new to it is taken before it has set its mode, as the runner takes this one.
        let (credentials, patience) = ("/run/lxdrunner/credentials", Duration::from_secs(10));
        let place = rig.lxd.pull_file_tail("default", standby, credentials, 100, patience);
        assert_eq!(place.unwrap().as_deref(), Some(""));
        let (job, log) = identified(&rig);
        rig.daemon.wait(&[&format!("job={job}"), "from=standby", &value(&log, "hostname")]);
        assert!(hosts.insert(value(&log, "machine")), "{log}");
    }
    rig.daemon.wait_count(&["msg=\"standby ready\""], 3);
    // One that a process before prepared is claimed without its ETag.
    rig.restart();
    rig.daemon.wait(&["package=linux-x64", "msg=ready"]);
    let (job, _) = identified(&rig);
    rig.daemon.wait(&[&format!("job={job}"), "from=standby"]);
    assert_eq!(rig.complaints(), Vec::<String>::new());
}

/// Takes the network away once it is ready to be frozen.
const CUT_OFF_STANDBYS: &str = r#"#!/bin/sh
cat >/etc/systemd/system/cut-off.service <<'UNIT'
[Service]
ExecStart=/bin/sh -c 'until [ -e /run/lxdrunner/watchdogs-off ]; do sleep 0.1; done; ip link set eth0 down'
UNIT
mkdir -p /etc/systemd/system/multi-user.target.wants
ln -sf ../cut-off.service /etc/systemd/system/multi-user.target.wants/cut-off.service
"#;

#[test]
fn a_claimed_standby_that_lost_its_network_is_told_with_what_its_start_script_says() {
    let scratch = Scratch::new();
    let script = scratch.0.join("after.sh");
    std::fs::write(&script, CUT_OFF_STANDBYS).unwrap();
    let Plan { classes, .. } = plan(&format!(", standby: 1, setup_script: {{after: {}}}", script.display()));
    let Some(rig) = Rig::real(Plan { classes, ..Plan::with("provision_timeout: 45") }) else { return };
    rig.daemon.wait(&["msg=\"standby ready\""]);
    let job = rig.queue();
    rig.daemon.wait(&[&format!("job={job}"), "from=standby"]);
    let line = rig.daemon.wait(&["WARN", "-standby-", "did not come online within provision_timeout: ", "msg=removed"]);
    assert!(line.contains("no default route after 20 s") || line.contains("cannot connect to "), "{line}");
    rig.github.cancel(job);
}

/// What updates packages by itself does not run beside a job, and units of the class have started.
const QUIET: &str = r#"
test -e /usr/lib/systemd/system/apt-daily.timer
for unit in apt-daily.timer apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service; do
    echo "$unit=$(systemctl is-enabled $unit) $(systemctl is-active $unit)"
done
echo "slow=$(systemctl is-active slow.service)"
"#;

#[test]
fn nothing_updates_packages_beside_a_job_and_the_class_says_what_a_job_waits_for() {
    let scratch = Scratch::new();
    let script = scratch.0.join("after.sh");
    std::fs::write(&script, format!("#!/bin/sh\n{}", SLOW_UNIT.replace("sleep 10", "sleep 5"))).unwrap();
    let class = format!(", wait_for: [slow.service], setup_script: {{after: {}}}", script.display());
    let Some(rig) = Rig::real(plan(&class)) else { return };
    let (first, of_image) = run(&rig, QUIET);
    rig.daemon.wait(&[&format!("job={first}"), "from=image", "msg=\"instance made\""]);
    rig.daemon.wait(&["msg=\"template ready\""]);
    let (second, of_template) = run(&rig, QUIET);
    rig.daemon.wait(&[&format!("job={second}"), "from=template", "msg=\"instance made\""]);
    for log in [of_image, of_template] {
        for unit in ["apt-daily.timer", "apt-daily-upgrade.timer", "apt-daily.service", "apt-daily-upgrade.service"] {
            assert_eq!(value(&log, unit), "masked inactive", "{log}");
        }
        assert_eq!(value(&log, "slow"), "active", "{log}");
    }
}

#[test]
fn a_script_that_fails_while_baking_keeps_no_job_from_the_image() {
    let scratch = Scratch::new();
    let script = scratch.0.join("setup.sh");
    let text = include_str!("../provision/setup-runner.sh");
    let fails = "if [ -n \"${LXDRUNNER_BAKING:-}\" ]; then echo 'the oven is cold'; exit 9; fi\n";
    let (first, rest) = text.split_once('\n').unwrap();
    std::fs::write(&script, format!("{first}\n{fails}{rest}")).unwrap();
    let Some(rig) = Rig::real(plan(&format!(", setup_script: {}", script.display()))) else { return };
    rig.daemon.wait(&["ERROR", "template of class", "setup_script ended with code 9"]);
    rig.daemon.wait(&["the oven is cold"]);
    let (job, _) = identified(&rig);
    rig.daemon.wait(&[&format!("job={job}"), "from=image"]);
    rig.wait_instances(|names| names.is_empty());
}

#[test]
fn a_class_that_was_edited_gets_a_template_and_standbys_of_its_own() {
    let Some(mut rig) = Rig::real(plan(", standby: 1")) else { return };
    rig.daemon.wait(&["msg=\"standby ready\""]);
    let (before, images) = (rig.instances(), template_images(&rig));
    assert_eq!((before.len(), images.len()), if is_clustered(&rig) { (1, 1) } else { (2, 0) });
    rig.daemon.kill();
    let path = rig.scratch.0.join("config.yml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("standby: 1", "standby: 1, config: {limits.processes: 3000}")).unwrap();
    rig.restart();
    rig.daemon.wait(&["msg=\"standby ready\""]);
    rig.wait_instances(|names| names.len() == before.len() && !names.iter().any(|name| before.contains(name)));
    if let [old] = &images[..] {
        rig.daemon.wait(&[&format!("image={old}"), "msg=removed"]);
        assert!(template_images(&rig).len() == 1 && template_images(&rig) != images);
    }
    let (job, _) = identified(&rig);
    rig.daemon.wait(&[&format!("job={job}"), "from=standby"]);
}

/// A unit whose start takes ten seconds, beside those that every systemd has.
const SLOW_UNIT: &str = r#"
cat >/etc/systemd/system/slow.service <<UNIT
[Service]
Type=notify
NotifyAccess=all
ExecStart=/bin/sh -c 'sleep 10; systemd-notify --ready; exec sleep infinity'
[Install]
WantedBy=multi-user.target
UNIT
mkdir -p /etc/systemd/system/multi-user.target.wants
ln -sf ../slow.service /etc/systemd/system/multi-user.target.wants/slow.service
"#;

/// What failed, and what systemd killed because the clock went on.
const UNITS: &str = r#"
sudo systemctl --failed --plain --no-legend | sed 's/^\([^ ]*\).*/failed=\1/'
sudo journalctl -b --no-pager | sed -n 's/.*systemd.1.: \(.*\.service: \(Watchdog timeout\|[a-z-]* operation timed out\).*\)/killed=\1/p'
begun=$(date +%s%N)
echo "slow=$(systemctl is-active slow.service)"
networkctl >/dev/null && echo "networkctl_ms=$(($(date +%s%N) / 1000000 - begun / 1000000))"
"#;

/// `LXDRUNNER_TEST_FROZEN=210` is how long it waits, in seconds: the watchdogs of systemd's own services run out after 180.
#[test]
fn a_standby_that_was_frozen_for_minutes_has_all_its_units() {
    let Some(seconds) = std::env::var("LXDRUNNER_TEST_FROZEN").ok().and_then(|seconds| seconds.parse().ok()) else {
        return;
    };
    let scratch = Scratch::new();
    let script = scratch.0.join("setup.sh");
    let (first, rest) = include_str!("../provision/setup-runner.sh").split_once('\n').unwrap();
    std::fs::write(&script, format!("{first}\n{SLOW_UNIT}{rest}")).unwrap();
    let Some(rig) = Rig::real(plan(&format!(", standby: 1, setup_script: {}", script.display()))) else { return };
    rig.daemon.wait(&["msg=\"template ready\""]);
    // What fails in every boot of this image; the job may come before there is a standby.
    let (job, usual) = run(&rig, &format!("timeout 60 systemctl is-system-running --wait; {UNITS}"));
    println!("job={job} {}", rig.daemon.wait(&[&format!("job={job}"), "msg=\"instance made\""]));
    rig.wait_instances(|names| names.iter().any(|name| name.contains("-standby-")));
    rig.daemon.wait(&["msg=\"standby ready\""]);
    std::thread::sleep(std::time::Duration::from_secs(seconds));
    let (job, log) = run(&rig, UNITS);
    rig.daemon.wait(&[&format!("job={job}"), "from=standby"]);
    println!("usual: {usual}\nthawed after {seconds} s: {log}");
    let lost = |line: &&str| (line.contains("failed=") || line.contains("killed=")) && !usual.contains(line.trim());
    assert_eq!(log.lines().filter(lost).collect::<Vec<_>>(), Vec::<&str>::new(), "{log}");
    assert_eq!(value(&log, "slow"), "active");
}
