//! The keys of a class that say what its instances contain besides the runner.

use super::node::Node;
use super::read::{Item, Section};
use super::{file, script};
use crate::model::{ConfigMap, InstanceType};

/// What an instance contains besides the runner. All of it is baked into templates.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Inside {
    /// Environment of set-up, runner and jobs. Not secret: jobs can read it.
    pub env: ConfigMap,
    /// Packages of the image's distribution that the built-in set-up installs.
    pub packages: Vec<String>,
    /// True: Docker is installed, and the job's user may use it.
    pub docker: bool,
    /// The text of the script that replaces the built-in set-up.
    pub instead: Option<String>,
    /// The text of the script that runs before the built-in set-up.
    pub before: Option<String>,
    /// The text of the script that runs after it.
    pub after: Option<String>,
    /// The text of the script that the runner runs before a job's first step.
    pub job_started: Option<String>,
    /// The same, after its last one.
    pub job_completed: Option<String>,
    /// Certificates of authorities that are trusted inside, each in PEM.
    pub authorities: Vec<String>,
}

/// Reads the keys of the class. Settings that they need are added to its LXD config.
pub(super) fn inside(class: &Section<'_>, kind: InstanceType, config: &mut ConfigMap) -> Inside {
    let [before, after, instead] = class.or("setup_script", [None, None, None], setup_scripts);
    let [job_started, job_completed] =
        class.or("hooks", [None, None], |item| scripts(item, &["job_started", "job_completed"]));
    let packages = class.or("packages", Vec::new(), packages);
    let docker = docker(class, kind, config);
    for (key, asked) in [("packages", !packages.is_empty()), ("docker", docker)] {
        if asked && instead.is_some() {
            let fix = "write setup_script: {after: FILE}, or leave this out and install it in your script";
            let what = "is done by the built-in set-up, which setup_script replaces";
            class.at(key).error(what, fix);
        }
    }
    let env = environment(config, env(class));
    Inside { env, packages, docker, instead, before, after, job_started, job_completed, authorities: Vec::new() }
}

fn packages(item: &Item<'_>) -> Option<Vec<String>> {
    item.each("a list of packages, such as [git, make]", |item| {
        let name = item.text("the name of a package")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-._:=~@/".contains(c);
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '@') || !name.chars().all(plain) {
            let fix = "write a name that the package manager of the image knows";
            return item.refuse(format!("{name:?} is not the name of a package"), fix);
        }
        Some(name.to_owned())
    })
}

/// The scripts before, after and instead of the built-in set-up. A plain name is a script that replaces it.
fn setup_scripts(item: &Item<'_>) -> Option<[Option<String>; 3]> {
    if let Node::Text(name) = item.node
        && script::is_own_script(&item.report.beside(name))
    {
        item.warn("is the Python daemon's own script: the built-in set-up is used");
        return Some([None, None, None]);
    }
    if !matches!(item.node, Node::Map(_)) {
        return script_text(item, "without this key the built-in set-up is used").map(|text| [None, None, Some(text)]);
    }
    let scripts = scripts(item, &["before", "after", "instead"])?;
    if let [before, after, Some(_)] = &scripts
        && (before.is_some() || after.is_some())
    {
        let fix = "keep instead, or before and after";
        return item.at("instead").refuse("leaves nothing to be before or after of", fix);
    }
    Some(scripts)
}

fn scripts<const N: usize>(item: &Item<'_>, keys: &[&str; N]) -> Option<[Option<String>; N]> {
    let section = Section::new(item, keys)?;
    Some(keys.map(|key| section.or(key, None, |item| script_text(item, "name a script").map(Some))))
}

fn script_text(item: &Item<'_>, otherwise: &str) -> Option<String> {
    let path = item.file("the name of a script")?;
    let shown = path.display();
    match file::read_text(&path, script::LONGEST) {
        Ok(text) if script::word(&text).is_some() => {
            let word = script::word(&text).unwrap_or_default();
            let what = format!("{shown} is written for the Python daemon: it names {word}");
            let fix = "take out what unpacks, registers and starts the runner and powers off, and write setup_script: \
                       {after: FILE}; lxdrunner does the rest (README, Coming from the Python daemon)";
            item.refuse(what, fix)
        }
        Ok(text) if text.starts_with("#!") => Some(text),
        Ok(_) => {
            let fix = "start the script with #!/bin/sh";
            item.refuse(format!("{shown} does not start with #!"), fix)
        }
        Err(error) => {
            let fix = format!("name a readable file; {otherwise}");
            item.refuse(format!("cannot read {shown}: {error}"), fix)
        }
    }
}

/// Adds what Docker needs of a container's config where the class does not set it itself.
fn docker(class: &Section<'_>, kind: InstanceType, config: &mut ConfigMap) -> bool {
    let wanted = class.or("docker", false, Item::flag);
    if !wanted || kind == InstanceType::VirtualMachine {
        return wanted;
    }
    if config.get(NESTING).is_some_and(|text| text == "false") {
        let fix = format!("take {NESTING} out of config");
        class.at("docker").error(format!("needs {NESTING}, which config forbids"), fix);
    }
    for key in FOR_DOCKER {
        config.entry((*key).to_owned()).or_insert_with(|| "true".to_owned());
    }
    true
}

/// The certificates in `ca_file`, each in PEM, without the file's other text. `github` reports a file that cannot be read.
pub(super) fn authorities(top: &Section<'_>) -> Vec<String> {
    let Some(item) = top.get("ca_file") else { return Vec::new() };
    let Node::Text(name) = item.node else { return Vec::new() };
    let text = file::read_text(&item.report.beside(name), file::LONGEST_BUNDLE).unwrap_or_default();
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let certificates = text.split(begin).skip(1).filter_map(|part| part.split_once(end));
    certificates.map(|(inner, _)| format!("{begin}{inner}{end}\n")).collect()
}

/// The setting that lets a container run containers.
pub const NESTING: &str = "security.nesting";
/// The settings that LXD's manual has for Docker in a container; without the interceptions some images cannot be unpacked.
const FOR_DOCKER: &[&str] = &[NESTING, "security.syscalls.intercept.mknod", "security.syscalls.intercept.setxattr"];

/// The script that reads them in the instance, which has variables of its own.
const SCRIPT: &str = include_str!("../../provision/environment.sh");
/// More than any program takes as one variable.
const LONGEST_VALUE: usize = 32 * 1024;
/// The start script sets these for the job's user.
const OF_THE_USER: &[&str] = &["HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD"];

/// `env`, of the file or of a class.
pub(super) fn env(holder: &Section<'_>) -> ConfigMap {
    holder.or("env", ConfigMap::new(), |item| Section::free(item)?.each(value_of))
}

/// What `environment.*` of a class's config says, and on top of it the class's `env`.
fn environment(config: &ConfigMap, env: ConfigMap) -> ConfigMap {
    let of_config = config.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix("environment.").filter(|_| !value.contains(char::is_control))?;
        Some((name.to_owned(), value.clone()))
    });
    of_config.chain(env).collect()
}

fn value_of(name: &str, item: &Item<'_>) -> Option<String> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if name.is_empty() || !plain || name.starts_with(|c: char| c.is_ascii_digit()) {
        return item.refuse("is not the name of a variable", "write letters, digits and _, no digit first");
    }
    let ours = name.starts_with("LXDRUNNER_") || name.starts_with("ACTIONS_RUNNER_INPUT_");
    if ours || OF_THE_USER.contains(&name) || names_of_the_script().any(|own| own == name) {
        return item.refuse("is set by lxdrunner itself", "leave it out, or use another name");
    }
    let value = item.scalar()?;
    if value.contains(char::is_control) || value.len() > LONGEST_VALUE {
        let fix = format!("write one line of at most {LONGEST_VALUE} bytes");
        return item.refuse("cannot be the value of a variable", fix);
    }
    Some(value)
}

/// The variables of `start-runner.sh`, which it does not let the environment change.
fn names_of_the_script() -> impl Iterator<Item = &'static str> {
    let list = SCRIPT.split_once("own_names='").and_then(|(_, rest)| rest.split_once('\''));
    list.map_or("", |(names, _)| names).split_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_of_the_start_script_is_kept_from_the_environment() {
        let known: Vec<&str> = names_of_the_script().collect();
        let both = [SCRIPT, include_str!("../../provision/start-runner.sh")].join("\n");
        let code = both.lines().filter(|line| !line.trim_start().starts_with('#'));
        let script = code.collect::<Vec<_>>().join("\n");
        let assigned = script.split(|c: char| c.is_whitespace() || c == ';').filter_map(|word| {
            let (name, _) = word.split_once('=').filter(|(_, value)| !value.contains(','))?;
            let plain = |b: u8| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit();
            (!name.is_empty() && name.bytes().all(plain) && !name.starts_with('_')).then_some(name)
        });
        let read = both.lines().filter(|line| line.contains("read -r")).flat_map(|line| {
            let (_, names) = line.split_once("read -r").unwrap_or_default();
            let names = names.split(['<', ';', '|']).next().unwrap_or_default();
            names.split_whitespace().filter(|name| name.bytes().all(|b| b.is_ascii_lowercase()))
        });
        for name in assigned.chain(read) {
            assert!(known.contains(&name), "own_names in environment.sh lacks {name}");
        }
    }
}
