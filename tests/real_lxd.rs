//! The built daemon on a real LXD: containers really start, the runner package's processes really run in them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use standin::github::{Event, Fault, JobSpec};
use support::*;

/// Checks, as a job, what a job must and must not find.
const LOOK_AROUND: &str = r#"
set -eu
test "$(id -un)" = runner
test "$HOME" = /home/runner
test ! -r /run/lxdrunner/credentials
sudo test ! -e /run/lxdrunner/credentials
test "$(sudo stat -f -c %T /run/lxdrunner)" = tmpfs
if env | grep -q JITCONFIG; then echo "the JIT config is in the job's environment"; exit 1; fi
test ! -e /opt/lxdrunner/package.tar.gz
# Nothing of another job: the home is as it was made.
test ! -e "$HOME/was-here"
touch "$HOME/was-here"
"#;

#[test]
fn the_main_job() {
    let Some(rig) = Rig::real(Plan::default()) else { return };
    let job = rig.github.queue(&repo(), JobSpec::new(&["self-hosted", "linux"]).script(LOOK_AROUND));
    assert_eq!(rig.wait_done(job), "success", "{:?}", rig.github.with(|s| s.jobs[&job].log.clone()));
    rig.wait_nothing_left();
    rig.daemon.wait(&[&format!("job={job}"), "msg=\"instance gone\"", "ran_a_job=true"]);
    assert_eq!(rig.complaints(), Vec::<String>::new());
    let launched = rig.github.timeline().iter().filter(|m| matches!(m.event, Event::Registered { .. })).count();
    assert_eq!(launched, 1, "one job, one instance");
}

#[test]
fn the_environment_of_the_class_reaches_set_up_and_job() {
    let scratch = Scratch::new();
    let script = scratch.0.join("setup.sh");
    let text =
        include_str!("../provision/setup-runner.sh").replacen('\n', "\necho \"$GREETING $OTHER\" >/var/tmp/seen\n", 1);
    std::fs::write(&script, text).unwrap();
    // The tab keeps TABBED from the file that the job's environment is read from: it comes by the container's init.
    let class = format!(
        "  - {{name: own, labels: [self-hosted], image: IMAGE, runner_arch: x64, template: false, setup_script: {},\n     \
         env: {{GREETING: \"it's $HOME\", LC_TIME: C}}, config: {{environment.OTHER: o, environment.TABBED: \"a\\tb\"}}}}\n",
        script.display()
    );
    let Some(rig) = Rig::real(Plan { classes: class, ..Plan::default() }) else { return };
    let look = r#"
test "$GREETING" = "it's \$HOME"
test "$OTHER $LC_TIME $LANG" = "o C C.UTF-8"
test "$TABBED" = "$(printf 'a\tb')"
test -z "${container:-}"
test "$(cat /var/tmp/seen)" = "it's \$HOME o"
# A network that has only a proxy has no default route.
sudo ip route del default
await="sudo LXDRUNNER_SETUP_TIMEOUT=1"
$await https_proxy=http://192.0.2.1:3128 /opt/lxdrunner/start-runner.sh await
if $await /opt/lxdrunner/start-runner.sh await; then exit 1; fi
"#;
    let job = rig.github.queue(&repo(), JobSpec::new(&["self-hosted"]).script(look));
    assert_eq!(rig.wait_done(job), "success", "{}", rig.github.with(|s| s.jobs[&job].log.clone()));
    rig.wait_nothing_left();
}

/// Instead of a package manager: tells what it was asked for, and brings what Docker's package would.
const BEFORE: &str = r#"#!/bin/sh
set -eu
ip route show default | grep -q via
useradd --no-create-home --home-dir /home/runner runner
cat >/usr/local/sbin/apt-get <<'FAKE'
#!/bin/sh
echo "$@" >>/var/tmp/apt
case "$*" in *docker.io*) groupadd docker ;; esac
FAKE
chmod 755 /usr/local/sbin/apt-get
"#;

const AFTER: &str =
    "#!/bin/sh\nid runner >/dev/null && test -x /opt/lxdrunner/runner/run.sh && echo after >/var/tmp/after\n";

const WHAT_IS_INSIDE: &str = r#"
set -eu
grep -q 'install .* git make$' /var/tmp/apt
test -e /var/tmp/after
test -w "$HOME"
id -Gn | grep -qw docker
test -d /dev/.lxc/proc # nesting
test "$(cat /var/tmp/hooked)" = "started as runner"
test "$NODE_EXTRA_CA_CERTS" = /opt/lxdrunner/authorities.pem
test "$(grep BEGIN "$NODE_EXTRA_CA_CERTS")" = "-----BEGIN CERTIFICATE-----"
grep -qF "$(sed -n 3p "$NODE_EXTRA_CA_CERTS")" /etc/ssl/certs/ca-certificates.crt
if test -e /usr/lib/*/security/pam_systemd.so; then
    n=0
    until test -S "$XDG_RUNTIME_DIR/systemd/private"; do n=$((n + 1)); test $n -lt 100; sleep 0.1; done
    systemctl --user show-environment >/dev/null
else
    test -z "${XDG_RUNTIME_DIR:-}"
fi
"#;

#[test]
fn what_the_class_asks_for_is_inside() {
    let scratch = Scratch::new();
    let write = |name: &str, text: &str| std::fs::write(scratch.0.join(name), text).unwrap();
    write("before.sh", BEFORE);
    write("after.sh", AFTER);
    write("started.sh", "#!/bin/bash\necho \"started as $(id -un)\" >/var/tmp/hooked\n");
    write("completed.sh", "#!/bin/bash\necho \"completed $GITHUB_JOB\"\n");
    // Of the file only the certificates go in.
    let (key, certificate) = (include_str!("fixtures/keys/app.pem"), include_str!("fixtures/keys/cert.pem"));
    write("ca.pem", &format!("{key}{certificate}"));
    let at = scratch.0.display();
    let class = format!(
        "  - {{name: own, labels: [self-hosted], image: IMAGE, runner_arch: x64, template: false, docker: true,\n     \
         packages: [git, make], setup_script: {{before: {at}/before.sh, after: {at}/after.sh}},\n     \
         hooks: {{job_started: {at}/started.sh, job_completed: {at}/completed.sh}}}}\n"
    );
    let Some(rig) = Rig::real(Plan { classes: class, ..Plan::with(&format!("ca_file: {at}/ca.pem")) }) else { return };
    let job = rig.github.queue(&repo(), JobSpec::new(&["self-hosted"]).script(WHAT_IS_INSIDE));
    let log = || rig.github.with(|s| s.jobs[&job].log.clone());
    assert_eq!(rig.wait_done(job), "success", "{}", log());
    assert!(log().contains(&format!("completed {job}\n")), "{}", log());
    rig.wait_nothing_left();
}

#[test]
fn a_network_that_does_not_lead_to_github_is_told_while_the_set_up_waits() {
    // Packets to this network are dropped on the way.
    let class = "  - {name: cut, labels: [self-hosted], image: IMAGE, runner_arch: x64, template: false,\n     \
                 env: {http_proxy: \"http://user:word@192.0.2.1:3128/\"}}\n";
    let Some(rig) = Rig::real(Plan { classes: class.to_owned(), ..Plan::default() }) else { return };
    let job = rig.queue();
    let line = rig.daemon.wait(&["ERROR", "launch failed", "cannot connect to 192.0.2.1:3128 from inside: "]);
    assert!(line.contains("iptables -I DOCKER-USER -i ") && !line.contains("BRIDGE"), "{line}");
    rig.github.cancel(job);
}

#[test]
fn a_copy_that_does_not_reach_github_is_told_at_once() {
    let scratch = Scratch::new();
    let script = scratch.0.join("after.sh");
    std::fs::write(&script, CUT_OFF_COPIES).unwrap();
    let class = format!(
        "  - {{name: cut, labels: [self-hosted], image: IMAGE, runner_arch: x64, setup_script: {{after: {}}}}}\n",
        script.display()
    );
    let Some(rig) = Rig::real(Plan { classes: class, ..Plan::default() }) else { return };
    rig.daemon.wait(&["msg=\"template ready\""]);
    let job = rig.queue();
    rig.daemon.wait(&[&format!("job={job}"), "from=template"]);
    // Long before provision_timeout, which is five minutes.
    rig.daemon.wait(&["ERROR", "launch failed", "cannot connect to 192.0.2.1:3128 "]);
    rig.github.cancel(job);
    rig.wait_instances(|names| names.iter().all(|name| name.contains("-template-")));
    assert_eq!(rig.registrations(), Vec::<String>::new());
}

/// In copies everything goes by a proxy that answers nothing. The set-up itself has reached GitHub by then.
const CUT_OFF_COPIES: &str = "#!/bin/sh\necho http_proxy=http://192.0.2.1:3128 >>/etc/environment\n";

#[test]
fn a_burst_each_job_in_an_instance_of_its_own() {
    let Some(rig) = Rig::real(Plan::with("max_workers: 3")) else { return };
    let spec = || JobSpec::new(&["self-hosted"]).script(LOOK_AROUND);
    let jobs: Vec<_> = (0..6).map(|_| rig.github.queue(&repo(), spec())).collect();
    for job in jobs {
        assert_eq!(rig.wait_done(job), "success");
    }
    rig.wait_nothing_left();
}

#[test]
fn a_server_without_the_jit_endpoint_is_served_with_a_registration_token() {
    let Some(rig) = Rig::real(Plan::default()) else { return };
    rig.github.with(|state| state.jit = false);
    let job = rig.github.queue(&repo(), JobSpec::new(&["self-hosted"]).script(LOOK_AROUND));
    assert_eq!(rig.wait_done(job), "success");
    let by_token = rig.github.timeline().iter().any(|m| matches!(m.event, Event::Registered { jit: false, .. }));
    assert!(by_token);
    rig.wait_nothing_left();
}

#[test]
fn a_kill_in_the_middle_of_a_job_and_one_in_the_middle_of_a_launch() {
    let Some(mut rig) = Rig::real(Plan::default()) else { return };
    let slow = JobSpec::new(&["self-hosted"]).script("sleep 3; echo done");
    let first = rig.github.queue(&repo(), slow);
    let started = |e: &Event| matches!(e, Event::JobStarted { job, .. } if *job == first);
    rig.github.wait_event(PATIENCE, 0, started).unwrap();
    rig.restart();
    let second = rig.queue();
    rig.daemon.wait(&["msg=\"instance made\""]);
    rig.restart();
    assert_eq!(rig.wait_done(first), "success");
    assert_eq!(rig.wait_done(second), "success");
    rig.wait_instances(|names| names.is_empty());
}

#[test]
fn a_set_up_script_of_ones_own_that_fails_is_told_with_its_output() {
    let scratch = Scratch::new();
    let script = scratch.0.join("setup.sh");
    std::fs::write(&script, "#!/bin/sh\nfor n in $(seq 1 60); do echo \"line $n of mine\"; done\nexit 7\n").unwrap();
    let class = format!(
        "  - {{name: own, labels: [self-hosted], image: IMAGE, type: container, runner_os: linux, runner_arch: x64, template: false, setup_script: {}}}\n",
        script.display()
    );
    let Some(rig) = Rig::real(Plan { classes: class, ..Plan::default() }) else { return };
    rig.queue();
    rig.daemon.wait(&["ERROR", "setup_script ended with code 7"]);
    rig.daemon.wait(&["line 60 of mine"]);
    assert_eq!(rig.daemon.count(&["line 20 of mine"]), 0);
    rig.daemon.wait(&["reason=\"its making failed\"", "msg=removed"]);
    let kept = kept(&rig);
    assert!(kept.contains("why: setup_script ended with code 7\n"), "{kept}");
    // More than the log has, though the script keeps none itself.
    assert!(kept.contains("==> what it printed\nline 1 of mine\n") && kept.contains("line 60 of mine"), "{kept}");
}

/// What the daemon keeps of instances that failed.
fn kept(rig: &Rig) -> String {
    let files = std::fs::read_dir(rig.scratch.0.join("cache/failures")).unwrap();
    files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn a_runner_that_never_comes_online_is_heard_before_it_goes() {
    let Some(rig) = Rig::real(Plan::with("provision_timeout: 25")) else { return };
    rig.github.inject(Fault::status("/_runner/sessions", 500, "out of order").times(usize::MAX));
    let job = rig.queue();
    let line = rig.daemon.wait(&["did not come online within provision_timeout", "msg=removed"]);
    assert!(line.contains(" see=\"lxdrunner failures "), "{line}");
    let first = kept(&rig);
    for part in [
        &format!("job: {job}\n"),
        // Of the set-up, the start script, the runner's output and its own log.
        "lxdrunner-setup: ",
        "starting the runner",
        "Connected to GitHub",
        "INFO Runner] Runner connect error: status 500",
    ] {
        assert!(first.contains(part), "{part:?} is not in {first}");
    }
    for secret in ["eyJ", "secret", rig.github.token().expose()] {
        assert!(!first.contains(secret), "{secret} is in {first}");
    }
    rig.github.clear_faults();
    rig.github.cancel(job);
}

#[test]
fn an_image_and_a_profile_that_do_not_exist_are_named() {
    let classes = "  - {name: no-image, labels: [a], image: no-such-image, type: container, runner_os: linux, runner_arch: x64, template: false}\n  \
                   - {name: no-profile, labels: [b], image: IMAGE, profiles: [no-such-profile], type: container, runner_os: linux, runner_arch: x64, template: false}\n";
    let Some(rig) = Rig::real(Plan { classes: classes.to_owned(), ..Plan::default() }) else { return };
    rig.github.queue(&repo(), JobSpec::new(&["a"]));
    rig.github.queue(&repo(), JobSpec::new(&["b"]));
    rig.daemon.wait(&["ERROR", "class \\\"no-image\\\"", "launch failed"]);
    rig.daemon.wait(&["ERROR", "class \\\"no-profile\\\"", "launch failed", "no-such-profile"]);
    assert_eq!(rig.instances(), Vec::<String>::new());
}

#[test]
fn an_instance_without_a_network_is_told_by_the_set_up_itself() {
    // The profile's nic is taken away: no route will ever come.
    let classes = "  - {name: lonely, labels: [a], image: IMAGE, type: container, runner_os: linux, runner_arch: x64, template: false, devices: {eth0: {type: none}}}\n";
    let plan = Plan { classes: classes.to_owned(), ..Plan::with("provision_timeout: 8") };
    let Some(rig) = Rig::real(plan) else { return };
    rig.github.queue(&repo(), JobSpec::new(&["a"]));
    rig.daemon.wait(&["ERROR", "launch failed", "reason=\"no default route after"]);
}
