//! Which process is this, and is another one still alive? An instance carries the identity of the process that
//! provisions it, so that after a crash the next daemon knows at once what is half-made and nobody's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

/// Who provisions an instance, as far as this process can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// This very process.
    Us,
    /// A process of this machine's present boot that is no more.
    Dead,
    /// Another process of this machine, which lives: another daemon, or `lxdrunner bake`.
    Other,
    /// A process of another machine or boot: nothing can be said.
    Unknown,
}

/// The part of an identity that must be equal for a look into `/proc` to mean anything: the boot, the pid namespace, and
/// the user (other users' processes may be hidden, see `hidepid` in proc(5)).
fn place() -> Option<&'static str> {
    static PLACE: OnceLock<Option<String>> = OnceLock::new();
    PLACE.get_or_init(find_place).as_deref()
}

fn find_place() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
    let inode: String = namespace.chars().filter(char::is_ascii_digit).collect();
    let user = fs::metadata("/proc/self").ok()?.uid();
    Some(format!("{}.{inode}.{user}", boot.get(..8)?))
}

/// The start time of a process in clock ticks since boot: field 22 of `/proc/PID/stat` (proc(5)); the name in field 2
/// may hold anything, so the fields are counted from its closing bracket.
fn start_time(pid: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// This process, for an instance's key: `BOOT.PIDNAMESPACE.USER.PID.STARTTIME`.
pub fn process_identity() -> String {
    ours().to_owned()
}

/// It does not change, and a listing asks for it once for each instance.
fn ours() -> &'static str {
    static OURS: OnceLock<String> = OnceLock::new();
    OURS.get_or_init(|| {
        let pid = std::process::id().to_string();
        match (place(), start_time(&pid)) {
            (Some(place), Some(start)) => format!("{place}.{pid}.{start}"),
            _ => format!("unknown.{pid}"),
        }
    })
}

/// What is known of the process that wrote `identity`.
pub fn maker(identity: &str) -> Maker {
    if identity == ours() {
        return Maker::Us;
    }
    let mut back = identity.rsplitn(3, '.');
    let (Some(start), Some(pid), Some(there)) = (back.next(), back.next(), back.next()) else { return Maker::Unknown };
    let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if place() != Some(there) || !is_number(pid) || !is_number(start) {
        return Maker::Unknown;
    }
    match start_time(pid) {
        Some(now) if start.parse() == Ok(now) => Maker::Other,
        _ => Maker::Dead,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_us_from_the_living_the_dead_and_strangers() {
        let us = process_identity();
        let (place, pid, start) = {
            let mut back = us.rsplitn(3, '.');
            let (start, pid, place) = (back.next().unwrap(), back.next().unwrap(), back.next().unwrap());
            (place.to_owned(), pid.to_owned(), start.to_owned())
        };
        let other_start = start.parse::<u64>().unwrap() + 1;
        let init = start_time("1").unwrap();
        let check = |identity: &str, expected: Maker| assert_eq!(maker(identity), expected, "{identity}");
        check(&us, Maker::Us);
        check(&format!("{place}.{pid}.{other_start}"), Maker::Dead);
        check(&format!("{place}.4194305.1"), Maker::Dead);
        check(&format!("{place}.1.{init}"), Maker::Other);
        check(&format!("{place}7.4194305.1"), Maker::Unknown);
        check(&format!("deadbeef.1.{pid}.{start}"), Maker::Unknown);
        check(&format!("{place}.../../x.{start}"), Maker::Unknown);
        check("", Maker::Unknown);
        check("unknown.77", Maker::Unknown);
    }
}
