//! An LXD that cannot be reached when the daemon starts: it stays up, says so on /healthz, and goes on when LXD comes.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::support::*;
use super::{Row, check_parts, check_queued, check_runs, row, table, tidied};

/// `spoil` and `mend` get LXD's socket and another name for it.
fn unreachable(
    input: &'static str,
    user: Option<u32>,
    parts: &'static [&'static str],
    spoil: fn(&Path, &Path),
    mend: fn(&Path, &Path),
) -> Row {
    row(input, move || {
        let mut names: Option<(PathBuf, PathBuf)> = None;
        let rig = Rig::prepared(Plan { user, ..Plan::default() }, |before| {
            let socket = before.lxd.unwrap().socket().to_owned();
            let away = socket.with_extension("away");
            spoil(&socket, &away);
            names = Some((socket, away));
        });
        let (socket, away) = names.unwrap();
        let told = rig.daemon.wait(&["ERROR", "what=\"lxd\""]);
        check_parts(&told, parts);
        check_parts(&told, &[&socket.display().to_string()]);
        let (status, health) = rig.health();
        assert_eq!(status, 503, "{health}");
        check_parts(&health, parts);
        // Deliveries are taken all the same.
        let job = rig.queue();
        rig.daemon.wait(&[&format!("job={job}"), "msg=queued"]);
        rig.daemon.wait_count(&["lxd call=\"list the instances", "failed="], 3);
        assert_eq!(rig.complaints(), [told.as_str()], "told once");
        check_queued(&rig, job);
        mend(&socket, &away);
        rig.daemon.wait(&["what=\"lxd\"", "works again"]);
        check_runs(&rig, job);
        assert_eq!(rig.health().0, 200);
        let (_, body) = health.split_once("\r\n\r\n").unwrap();
        format!("/healthz 503: {}; the job ran after the mend", tidied(&rig, body.trim()))
    })
}

#[test]
fn lxd_sockets() {
    let hide = |socket: &Path, away: &Path| std::fs::rename(socket, away).unwrap();
    let refuse = |socket: &Path, away: &Path| {
        std::fs::rename(socket, away).unwrap();
        // What a daemon that was killed leaves: a socket that nobody listens on.
        drop(UnixListener::bind(socket).unwrap());
    };
    let back = |socket: &Path, away: &Path| std::fs::rename(away, socket).unwrap();
    let close = |socket: &Path, _: &Path| {
        let mode = if is_root() { 0o600 } else { 0o000 };
        set_permissions(socket, Permissions::from_mode(mode)).unwrap();
    };
    let open = |socket: &Path, _: &Path| set_permissions(socket, Permissions::from_mode(0o666)).unwrap();
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

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}
