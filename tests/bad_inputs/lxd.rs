//! An LXD that cannot be reached when the daemon starts: it stays up, says so on /healthz, and goes on when LXD comes.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use standin::lxd::{Fault, LxdStandin};

use super::support::*;
use super::{Row, check_parts, check_queued, check_runs, row, table, tidied};

fn unreachable(
    input: &'static str,
    user: Option<u32>,
    parts: &'static [&'static str],
    spoil: fn(&LxdStandin),
    mend: fn(&LxdStandin),
) -> Row {
    row(input, move || {
        let rig = Rig::prepared(Plan { user, ..Plan::default() }, |before| spoil(before.lxd.unwrap()));
        let told = rig.daemon.wait(&["ERROR", "what=\"lxd\""]);
        check_parts(&told, parts);
        check_parts(&told, &[&rig.standin().socket().display().to_string()]);
        let (status, health) = rig.health();
        assert_eq!(status, 503, "{health}");
        check_parts(&health, parts);
        // Deliveries are taken all the same.
        let job = rig.queue();
        rig.daemon.wait(&[&format!("job={job}"), "msg=queued"]);
        // A look asks who LXD is, some at once with another, before it lists.
        let silent = rig.daemon.count(&["lxd call=\"list the instances", "failed="]) > 0;
        let (call, times) = if silent { ("list the instances", 2) } else { ("ask LXD who it is", 3) };
        rig.daemon.wait_count(&[&format!("lxd call=\"{call}"), "failed="], times);
        assert_eq!(rig.complaints(), [told.as_str()], "told once");
        check_queued(&rig, job);
        mend(rig.standin());
        rig.daemon.wait(&["what=\"lxd\"", "works again"]);
        check_runs(&rig, job);
        assert_eq!(rig.health().0, 200);
        let (_, body) = health.split_once("\r\n\r\n").unwrap();
        format!("/healthz 503: {}; the job ran after the mend", tidied(&rig, body.trim()))
    })
}

#[test]
fn lxd_sockets() {
    let hide = |lxd: &LxdStandin| std::fs::rename(lxd.socket(), away(lxd)).unwrap();
    let refuse = |lxd: &LxdStandin| {
        std::fs::rename(lxd.socket(), away(lxd)).unwrap();
        // What a daemon that was killed leaves: a socket that nobody listens on.
        drop(UnixListener::bind(lxd.socket()).unwrap());
    };
    let back = |lxd: &LxdStandin| std::fs::rename(away(lxd), lxd.socket()).unwrap();
    let close = |lxd: &LxdStandin| set_mode(lxd, if is_root() { 0o600 } else { 0o000 });
    let open = |lxd: &LxdStandin| set_mode(lxd, 0o666);
    // Root may open any socket: there the daemon is to be somebody else.
    let somebody = is_root().then_some(65534);
    table(
        "LXD's socket",
        vec![
            unreachable("is missing", None, &["is LXD installed and running?", "`socket`"], hide, back),
            unreachable("refuses: nobody listens", None, &["is LXD running?"], refuse, back),
            unreachable("belongs to someone else", somebody, &["the group that owns the socket"], close, open),
        ],
    );
}

#[test]
fn to_start_is_not_to_fail() {
    let rig = Rig::prepared(Plan::default(), |before| {
        let slow = Fault::Delay(std::time::Duration::from_millis(500));
        before.lxd.unwrap().faults().add("GET", "/1.0", 0, 2, slow);
    });
    let (status, health) = rig.health();
    assert_eq!(status, 200, "{health}");
}

/// Takes the whole deadline of a call.
pub fn silence() {
    let stall = |lxd: &LxdStandin| lxd.faults().add("", "/1.0/instances", 0, usize::MAX, Fault::Stall);
    let go_on = |lxd: &LxdStandin| lxd.faults().clear();
    let parts = &["deadline of 30", "LXD is stuck"];
    table("LXD's socket", vec![unreachable("takes calls and never answers", None, parts, stall, go_on)]);
}

/// Where the socket is while it is hidden.
fn away(lxd: &LxdStandin) -> PathBuf {
    lxd.socket().with_extension("away")
}

fn set_mode(lxd: &LxdStandin, mode: u32) {
    set_permissions(lxd.socket(), Permissions::from_mode(mode)).unwrap();
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}
