//! Bodies that no honest GitHub sends: each gets its status, and the daemon serves the next job.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::support::*;
use super::{Row, check_runs, row, table};

pub fn signed(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(HOOK_SECRET.as_bytes()).unwrap();
    mac.update(body);
    let digits: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    format!("X-Hub-Signature-256: sha256={digits}")
}

/// A delivery of `sent` that says it has `length` bytes.
fn delivery(signature: &str, length: usize, sent: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /hooks/lxdrunner HTTP/1.1\r\nHost: example.test\r\nContent-Type: application/json\r\n\
         X-GitHub-Event: workflow_job\r\nX-GitHub-Delivery: 1\r\n{signature}\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), sent].concat()
}

fn check(input: &'static str, status: u16, part: &'static str, request: Vec<u8>) -> Row {
    row(input, move || {
        let rig = Rig::new(Plan::default());
        let mut stream = TcpStream::connect(&rig.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The daemon may stop reading when it knows its answer.
        let _ = stream.write_all(&request);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(part), "{answer}");
        let job = rig.queue();
        check_runs(&rig, job);
        assert_eq!(rig.health().0, 200);
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        format!("{status}: {}", body.trim())
    })
}

#[test]
fn bodies() {
    let whole = include_bytes!("../fixtures/workflow_job_queued.json");
    let nested = "[".repeat(1_000_000);
    let sha1 = "X-Hub-Signature: sha1=0123456789012345678901234567890123456789";
    let huge = lxdrunner::webhook::LONGEST_BODY + 1;
    let plain = |body: &[u8]| delivery(&signed(body), body.len(), body);
    table(
        "webhook body",
        vec![
            check("huge", 413, "25 MB", delivery(&signed(b""), huge, &[b' '; 100_000])),
            check("truncated in transit", 400, "shorter", delivery(&signed(whole), whole.len(), &whole[..100])),
            check("truncated JSON, signed", 400, "too early", plain(&whole[..100])),
            check("not UTF-8", 400, "not JSON", plain(b"{\"action\": \"\xff\xfe\"}")),
            check("deeply nested", 400, "workflow_job", plain(nested.as_bytes())),
            check("signed with sha1 only", 401, "X-Hub-Signature-256", delivery(sha1, whole.len(), whole)),
        ],
    );
}
