//! What deliveries say: tables over `webhook::event`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use hmac::{Hmac, Mac};
use lxdrunner::model::{Hint, Job, JobId, JobStatus, RunnerId, Secret, Timestamp};
use lxdrunner::webhook::event::{Parsed, SignatureError, parse, verify};
use serde_json::{Value, json};
use sha2::Sha256;

const QUEUED: &str = include_str!("fixtures/workflow_job_queued.json");

fn sign(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body);
    let bytes = mac.finalize().into_bytes();
    format!("sha256={}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
}

#[test]
fn signatures() {
    #[track_caller]
    fn check(secret: &str, body: &str, header: Option<&str>, expected: Result<(), SignatureError>) {
        assert_eq!(verify(&Secret::new(secret), body.as_bytes(), header), expected, "{header:?}");
    }
    // The example of GitHub's documentation, "Validating webhook deliveries".
    let (secret, body) = ("It's a Secret to Everybody", "Hello, World!");
    let good = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    check(secret, body, Some(good), Ok(()));
    check(secret, body, Some(&format!("  {good}  ")), Ok(()));
    check(secret, body, Some(&good.to_uppercase().replace("SHA256", "sha256")), Ok(()));
    check(secret, "Hello, World?", Some(good), Err(SignatureError::Wrong));
    check("another", body, Some(good), Err(SignatureError::Wrong));
    check(secret, body, None, Err(SignatureError::Missing));
    check(secret, body, Some("sha1=01234567890123456789"), Err(SignatureError::OnlySha1));
    for bad in ["", "sha256=", "sha256=zz", &good[..70], &format!("{good}0"), &good[7..], "sha256=é"] {
        check(secret, body, Some(bad), Err(SignatureError::Malformed));
    }
    // An empty secret would make everybody's signature a good one.
    check("", body, Some(&sign("", body.as_bytes())), Err(SignatureError::Wrong));
}

fn change(change: impl FnOnce(&mut Value)) -> String {
    let mut value: Value = serde_json::from_str(QUEUED).unwrap();
    change(&mut value);
    value.to_string()
}

#[track_caller]
fn job_of(event: &str, body: &str) -> Job {
    match parse(event, body.as_bytes()) {
        Ok(Parsed::Hint(Hint::Job(job))) => job,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_queued_job_is_read_whole() {
    let job = job_of("workflow_job", QUEUED);
    let expected = Job {
        id: JobId(61_234_567_890),
        run_id: 22_345_678_901,
        repo: "acme/Tool.js".parse().unwrap(),
        public: Some(false),
        labels: ["self-hosted", "linux", "x64"].iter().collect(),
        status: JobStatus::Queued,
        runner_name: None,
        runner_id: None,
        created_at: Timestamp::parse("2026-01-02T03:04:05Z"),
        name: "build “all”".to_owned(),
    };
    assert_eq!(job, expected);
}

#[test]
fn action_and_status_together_tell_how_far_a_job_is() {
    #[track_caller]
    fn check(action: &str, status: &str, expected: Option<JobStatus>) {
        let body = change(|v| {
            v["action"] = json!(action);
            v["workflow_job"]["status"] = json!(status);
        });
        let found = match parse("workflow_job", body.as_bytes()).unwrap() {
            Parsed::Hint(Hint::Job(job)) => Some(job.status),
            _ => None,
        };
        assert_eq!(found, expected, "{action} {status}");
    }
    check("queued", "queued", Some(JobStatus::Queued));
    check("queued", "waiting", Some(JobStatus::Waiting));
    check("queued", "pending", Some(JobStatus::Waiting));
    check("queued", "completed", Some(JobStatus::Completed));
    check("waiting", "waiting", Some(JobStatus::Waiting));
    check("waiting", "queued", Some(JobStatus::Waiting));
    check("in_progress", "in_progress", Some(JobStatus::InProgress));
    check("in_progress", "queued", Some(JobStatus::InProgress));
    check("in_progress", "completed", Some(JobStatus::Completed));
    check("completed", "completed", Some(JobStatus::Completed));
    check("completed", "queued", Some(JobStatus::Completed));
    check("of_the_future", "queued", None);
}

#[test]
fn what_a_job_may_lack() {
    let public = job_of("workflow_job", &change(|v| v["repository"]["private"] = json!(false)));
    assert_eq!(public.public, Some(true));
    let untold = job_of("workflow_job", &change(|v| v["repository"]["private"] = Value::Null));
    assert_eq!(untold.public, None);
    let skipped = job_of("workflow_job", &change(|v| v["workflow_job"]["labels"] = json!([])));
    assert!(skipped.labels.is_empty());
    let taken = job_of("workflow_job", &change(|v| v["workflow_job"]["runner_name"] = json!("lxdrunner-7-1")));
    assert_eq!(taken.runner_name.as_deref(), Some("lxdrunner-7-1"));
    let numbered = job_of("workflow_job", &change(|v| v["workflow_job"]["runner_id"] = json!(23)));
    assert_eq!(numbered.runner_id, Some(RunnerId(23)));
    let bare = change(|v| {
        v["workflow_job"] = json!({"id": 7, "status": "queued"});
        v["repository"] = json!({"full_name": "a/b"});
    });
    let job = job_of("workflow_job", &bare);
    assert_eq!((job.id, job.public, job.created_at), (JobId(7), None, None));
}

#[test]
fn check_runs_of_actions_name_their_job() {
    #[track_caller]
    fn check(status: &str, app: Value, expected: Option<bool>) {
        let body = json!({
            "action": "created",
            "check_run": {"id": 7, "status": status, "app": app, "check_suite": {"id": 8}},
            "repository": {"full_name": "a/b"}
        });
        let found = match parse("check_run", body.to_string().as_bytes()).unwrap() {
            Parsed::Hint(Hint::CheckRun { job: JobId(7), completed, .. }) => Some(completed),
            Parsed::Ignored(_) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected, "{body}");
    }
    let actions = || json!({"id": 1, "slug": "github-actions"});
    check("queued", actions(), Some(false));
    check("in_progress", actions(), Some(false));
    check("completed", actions(), Some(true));
    check("queued", json!({"slug": "codecov"}), None);
    check("queued", json!({"id": 1}), None);
    check("queued", json!({"name": "GitHub Actions"}), Some(false));
    check("queued", json!({"name": "GitHub Actions", "slug": "impostor"}), None);
    check("queued", Value::Null, None);
}

#[test]
fn other_events() {
    let check = |event: &str, body: &str, expected: Parsed| {
        assert_eq!(parse(event, body.as_bytes()), Ok(expected), "{event}");
    };
    let suite = r#"{"action":"requested","check_suite":{"id":1},"repository":{"full_name":"a/b"}}"#;
    check("check_suite", suite, Parsed::Hint(Hint::LookAt("a/b".parse().unwrap())));
    let other = suite.replacen("\"id\":1", "\"id\":1,\"app\":{\"slug\":\"codecov\"}", 1);
    assert!(matches!(parse("check_suite", other.as_bytes()), Ok(Parsed::Ignored(_))));
    check("ping", r#"{"zen":"…","hook_id":1}"#, Parsed::Hint(Hint::Ping));
    // Not even looked at, so not JSON is fine.
    assert!(matches!(parse("push", b"\xff"), Ok(Parsed::Ignored(_))));
}

#[test]
fn bad_bodies_are_refused_without_being_quoted() {
    #[track_caller]
    fn check(event: &str, body: &[u8], part: &str) {
        let error = parse(event, body).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("hunter2"), "{error}");
    }
    let deep = |n: usize| format!(r#"{{"x":{}"#, "[".repeat(n));
    for event in ["workflow_job", "check_run", "check_suite", "ping"] {
        check(event, b"", "too early");
        check(event, b"hunter2", "not JSON");
        check(event, b"\xff\xfe", "not JSON");
        check(event, b"{\"x\":\"\xff\"}", "not JSON");
        check(event, b"[]", "shape");
        check(event, b"\"hunter2\"", "shape");
        check(event, deep(100_000).as_bytes(), "too early");
        check(event, "[".repeat(100_000).as_bytes(), "");
        check(event, &QUEUED.as_bytes()[..QUEUED.len() / 2], "too early");
    }
    check("workflow_job", b"{}", "shape");
    let wrong = |f: fn(&mut Value)| change(f).into_bytes();
    check("workflow_job", &wrong(|v| v["workflow_job"]["id"] = json!("hunter2")), "shape");
    check("workflow_job", &wrong(|v| v["workflow_job"]["id"] = json!(-1)), "shape");
    check("workflow_job", &wrong(|v| v["workflow_job"]["labels"] = json!([[["hunter2"]]])), "shape");
    check("workflow_job", &wrong(|v| v["workflow_job"]["labels"] = json!(vec!["x"; 101])), "labels");
    for name in ["a", "a/b/c", "../..", "a/b?x", "hunter2/", "", "a b/c"] {
        let body = change(|v| v["repository"]["full_name"] = json!(name));
        check("workflow_job", body.as_bytes(), "full_name");
    }
}

#[test]
fn what_is_not_needed_may_be_as_deep_as_it_likes() {
    let depth = 100_000;
    let body = QUEUED.replacen('{', &format!(r#"{{"x":{}{},"#, "[".repeat(depth), "]".repeat(depth)), 1);
    assert_eq!(job_of("workflow_job", &body).id, JobId(61_234_567_890));
}
