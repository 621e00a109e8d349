//! Files of instances.

use std::io::Read;

use lxdrunner::lxd::ErrorKind;

use super::bench::{Bench, PATIENCE, PROJECT, fails_with, on_both, on_real};

#[test]
fn files_go_in_and_come_out() {
    on_both("files", |bench| {
        // A stopped instance takes them too.
        let name = bench.stopped();
        let push = |path: &str, mode: u32, content: &[u8]| {
            bench.lxd.push_file(PROJECT, &name, path, mode, &mut &*content, content.len() as u64, PATIENCE)
        };
        let pull = |path: &str, limit: usize| bench.lxd.pull_file_tail(PROJECT, &name, path, limit, PATIENCE);
        let directory = |path: &str, mode: u32| bench.lxd.make_directory(PROJECT, &name, path, mode);

        fails_with(push("/opt/runner/a", 0o644, b"x"), ErrorKind::NotFound);
        fails_with(directory("/opt/runner/deeper", 0o755), ErrorKind::NotFound);
        assert_eq!(pull("/opt/runner/a", 10).unwrap(), None);
        directory("/opt/runner", 0o750).unwrap();
        directory("/opt/runner", 0o700).unwrap();
        fails_with(pull("/opt/runner", 10), ErrorKind::Malformed);
        fails_with(push("/opt/runner", 0o644, b"x"), ErrorKind::Refused(500));

        let list = |path: &str| bench.lxd.list_directory(PROJECT, &name, path, PATIENCE).unwrap();
        assert_eq!(list("/opt/runner"), Some(vec![]));
        assert_eq!(list("/opt/none"), None);
        push("/opt/runner/a", 0o600, b"0123456789").unwrap();
        assert_eq!(list("/opt/runner"), Some(vec!["a".to_owned()]));
        assert_eq!(list("/opt/runner/a"), None, "it is a file");
        fails_with(push("/opt/runner/a/b", 0o644, b"x"), ErrorKind::Refused(500));
        let check = |path: &str, limit: usize, content: &str| {
            assert_eq!(pull(path, limit).unwrap().as_deref(), Some(content), "{path} {limit}");
        };
        check("/opt/runner/a", 100, "0123456789");
        check("/opt/runner/a", 10, "0123456789");
        check("/opt/runner/a", 9, "123456789");
        check("/opt/runner/a", 1, "9");
        push("/opt/runner/a", 0o755, b"shorter").unwrap();
        check("/opt/runner/a", 100, "shorter");
        push("/opt/runner/empty", 0o644, b"").unwrap();
        check("/opt/runner/empty", 100, "");
        for odd in ["/opt/runner/with blank", "/opt/runner/100%", "/opt/runner/a&b=c?d#e", "/opt/runner/é+"] {
            push(odd, 0o644, odd.as_bytes()).unwrap();
            check(odd, 1000, odd);
        }
        let large: Vec<u8> = (0..3_000_000_u32).map(|n| b'a' + u8::try_from(n % 26).unwrap()).collect();
        push("/opt/runner/large", 0o644, &large).unwrap();
        check("/opt/runner/large", 26, std::str::from_utf8(&large[large.len() - 26..]).unwrap());

        // Content that ends early is our failure, and no reason to fail for the next call.
        let short = bench.lxd.push_file(PROJECT, &name, "/opt/runner/short", 0o644, &mut &b"abc"[..], 10, PATIENCE);
        fails_with(short, ErrorKind::Content);
        check("/opt/runner/a", 100, "shorter");

        bench.power(&name, "start").unwrap();
        let says = |command: &[&str], text: &str| {
            assert_eq!(bench.exec(&name, command).unwrap().stdout, text, "{command:?}");
        };
        says(&["cat", "/opt/runner/a"], "shorter");
        says(&["stat", "-c", "0%a", "/opt/runner/a"], "0600\n");
        says(&["stat", "-c", "0%a", "/opt/runner"], "0750\n");
        push("/opt/runner/live", 0o755, b"live").unwrap();
        says(&["cat", "/opt/runner/live"], "live");
        says(&["stat", "-c", "0%a", "/opt/runner/live"], "0755\n");
    });
}

/// A file's content, after half of which a file is removed in the instance.
struct Removing<'a> {
    bench: &'a Bench,
    name: &'a str,
    path: &'a str,
    left: usize,
}

impl Read for Removing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 1 {
            let remove = format!("until [ -s {0} ]; do sleep 0.01; done; rm {0}", self.path);
            self.bench.exec(self.name, &["sh", "-c", &remove]).unwrap();
        }
        let Some(byte) = buffer.first_mut().filter(|_| self.left > 0) else { return Ok(0) };
        *byte = b'x';
        self.left -= 1;
        Ok(1)
    }
}

/// Where an instance takes away what it is given, one reads the answer wrong. Not of the stand-in, which writes a file in one go.
#[test]
fn a_file_that_goes_while_it_is_written_is_not_found_where_it_was_new() {
    on_real("going", |bench| {
        let name = bench.running();
        // Not below /run, which init mounts over in an instance that has just started.
        let path = "/opt/going";
        let push = || {
            let mut content = Removing { bench, name: &name, path, left: 2 };
            bench.lxd.push_file(PROJECT, &name, path, 0o600, &mut content, 2, PATIENCE)
        };
        fails_with(push(), ErrorKind::NotFound);
        bench.lxd.push_file(PROJECT, &name, path, 0o600, &mut &b""[..], 0, PATIENCE).unwrap();
        push().unwrap();
    });
}
