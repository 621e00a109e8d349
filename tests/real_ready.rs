//! Templates and standbys on a real LXD: what a copy must not share, and that a claimed standby works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::collections::BTreeSet;

use lxdrunner::model::JobId;
use lxdrunner::standin::github::JobSpec;
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

fn log_of(rig: &Rig, job: JobId) -> String {
    rig.github.with(|state| state.jobs[&job].log.clone())
}

fn value(log: &str, key: &str) -> String {
    let line = log.lines().find_map(|line| line.trim().strip_prefix(&format!("{key}=")));
    line.unwrap_or_else(|| panic!("no {key} in {log}")).to_owned()
}

fn identified(rig: &Rig) -> (JobId, String) {
    let job = rig.github.queue(&repo(), JobSpec::new(&["self-hosted"]).script(IDENTITY));
    assert_eq!(rig.wait_done(job), "success", "{}", log_of(rig, job));
    (job, log_of(rig, job))
}

#[test]
fn copies_of_a_template_share_neither_ids_nor_names() {
    let Some(rig) = Rig::real(plan("")) else { return };
    rig.daemon.wait(&["msg=\"template ready\""]);
    let mut seen: [BTreeSet<String>; 3] = Default::default();
    for _ in 0..2 {
        let (job, log) = identified(&rig);
        let made = rig.daemon.wait(&[&format!("job={job}"), "from=template", "msg=\"instance made\""]);
        assert!(made.contains(&format!("instance={} ", value(&log, "hostname"))), "{made}\n{log}");
        for (set, key) in seen.iter_mut().zip(["machine", "hostname", "address"]) {
            assert!(set.insert(value(&log, key)), "{key} again: {log}");
        }
    }
    assert_eq!(rig.complaints(), Vec::<String>::new());
}

#[test]
fn the_first_start_of_a_copy_has_nothing_to_remap() {
    let Some(rig) = Rig::real(plan("")) else { return };
    rig.daemon.wait(&["msg=\"template ready\""]);
    let idmap = |name: &str| {
        let (instance, _) = rig.lxd.instance("default", name).unwrap().unwrap();
        instance.config.get("volatile.last_state.idmap").cloned().unwrap()
    };
    let template = rig.instances().into_iter().find(|name| name.contains("-template-")).unwrap();
    assert!(idmap(&template).contains("Hostid"), "{}", idmap(&template));
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
        rig.daemon.wait_count(&["msg=\"standby ready\""], round);
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

#[test]
fn a_script_that_fails_while_baking_keeps_no_job_from_the_image() {
    let scratch = Scratch::new();
    let script = scratch.0.join("setup.sh");
    let text = include_str!("../provision/setup-runner.sh");
    let fails = "if [ -n \"${LXDRUNNER_BAKING:-}\" ]; then echo 'the oven is cold'; exit 9; fi\n";
    let (first, rest) = text.split_once('\n').unwrap();
    std::fs::write(&script, format!("{first}\n{fails}{rest}")).unwrap();
    let Some(rig) = Rig::real(plan(&format!(", setup_script: {}", script.display()))) else { return };
    rig.daemon.wait(&["ERROR", "template of class", "setup-runner.sh ended with code 9"]);
    rig.daemon.wait(&["the oven is cold"]);
    let (job, _) = identified(&rig);
    rig.daemon.wait(&[&format!("job={job}"), "from=image"]);
    rig.wait_instances(|names| names.is_empty());
}

#[test]
fn a_class_that_was_edited_gets_a_template_and_standbys_of_its_own() {
    let Some(mut rig) = Rig::real(plan(", standby: 1")) else { return };
    rig.daemon.wait(&["msg=\"standby ready\""]);
    let before = rig.instances();
    rig.daemon.kill();
    let path = rig.scratch.0.join("config.yml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("standby: 1", "standby: 1, config: {limits.processes: 3000}")).unwrap();
    rig.restart();
    rig.daemon.wait(&["msg=\"standby ready\""]);
    rig.wait_instances(|names| names.len() == 2 && !names.iter().any(|name| before.contains(name)));
    let (job, _) = identified(&rig);
    rig.daemon.wait(&[&format!("job={job}"), "from=standby"]);
}
