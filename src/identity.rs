//! The identity of this process, and whether the process of another identity still runs. An instance carries the identity of
//! the process that provisions it: after a crash the next daemon sees at once which instances are half-made.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

/// The process that provisions an instance, as far as this process can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// This process.
    Us,
    /// A process of this machine that has ended.
    Dead,
    /// Another running process of this machine: another daemon, or `lxdrunner bake`.
    Other,
    /// A process on another machine or in a container, where it cannot be looked up.
    Unknown,
}

/// The inode of the initial pid namespace, the same on every kernel (`PROC_PID_INIT_INO`). A process in it is in no
/// container.
const INITIAL_NAMESPACE: &str = "4026531836";

/// The parts of an identity in an instance's key: `MACHINE.BOOT.NAMESPACE.USER.PID.START`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Parts<'a> {
    /// A digest of the machine's id and its host name; `-` where it has no id. In a cluster of clones the ids may be equal.
    machine: &'a str,
    /// LXC gives each container's start one of its own.
    boot: &'a str,
    /// The pid namespace.
    namespace: &'a str,
    user: &'a str,
    pid: &'a str,
    /// In clock ticks since boot.
    start: &'a str,
}

impl<'a> Parts<'a> {
    fn of(identity: &'a str) -> Option<Parts<'a>> {
        let mut parts = identity.split('.');
        let mut next = || parts.next().filter(|part| !part.is_empty());
        let (machine, boot, namespace) = (next()?, next()?, next()?);
        let (user, pid, start) = (next()?, next()?, next()?);
        let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        let well_formed = [namespace, user, pid, start].into_iter().all(is_number) && parts.next().is_none();
        well_formed.then_some(Parts { machine, boot, namespace, user, pid, start })
    }

    fn is_of_container(&self) -> bool {
        self.namespace != INITIAL_NAMESPACE
    }
}

/// The start time of a process in clock ticks since boot: field 22 of `/proc/PID/stat` (proc(5)); the name in field 2
/// may hold anything, so the fields are counted from its closing bracket.
fn start_time(pid: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// This process, for an instance's key.
pub fn process_identity() -> String {
    ours().to_owned()
}

/// Read once: a listing needs it for each instance.
fn ours() -> &'static str {
    static OURS: OnceLock<String> = OnceLock::new();
    OURS.get_or_init(|| find_ours().unwrap_or(format!("unknown.{}", std::process::id())))
}

fn find_ours() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
    let namespace: String = namespace.chars().filter(char::is_ascii_digit).collect();
    let user = fs::metadata("/proc/self").ok()?.uid();
    let pid = std::process::id();
    let start = start_time(&pid.to_string())?;
    Some(format!("{}.{}.{namespace}.{user}.{pid}.{start}", machine().unwrap_or("-".to_owned()), boot.get(..8)?))
}

/// A digest, because machine-id(5) asks not to show the id to others.
fn machine() -> Option<String> {
    let id = fs::read_to_string("/etc/machine-id").ok()?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let plain = id.trim().len() == 32 && id.trim().bytes().all(|b| b.is_ascii_hexdigit());
    let digest = Sha256::digest(format!("lxdrunner {} {}", id.trim(), host.trim()));
    plain.then(|| {
        digest.iter().take(4).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    })
}

/// The process that wrote `identity`. `shared`: processes of other machines use this LXD, as in a cluster.
pub fn maker(identity: &str, shared: bool) -> Maker {
    maker_seen_by(ours(), identity, shared, &start_time)
}

/// The same for the process `own`; `start` reads a process's start time from `/proc`.
pub fn maker_seen_by(own: &str, identity: &str, shared: bool, start_time: &dyn Fn(&str) -> Option<u64>) -> Maker {
    if identity == own {
        return Maker::Us;
    }
    let (Some(there), Some(here)) = (Parts::of(identity), Parts::of(own)) else { return Maker::Unknown };
    if there.boot != here.boot {
        return if is_of_boot_before(there, here, shared) { Maker::Dead } else { Maker::Unknown };
    }
    // Processes of other users may be hidden (`hidepid` in proc(5)): the first process is root's.
    let visible = there.user == here.user || start_time("1").is_some();
    if there.namespace != here.namespace || !visible {
        return Maker::Unknown;
    }
    match start_time(there.pid) {
        Some(now) if there.start.parse() == Ok(now) => Maker::Other,
        _ => Maker::Dead,
    }
}

/// True if `identity` is of another boot: whether its process is dead depends on who else uses LXD.
pub fn is_of_another_boot(identity: &str) -> bool {
    let (there, here) = (Parts::of(identity), Parts::of(ours()));
    there.zip(here).is_some_and(|(there, here)| there.boot != here.boot)
}

/// True where `there`, of another boot, is of an earlier boot of the machine that `here` runs on.
fn is_of_boot_before(there: Parts<'_>, here: Parts<'_>, shared: bool) -> bool {
    let on_hosts = !there.is_of_container() && !here.is_of_container();
    let same_machine = there.machine == here.machine && here.machine != "-";
    match shared {
        // Outside of containers the boot id is the host's. A container that was started again keeps machine id and name.
        false => on_hosts || same_machine,
        // Containers made of one image may have one id and one name on several members.
        true => on_hosts && same_machine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(parts: Parts<'_>, shared: bool, expected: Maker) {
        let Parts { machine, boot, namespace, user, pid, start } = parts;
        let identity = format!("{machine}.{boot}.{namespace}.{user}.{pid}.{start}");
        assert_eq!(maker(&identity, shared), expected, "{identity} shared={shared}");
    }

    #[test]
    fn tells_us_from_the_living_the_dead_and_strangers() {
        let identity = process_identity();
        let us = Parts::of(&identity).unwrap();
        let init = start_time("1").unwrap().to_string();
        let later = (us.start.parse::<u64>().unwrap() + 1).to_string();
        for shared in [false, true] {
            check(us, shared, Maker::Us);
            check(Parts { start: &later, ..us }, shared, Maker::Dead);
            check(Parts { pid: "4194305", start: "1", ..us }, shared, Maker::Dead);
            check(Parts { pid: "1", start: &init, ..us }, shared, Maker::Other);
            // Another user's process is looked up where /proc shows it.
            check(Parts { pid: "1", start: &init, user: "77", ..us }, shared, Maker::Other);
            check(Parts { pid: "4194305", user: "77", ..us }, shared, Maker::Dead);
            check(Parts { namespace: "77", pid: "4194305", ..us }, shared, Maker::Unknown);
            for strange in ["", "unknown.77", "a.b.1.2.3", "a.b.1.2.../../x.4", "a.b.1.2.3.4.5", "....."] {
                assert_eq!(maker(strange, shared), Maker::Unknown, "{strange}");
            }
        }
    }

    #[test]
    fn a_boot_before_is_dead_where_only_this_machine_can_have_made_it() {
        let host = Parts { machine: "a1", boot: "b1", namespace: INITIAL_NAMESPACE, user: "0", pid: "7", start: "9" };
        let container = Parts { namespace: "4026532001", ..host };
        let check = |there: Parts<'_>, here: Parts<'_>, alone: bool, in_a_cluster: bool| {
            let there = Parts { boot: "b2", ..there };
            let told = [false, true].map(|shared| is_of_boot_before(there, here, shared));
            assert_eq!(told, [alone, in_a_cluster], "{}.{}", there.machine, there.namespace);
        };
        check(host, host, true, true);
        check(Parts { machine: "a2", ..host }, host, true, false);
        check(Parts { machine: "-", ..host }, Parts { machine: "-", ..host }, true, false);
        check(container, container, true, false);
        check(Parts { machine: "a2", ..container }, container, false, false);
        check(Parts { machine: "a2", ..container }, host, false, false);
        check(host, Parts { machine: "a2", ..container }, false, false);
        let identity = process_identity();
        let us = Parts::of(&identity).unwrap();
        assert!(!is_of_another_boot(&identity) && is_of_another_boot("a1.b1.7.0.7.9") && !is_of_another_boot(""));
        if !us.is_of_container() {
            assert_eq!(maker("a1.b1.4026531836.0.7.9", false), Maker::Dead);
        }
        assert_eq!(maker("a1.b1.4026531836.0.7.9", true), Maker::Unknown);
    }
}
