//! What a class has put into its instances beside the runner.

use super::read::{Item, Section};
use super::report::Report;
use crate::model::ConfigMap;

/// What is put into an instance beside the runner. All of it is baked into templates.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Inside {
    /// Environment of set-up, runner and jobs. Not secret: jobs can read it.
    pub env: ConfigMap,
}

/// The script that reads them in the instance, which has variables of its own.
const START_SCRIPT: &str = include_str!("../../provision/start-runner.sh");
/// More than any program takes as one variable.
const LONGEST_VALUE: usize = 32 * 1024;
/// The start script sets these for the job's user.
const OF_THE_USER: &[&str] = &["HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD"];

/// `env`, of the file or of a class.
pub(super) fn env(holder: &Section<'_>, report: &mut Report) -> Option<ConfigMap> {
    let Some(item) = holder.get("env") else { return Some(ConfigMap::new()) };
    let section = Section::free(&item, report)?;
    let entries = section.entries().map(|(name, value)| {
        let value = value_of(name, &value, report)?;
        Some((name.to_owned(), value))
    });
    let entries: Vec<Option<(String, String)>> = entries.collect();
    entries.into_iter().collect()
}

/// What `environment.*` of a class's config says, and on top of it the class's `env`.
pub(super) fn environment(config: &ConfigMap, env: ConfigMap) -> ConfigMap {
    let of_config = config.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix("environment.").filter(|_| !value.contains(char::is_control))?;
        Some((name.to_owned(), value.clone()))
    });
    of_config.chain(env).collect()
}

fn value_of(name: &str, item: &Item<'_>, report: &mut Report) -> Option<String> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if name.is_empty() || !plain || name.starts_with(|c: char| c.is_ascii_digit()) {
        report.error(&item.path, "is not the name of a variable", "write letters, digits and _, no digit first");
        return None;
    }
    let ours = name.starts_with("LXDRUNNER_") || name.starts_with("ACTIONS_RUNNER_INPUT_");
    if ours || OF_THE_USER.contains(&name) || names_of_the_script().any(|own| own == name) {
        report.error(&item.path, "is set by lxdrunner itself", "leave it out, or use another name");
        return None;
    }
    let value = item.scalar(report)?;
    if value.contains(char::is_control) || value.len() > LONGEST_VALUE {
        let mend = format!("write one line of at most {LONGEST_VALUE} bytes");
        report.error(&item.path, "cannot be the value of a variable", mend);
        return None;
    }
    Some(value)
}

/// The variables of `start-runner.sh`, which it does not let the environment change.
fn names_of_the_script() -> impl Iterator<Item = &'static str> {
    let list = START_SCRIPT.split_once("own_names='").and_then(|(_, rest)| rest.split_once('\''));
    list.map_or("", |(names, _)| names).split_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_of_the_start_script_is_kept_from_the_environment() {
        let known: Vec<&str> = names_of_the_script().collect();
        let code = START_SCRIPT.lines().filter(|line| !line.trim_start().starts_with('#'));
        let script = code.collect::<Vec<_>>().join("\n");
        let assigned = script.split(|c: char| c.is_whitespace() || c == ';').filter_map(|word| {
            let (name, _) = word.split_once('=').filter(|(_, value)| !value.contains(','))?;
            let plain = |b: u8| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit();
            (!name.is_empty() && name.bytes().all(plain) && !name.starts_with('_')).then_some(name)
        });
        let read = START_SCRIPT.lines().filter(|line| line.contains("read -r")).flat_map(|line| {
            let (_, names) = line.split_once("read -r").unwrap_or_default();
            let names = names.split(['<', ';', '|']).next().unwrap_or_default();
            names.split_whitespace().filter(|name| name.bytes().all(|b| b.is_ascii_lowercase()))
        });
        for name in assigned.chain(read) {
            assert!(known.contains(&name), "own_names in start-runner.sh lacks {name}");
        }
    }
}
