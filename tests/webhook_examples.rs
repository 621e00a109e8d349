//! GitHub's own examples of the events that say something about jobs, each with what becomes of it here: read, folded into
//! what the daemon knows, and planned. With `--nocapture` they come out as a table.
//!
//! The examples are those of the npm package `@octokit/webhooks-examples`, unpacked into the folder that
//! `LXDRUNNER_TEST_GITHUB_DESCRIPTIONS` names, as `webhooks-examples/`; `provision/test.sh` sees to that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use lxdrunner::config::Config;
use lxdrunner::model::{Hint, JobStatus, Timestamp};
use lxdrunner::plan::plan;
use lxdrunner::webhook::event::{Parsed, parse};
use lxdrunner::world::{Event, World};
use serde_json::Value;

const CONFIG: &str = "
pat: t
hooksecret: s
socket: /nowhere
targets: [{org: octo-org}, {org: codertocat}, {org: lineville}, {repo: wolfy1339/github-events-schemas}]
runnermap:
  - {name: plain, labels: [self-hosted, linux, x64], image: i}
  - {name: gpu, labels: [gpu, db-app, dc-03], image: i, runner_arch: x64}
  - {name: k8s, labels: [k8s], image: i, runner_arch: x64}
";

/// The folder with the examples; `None` where none is needed.
fn examples() -> Option<PathBuf> {
    match std::env::var_os("LXDRUNNER_TEST_GITHUB_DESCRIPTIONS").filter(|v| !v.is_empty()) {
        Some(folder) => Some(PathBuf::from(folder).join("webhooks-examples")),
        None => {
            let required = std::env::var("LXDRUNNER_TEST_REQUIRE_GITHUB_DESCRIPTIONS").is_ok_and(|v| v == "1");
            assert!(!required, "GitHub's examples are required here: set LXDRUNNER_TEST_GITHUB_DESCRIPTIONS");
            eprintln!("skipped: no LXDRUNNER_TEST_GITHUB_DESCRIPTIONS; provision/test.sh runs this");
            None
        }
    }
}

fn config() -> Config {
    let path = std::env::temp_dir().join(format!("lxdrunner-examples-{}.yml", std::process::id()));
    std::fs::write(&path, CONFIG).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let loaded = Config::load(&path).unwrap_or_else(|errors| panic!("{errors}"));
    let _ = std::fs::remove_file(&path);
    loaded.0
}

/// What becomes of a delivery, in words.
fn decision(config: &Config, event: &str, body: &Value) -> String {
    let hint = match parse(event, body.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}")) {
        Parsed::Ignored(why) => return format!("ignored: {why}"),
        Parsed::Hint(hint) => hint,
    };
    let now = Timestamp::parse("2026-01-02T03:04:05Z").unwrap();
    let mut world = World::new(Arc::new(config.clone()), 1, "");
    world.fold(Event::Hint(hint.clone()), now);
    let planned = plan(&world, now);
    let asked = |part: &str| planned.actions.iter().any(|action| format!("{action:?}").starts_with(part));
    match hint {
        Hint::Ping => "pong".to_owned(),
        Hint::LookAt(repo) if asked("LookAtRepo") => format!("looks at the queue of {repo}"),
        Hint::CheckRun { job, completed: false, .. } if asked("LookUpJob") => format!("looks job {job} up"),
        Hint::CheckRun { job, completed: true, .. } => format!("job {job} is over"),
        Hint::LookAt(repo) | Hint::CheckRun { repo, .. } => format!("{repo} is not served"),
        Hint::Job(job) => match (job.status, planned.deferred.as_slice()) {
            (JobStatus::Completed, []) => "over".to_owned(),
            (JobStatus::InProgress, []) => {
                let class = world.jobs().next().and_then(|j| j.place.as_ref().ok()).map(|(_, class)| *class);
                let runner = job.runner_name.unwrap_or_default();
                match class {
                    Some(class) => format!("{runner:?} has it, of class {:?}", config.class(class).name),
                    None => format!("{runner:?} has it, not one of ours"),
                }
            }
            (JobStatus::Waiting, []) => "waits for more than a runner".to_owned(),
            (JobStatus::Queued, [(_, reason)]) => format!("queued: {reason}"),
            other => panic!("{other:?}"),
        },
    }
}

#[test]
fn every_example_gets_its_decision() {
    let Some(folder) = examples() else { return };
    let config = config();
    let mut found = Vec::new();
    let mut servers: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    servers.retain(|path| path.join("index.json").exists());
    servers.sort();
    for server in servers {
        let index: Value = serde_json::from_slice(&std::fs::read(server.join("index.json")).unwrap()).unwrap();
        for event in index.as_array().unwrap() {
            let name = event["name"].as_str().unwrap();
            if !matches!(name, "workflow_job" | "check_run" | "check_suite" | "ping") {
                continue;
            }
            for example in event["examples"].as_array().unwrap() {
                let inner = &example[name];
                let action = example["action"].as_str().unwrap_or("-");
                let status = inner["status"].as_str().unwrap_or("-");
                let by = inner["app"]["slug"].as_str().or(inner["app"]["name"].as_str());
                let about = match by {
                    Some(app) => format!("app {app}"),
                    None => inner["labels"].as_array().map_or("-".to_owned(), |labels| {
                        labels.iter().map(|l| l.as_str().unwrap()).collect::<Vec<_>>().join(",")
                    }),
                };
                let server = server.file_name().unwrap().to_string_lossy().into_owned();
                let row = format!("{name} {action} {status} ({about}): {}", decision(&config, name, example));
                println!("{server:<15} {row}");
                found.push(row);
            }
        }
    }
    println!("{} examples", found.len());
    let mut kinds: Vec<&str> = found.iter().map(String::as_str).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.join("\n"), EXPECTED.trim());
}

/// Each kind of example once.
const EXPECTED: &str = r#"
check_run completed completed (app github-actions): job 128620228 is over
check_run completed completed (app octocoders-linter): ignored: a check run of another app than GitHub Actions
check_run created queued (app octocoders-linter): ignored: a check run of another app than GitHub Actions
check_run requested_action in_progress (app electron-cation): ignored: a check run of another app than GitHub Actions
check_run rerequested completed (app Super Duper): ignored: a check run of another app than GitHub Actions
check_suite completed completed (app github-actions): looks at the queue of Codertocat/Hello-World
check_suite completed completed (app octocoders-linter): ignored: a check suite of another app than GitHub Actions
check_suite requested queued (app octocoders-linter): ignored: a check suite of another app than GitHub Actions
check_suite rerequested completed (app octocoders-linter): ignored: a check suite of another app than GitHub Actions
ping - - (-): pong
workflow_job completed completed (ubuntu-latest): over
workflow_job in_progress in_progress (gpu,db-app,dc-03): "my runner" has it, of class "gpu"
workflow_job in_progress in_progress (ubuntu-latest): "GitHub Actions 5" has it, not one of ours
workflow_job in_progress in_progress (ubuntu-latest): "GitHub Actions 6" has it, not one of ours
workflow_job queued queued (ubuntu-latest): queued: no class of runnermap has all its labels; the nearest, "plain", lacks ubuntu-latest
workflow_job queued waiting (self-hosted,k8s): waits for more than a runner
workflow_job waiting waiting (self-hosted,k8s): waits for more than a runner
"#;
