//! Config files: the daemon does not start, and says on which line and how to fix it.

use std::process::Command;

use super::support::Scratch;
use super::{Row, check_parts, row, table};

/// A good file, of which each row spoils something.
const GOOD: &str = "\
pat: a-token-for-the-tests
hooksecret: a-secret-for-the-tests
socket: /lxd.socket
runnermap:
  - name: one
    labels: [self-hosted]
    image: dev
    runner_arch: x64
";

/// With `from` replaced: line and key path are `place`, and the fix has `fix` in it.
fn spoiled(input: &'static str, from: &'static str, to: &'static str, place: &'static str, fix: &'static str) -> Row {
    row(input, move || {
        assert!(GOOD.contains(from), "{from}");
        check(&GOOD.replacen(from, to, 1), place, fix)
    })
}

fn check(text: &str, place: &str, fix: &str) -> String {
    let scratch = Scratch::new();
    let path = scratch.0.join("config.yml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lxdrunner")).arg("-c").arg(&path).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    check_parts(&said, &[&format!("{}:{place}: ", path.display()), " — ", fix, "nothing was started"]);
    assert!(!said.contains("a-token-for") && !said.contains("a-secret-for"), "{said}");
    let first = said.lines().next().unwrap_or_default();
    format!("exit 78: {}", first.replace(&scratch.0.display().to_string(), "DIR"))
}

#[test]
fn config_files() {
    let second = "\n    runner_arch: x64\n";
    table(
        "config",
        vec![
            spoiled("a tab", "    image", "\timage", "7", "spaces"),
            spoiled("an unknown key", "hooksecret", "max_wrokers: 3\nhooksecret", "2: max_wrokers", "did you mean"),
            spoiled(
                "a class of the same name",
                second,
                "\n    runner_arch: x64\n  - {name: one, labels: [gpu], image: dev, runner_arch: x64}\n",
                "9: runnermap[1].name",
                "a name of its own",
            ),
            spoiled(
                "a class of the same labels",
                second,
                "\n    runner_arch: x64\n  - {name: two, labels: [self-hosted], image: dev, runner_arch: x64}\n",
                "9: runnermap[1].labels",
                "a label of its own",
            ),
            spoiled(
                "an App's key that is not a key",
                "pat: a-token-for-the-tests",
                "github_app: {app_id: 1, private_key_file: /dev/null}",
                "1: github_app.private_key_file",
                "is not a key in PEM — name the .pem file",
            ),
            spoiled(
                "a target with a credential that is none",
                "hooksecret",
                "targets: [{org: acme, credential: work}]\nhooksecret",
                "2: targets[0].credential",
                "default",
            ),
            spoiled("a pattern without a slash", "hooksecret", "repos: [acme]\nhooksecret", "2: repos[0]", "acme/*"),
            spoiled(
                "a pattern that denies all",
                "hooksecret",
                "repos: {deny: ['*/*']}\nhooksecret",
                "2: repos.deny",
                "more exact",
            ),
            spoiled(
                "an unknown fork policy",
                "hooksecret",
                "fork_policy: some\nhooksecret",
                "2: fork_policy",
                "members",
            ),
            spoiled("an unknown remote", "dev", "nowhere:dev", "7: runnermap[0].image", "known are images, ubuntu"),
            spoiled(
                "a secret file that is missing",
                "pat: a-token-for-the-tests",
                "pat_file: /nowhere/pat",
                "1: pat_file",
                "/nowhere/pat",
            ),
        ],
    );
}
