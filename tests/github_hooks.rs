//! The hooks that the GitHub stand-in sends: signed as GitHub signs, shaped as GitHub shapes them, in order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lxdrunner::github::GitHub;
use lxdrunner::model::RepoName;
use serde_json::Value;
use standin::github::wire::{Reply, Request, Response, Server};
use standin::github::{Event, GitHubStandin, JobSpec};

const WAIT: Duration = Duration::from_secs(20);

/// A server that keeps what it is sent.
fn receiver() -> (Server, Arc<Mutex<Vec<Request>>>, String) {
    let got = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&got);
    let bind = (Ipv4Addr::LOCALHOST, 0).into();
    let server = Server::start(bind, move |request| {
        keep.lock().unwrap().push(request.clone());
        Reply::Answer(Response::empty(202))
    });
    let server = server.unwrap();
    let url = format!("http://{}/hooks/lxdrunner", server.address());
    (server, got, url)
}

#[test]
fn a_jobs_life_is_told_by_signed_hooks() {
    let (_server, got, url) = receiver();
    let standin = GitHubStandin::start((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    standin.add_org("acme");
    standin.set_hook(&url, "secret");
    let repo: RepoName = "acme/app".parse().unwrap();
    let job = standin.queue(&repo, JobSpec::new(&["self-hosted", "Linux"]));
    let answered = |action: &'static str| {
        let wanted = move |event: &Event| matches!(event, Event::HookAnswered { action: told, status: Some(202), .. } if told == action);
        standin.wait_event(WAIT, 0, wanted).expect(action)
    };
    answered("queued");
    let github = GitHub::new(&standin.api(), standin.token());
    let labels = ["self-hosted".to_owned(), "linux".to_owned()];
    let jit = github.generate_jit_config(&"org:acme".parse().unwrap(), "one", 1, &labels).unwrap();
    let runner = standin.simulate_runner(&jit.encoded).unwrap();
    answered("in_progress");
    answered("completed");
    runner.wait(WAIT).unwrap();

    let told = got.lock().unwrap().clone();
    assert_eq!(told.len(), 3);
    let body = |n: usize| serde_json::from_slice::<Value>(&told[n].body).unwrap();
    let queued = body(0);
    let at = |json: &Value, path: &str| json.pointer(path).cloned().unwrap_or(Value::from("absent"));
    assert_eq!(at(&queued, "/workflow_job/id"), Value::from(job.0));
    assert_eq!(at(&queued, "/workflow_job/labels"), serde_json::json!(["self-hosted", "Linux"]));
    assert_eq!(at(&queued, "/workflow_job/status"), "queued");
    assert_eq!(at(&queued, "/workflow_job/runner_name"), Value::Null);
    assert_eq!(at(&queued, "/repository/full_name"), "acme/app");
    assert_eq!(at(&queued, "/repository/private"), true);
    assert_eq!(at(&queued, "/organization/login"), "acme");
    let find = |action: &str| (0..3).map(body).find(|body| at(body, "/action") == action).unwrap();
    assert_eq!(at(&find("in_progress"), "/workflow_job/runner_name"), "one");
    assert_eq!(at(&find("completed"), "/workflow_job/conclusion"), "success");

    let first = &told[0];
    assert_eq!(first.header("x-github-event"), Some("workflow_job"));
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert!(first.header("user-agent").unwrap().starts_with("GitHub-Hookshot/"));
    assert_eq!(first.header("x-hub-signature").map(str::len), Some(5 + 40));
    let signed = first.header("x-hub-signature-256").unwrap().strip_prefix("sha256=").unwrap().to_owned();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret");
    let tag: String = ring::hmac::sign(&key, &first.body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(signed, tag);
    let guids: std::collections::BTreeSet<_> = told.iter().map(|hook| hook.header("x-github-delivery")).collect();
    assert_eq!(guids.len(), 3);
}

#[test]
fn hooks_can_be_held_back_and_sent_by_hand() {
    let (server, got, url) = receiver();
    let standin = GitHubStandin::start((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    standin.set_hook(&url, "secret");
    standin.hook_by_itself(false);
    let job = standin.queue(&"alice/tool".parse().unwrap(), JobSpec::new(&["x"]));
    let one = standin.deliver(job, "queued");
    assert_eq!((one.status, one.action.as_str(), one.job), (Some(202), "queued", Some(job)));
    standin.deliver_event("ping", &serde_json::json!({"zen": "Design for failure."}));
    assert_eq!(got.lock().unwrap().len(), 2);
    drop(server);
    assert_eq!(standin.deliver(job, "queued").status, None);
    assert_eq!(standin.deliveries().len(), 3);
}
