//! The runner stand-in's package, unpacked and run as a process against the GitHub stand-in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lxdrunner::github::{Deletion, GitHub};
use lxdrunner::model::{RepoName, RunnerArch, Scope};
use standin::github::{Event, Fault, GitHubStandin, JobSpec, Mischief, Removal, Stage};
use standin::package::{self, PackageSpec, Padding};

const WAIT: Duration = Duration::from_secs(60);

/// A directory that is gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("lxdrunner-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn unpack(into: &Path, spec: &PackageSpec) {
    let built = package::build_as(into, spec).unwrap();
    assert_eq!(built.size, built.path.metadata().unwrap().len());
    let status = Command::new("tar").arg("xzf").arg(&built.path).arg("-C").arg(into).status().unwrap();
    assert!(status.success());
}

fn script(at: &Path, name: &str) -> Command {
    let mut command = Command::new(at.join(name));
    command.current_dir(at).env("RUNNER_ALLOW_RUNASROOT", "1").stdin(Stdio::null());
    command
}

fn acme() -> (GitHubStandin, GitHub, Scope, RepoName) {
    let standin = GitHubStandin::start((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    standin.add_org("acme");
    let github = GitHub::new(&standin.api(), standin.token());
    (standin, github, "org:acme".parse().unwrap(), "acme/app".parse().unwrap())
}

fn jit(github: &GitHub, scope: &Scope) -> String {
    let labels = ["self-hosted".to_owned(), "linux".to_owned()];
    github.generate_jit_config(scope, "one", 1, &labels).unwrap().encoded.expose().to_owned()
}

/// Ends a process that a failed test leaves behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn worker_runs(at: &Path) -> bool {
    let program = at.join("bin/Runner.Worker");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|line| line.split(|byte| *byte == 0).any(|word| word == program.as_os_str().as_encoded_bytes()))
}

#[test]
fn a_runner_takes_one_job_and_ends() {
    let scratch = Scratch::new("one-job");
    let at = &scratch.0;
    unpack(at, &PackageSpec::small(RunnerArch::X64));
    let (standin, github, org, repo) = acme();
    let gate = at.join("gate");
    let work = format!("echo \"job $GITHUB_JOB\"; while [ ! -e '{}' ]; do sleep 0.02; done; echo over", gate.display());
    let job = standin.queue(&repo, JobSpec::new(&["self-hosted"]).script(work));
    let other = standin.queue(&repo, JobSpec::new(&["self-hosted"]));
    let mut run = script(at, "run.sh");
    run.env("ACTIONS_RUNNER_INPUT_JITCONFIG", jit(&github, &org));
    let mut run = Running(run.spawn().unwrap());
    standin.wait_event(WAIT, 0, |event| matches!(event, Event::JobStarted { .. })).expect("the job starts");
    assert!(github.runners(&org).unwrap()[0].busy);
    let ours = std::fs::read_dir("/proc").unwrap().flatten();
    let environments = ours.filter(|process| {
        let line = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        line.contains(at.to_str().unwrap()) && line.contains("jitconfig")
    });
    assert_eq!(environments.count(), 0, "the JIT config is in no argument");
    assert!(worker_runs(at), "it is the worker that begins the job");
    std::fs::write(&gate, "").unwrap();
    assert!(run.0.wait().unwrap().success());
    assert!(!worker_runs(at));
    standin.with(|state| {
        assert_eq!(state.jobs[&job].log, format!("job {job}\nover\n"));
        assert_eq!((state.jobs[&job].exit_code, state.jobs[&job].stage), (Some(0), Stage::Completed));
        assert_eq!(state.jobs[&other].stage, Stage::Queued, "it takes exactly one");
        assert!(state.runners.is_empty());
        let last = &state.timeline.last().unwrap().event;
        assert!(matches!(last, Event::Removed { by: Removal::Ephemeral, .. }), "{last:?}");
    });
    assert!(!at.join(".credentials").exists());
}

#[test]
fn a_token_registers_a_runner_too() {
    let scratch = Scratch::new("config");
    let at = &scratch.0;
    unpack(at, &PackageSpec::small(RunnerArch::X64));
    let (standin, github, org, repo) = acme();
    let token = github.registration_token(&org).unwrap();
    let url = github.web_url(&org);
    let arguments = ["--unattended", "--ephemeral", "--url", &url, "--name", "two", "--labels", "gpu"];
    let configure = |token: &str| {
        let mut command = script(at, "config.sh");
        command.args(arguments).env("ACTIONS_RUNNER_INPUT_TOKEN", token).stdout(Stdio::null()).status().unwrap()
    };
    assert!(!configure("wrong").success());
    assert!(configure(token.expose()).success());
    assert!(!configure(token.expose()).success(), "it is configured already");
    let runner = github.runner_by_name(&org, "two").unwrap().unwrap();
    assert!(runner.labels.can_serve(&["self-hosted", "linux", "gpu"].iter().collect()), "{}", runner.labels);
    let job = standin.queue(&repo, JobSpec::new(&["gpu"]).script("exit 3"));
    let mut run = Running(script(at, "run.sh").spawn().unwrap());
    assert!(run.0.wait().unwrap().success());
    standin.with(|state| {
        assert_eq!((state.jobs[&job].exit_code, state.jobs[&job].conclusion), (Some(3), Some("failure")));
        assert!(state.runners.is_empty());
    });
}

/// A directory with only the tools that a system without curl has.
fn tools_without_curl(at: &Path) -> PathBuf {
    let tools = at.join("tools");
    std::fs::create_dir(&tools).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let names = "sh wget base64 sed cat mkdir rm cp chmod id date dirname sleep kill hostname mktemp uname tail printf";
    for name in names.split(' ') {
        let tool = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|tool| tool.exists());
        drop(std::os::unix::fs::symlink(tool.unwrap_or_default(), tools.join(name)));
    }
    tools
}

#[test]
fn wget_does_where_there_is_no_curl() {
    let scratch = Scratch::new("wget");
    let at = &scratch.0;
    unpack(at, &PackageSpec::small(RunnerArch::X64));
    let tools = tools_without_curl(at);
    if !tools.join("wget").exists() {
        return;
    }
    let (standin, github, org, repo) = acme();
    let blob = jit(&github, &org);
    let mut run = script(at, "run.sh");
    run.env("ACTIONS_RUNNER_INPUT_JITCONFIG", &blob).env("PATH", &tools);
    let mut run = Running(run.spawn().unwrap());
    standin.wait_event(WAIT, 0, |event| matches!(event, Event::SessionOpened { .. })).expect("a session");
    let job = standin.queue(&repo, JobSpec::new(&["linux"]).script("echo by wget"));
    assert!(run.0.wait().unwrap().success());
    assert_eq!(standin.with(|state| state.jobs[&job].log.clone()), "by wget\n");
    let output =
        script(at, "run.sh").env("ACTIONS_RUNNER_INPUT_JITCONFIG", &blob).env("PATH", &tools).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("deleted from the server"), "401 is seen");
}

#[test]
fn root_is_refused_and_so_is_a_registration_that_is_gone() {
    let scratch = Scratch::new("refused");
    let at = &scratch.0;
    unpack(at, &PackageSpec::small(RunnerArch::Arm64));
    let (_standin, github, org, _) = acme();
    let blob = jit(&github, &org);
    let runner = github.runner_by_name(&org, "one").unwrap().unwrap();
    github.delete_runner(&org, runner.id).unwrap();
    let output = script(at, "run.sh").env("ACTIONS_RUNNER_INPUT_JITCONFIG", &blob).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("deleted from the server"));
    let root = std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).unwrap() == 0;
    if root {
        let refused = script(at, "run.sh").env_remove("RUNNER_ALLOW_RUNASROOT").stdout(Stdio::null()).status().unwrap();
        assert_eq!(refused.code(), Some(1));
    }
}

#[test]
fn a_listener_that_finds_nobody_tries_again() {
    let scratch = Scratch::new("retry");
    let at = &scratch.0;
    unpack(at, &PackageSpec::small(RunnerArch::X64));
    let (standin, github, org, repo) = acme();
    standin.inject(Fault::on("/_runner/sessions", Mischief::Close).times(2));
    standin.inject(Fault::on("/_runner/message", Mischief::ActThenLose));
    let mut run = script(at, "run.sh");
    run.env("ACTIONS_RUNNER_INPUT_JITCONFIG", jit(&github, &org)).env("LXDRUNNER_STANDIN_RETRY", "0");
    standin.queue(&repo, JobSpec::new(&["linux"]));
    let mut run = Running(run.spawn().unwrap());
    assert!(run.0.wait().unwrap().success());
    assert!(standin.with(|state| state.runners.is_empty()));
}

#[test]
fn a_job_is_acknowledged_and_acquired_before_its_worker_begins() {
    let scratch = Scratch::new("steps");
    let at = &scratch.0;
    unpack(at, &PackageSpec::small(RunnerArch::X64));
    let (standin, github, org, repo) = acme();
    // An empty poll, an acknowledgement that does not arrive, and an answer that does not.
    let empty = Mischief::Answer { status: 202, headers: Vec::new(), body: String::new() };
    standin.inject(Fault::on("/_runner/message", empty));
    standin.inject(Fault::on("/_runner/acknowledge", Mischief::Close));
    standin.inject(Fault::on("/_runner/acquire", Mischief::ActThenLose));
    let job = standin.queue(&repo, JobSpec::new(&["linux"]).script("echo done"));
    let mut run = script(at, "run.sh");
    run.env("ACTIONS_RUNNER_INPUT_JITCONFIG", jit(&github, &org)).env("LXDRUNNER_STANDIN_RETRY", "0");
    assert!(Running(run.spawn().unwrap()).0.wait().unwrap().success());
    assert_eq!(standin.with(|state| state.jobs[&job].log.clone()), "done\n");
    let asked = standin.requests().into_iter().filter_map(|r| r.path.strip_prefix("/_runner/").map(str::to_owned));
    let steps = "sessions message message acknowledge acquire acquire begin log finish";
    assert_eq!(asked.collect::<Vec<_>>(), steps.split(' ').collect::<Vec<_>>());
}

#[test]
fn between_acquiring_a_job_and_its_worker_only_a_refused_removal_shows_it() {
    let scratch = Scratch::new("acquired");
    let at = &scratch.0;
    unpack(at, &PackageSpec::small(RunnerArch::X64));
    let (standin, github, org, repo) = acme();
    standin.with(|state| state.busy_is_late = true);
    standin.inject(Fault::on("/_runner/acquire", Mischief::ActThenStall));
    let job = standin.queue(&repo, JobSpec::new(&["linux"]));
    let mut run = script(at, "bin/Runner.Listener");
    run.arg("run").env("ACTIONS_RUNNER_INPUT_JITCONFIG", jit(&github, &org));
    let mut run = Running(run.spawn().unwrap());
    standin.wait_event(WAIT, 0, |event| matches!(event, Event::JobAcquired { .. })).expect("the job is acquired");
    assert!(!worker_runs(at));
    let runner = github.runner_by_name(&org, "one").unwrap().unwrap();
    assert!(runner.online && !runner.busy);
    assert_eq!(standin.with(|state| state.jobs[&job].stage), Stage::Queued);
    assert_eq!(github.delete_runner(&org, runner.id).unwrap(), Deletion::Busy);
    // It is given to nobody else.
    standin.lose_runner(runner.id);
    assert_eq!(standin.with(|state| state.jobs[&job].conclusion), Some("failure"));
    assert!(Command::new("kill").arg(run.0.id().to_string()).status().unwrap().success());
    assert_eq!(run.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_signal_closes_the_session() {
    let scratch = Scratch::new("signal");
    let at = &scratch.0;
    unpack(at, &PackageSpec::small(RunnerArch::X64));
    let (standin, github, org, _) = acme();
    let mut run = script(at, "bin/Runner.Listener");
    run.arg("run").env("ACTIONS_RUNNER_INPUT_JITCONFIG", jit(&github, &org));
    let mut run = Running(run.spawn().unwrap());
    standin.wait_event(WAIT, 0, |event| matches!(event, Event::SessionOpened { .. })).expect("a session");
    let status = Command::new("kill").arg(run.0.id().to_string()).status().unwrap();
    assert!(status.success());
    assert_eq!(run.0.wait().unwrap().code(), Some(0));
    assert!(!github.runners(&org).unwrap()[0].online);
}

#[test]
fn padding_weighs_what_was_asked() {
    let scratch = Scratch::new("padding");
    let mut spec = PackageSpec::small(RunnerArch::X64);
    let small = package::build_as(&scratch.0, &spec).unwrap();
    assert_eq!(package::build_as(&scratch.0, &spec).unwrap().sha256, small.sha256, "the same each time");
    spec.padding = Some(Padding { files: 200, bytes: 6_000_000 });
    let built = package::build_as(&scratch.0, &spec).unwrap();
    let packed = built.size as f64 / 6_000_000.0;
    assert!((0.3..0.45).contains(&packed), "{packed}");
    let listing = Command::new("tar").arg("tzf").arg(&built.path).output().unwrap();
    let names = String::from_utf8(listing.stdout).unwrap();
    assert_eq!(names.lines().filter(|name| name.ends_with(".bin")).count(), 200);
    assert_eq!(std::fs::read_dir(&scratch.0).unwrap().count(), 1, "nothing unfinished is left");
}

#[test]
fn a_refused_version_is_told_after_the_session_and_ends_run_sh_with_7_where_that_is_asked_for() {
    let scratch = Scratch::new("version");
    let at = &scratch.0;
    unpack(at, &PackageSpec::small(RunnerArch::X64));
    let (standin, github, org, _) = acme();
    standin.with(|state| state.refused_version = Some(package::VERSION.to_owned()));
    let blob = jit(&github, &org);
    let code = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE";
    for (asked_for, expected) in [("1", 7), ("", 0)] {
        let mut run = script(at, "run.sh");
        run.env("ACTIONS_RUNNER_INPUT_JITCONFIG", &blob).env(code, asked_for);
        let output = run.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let (listens, refused) =
            (said.find("Listening for Jobs"), said.find("is deprecated and cannot receive messages"));
        assert!(listens.is_some() && listens < refused, "{said}");
        assert_eq!(output.status.code(), Some(expected), "{said}");
    }
}

#[test]
fn a_conflict_of_sessions_is_tried_again_for_a_while() {
    let scratch = Scratch::new("conflict");
    let at = &scratch.0;
    unpack(at, &PackageSpec::small(RunnerArch::X64));
    for (conflicts, listens) in [(8, true), (9, false)] {
        let (standin, github, org, _) = acme();
        standin.inject(Fault::status("/_runner/sessions", 409, "TaskAgentSessionConflictException").times(conflicts));
        standin.queue(&"acme/app".parse().unwrap(), JobSpec::new(&["linux"]));
        let mut run = script(at, "run.sh");
        run.env("ACTIONS_RUNNER_INPUT_JITCONFIG", jit(&github, &org)).env("LXDRUNNER_STANDIN_RETRY", "0");
        let output = run.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert_eq!(said.contains("Listening for Jobs"), listens, "{said}");
        assert_eq!(said.contains("Session Conflict"), !listens, "{said}");
    }
}
