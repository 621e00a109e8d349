//! `runnermap`: the classes.

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use super::read::{Item, Section};
use super::report::Report;
use super::{Class, Remote, guard, image, inside};
use crate::model::{ConfigMap, Devices, InstanceType, Labels, RunnerArch};

pub(super) const KEYS: &[&str] = &[
    "name",
    "labels",
    "image",
    "type",
    "runner_os",
    "runner_arch",
    "profiles",
    "setup_script",
    "env",
    "packages",
    "wait_for",
    "docker",
    "hooks",
    "max_workers",
    "template",
    "standby",
    "idle",
    "config",
    "devices",
    "project",
    "target",
    "runner_group",
    "repos",
];

/// GitHub takes 1 to 100 labels with a runner, each of at most this many characters.
const LONGEST_LABEL: usize = 100;
const MOST_LABELS: usize = 100;

/// All classes. `None` where any of them is wrong.
pub(super) fn classes(
    top: &Section<'_>,
    base: &FilePath,
    remotes: &BTreeMap<String, Remote>,
    max_workers: usize,
    report: &mut Report,
) -> Option<Vec<Class>> {
    let fix = "write at least one class: `- {name: ubuntu, labels: [self-hosted], image: \"ubuntu:24.04\"}`";
    let map = top.require("runnermap", fix, report)?;
    let items = map.list("a list of classes, each starting with `- name: …`", report)?;
    if items.is_empty() {
        report.error(&map.path, "has no classes: no job would ever be served", fix);
    }
    let (common, authorities) = (inside::env(top, report), inside::authorities(top, base));
    let mut classes: Vec<Class> = Vec::new();
    for item in &items {
        let Some(mut class) = class(item, base, remotes, max_workers, report) else { continue };
        class.inside.env = common
            .iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.clone()))
            .chain(class.inside.env)
            .collect();
        class.inside.authorities.clone_from(&authorities);
        if let Some(twin) = classes.iter().find(|c| c.name.to_lowercase() == class.name.to_lowercase()) {
            let what = format!("{:?} is the name of another class already", twin.name);
            report.error(&item.path.key("name"), what, "give each class a name of its own");
        }
        if let Some(twin) = classes.iter().find(|c| c.labels == class.labels) {
            let what = format!("classes {:?} and {:?} have the same labels ({})", twin.name, class.name, class.labels);
            let fix = "remove one, or give one a label of its own: every runner has \
                       self-hosted, linux and its processor, so jobs cannot tell the two apart";
            report.error(&item.path.key("labels"), what, fix);
        }
        classes.push(class);
    }
    (classes.len() == items.len() && common.is_some()).then_some(classes)
}

fn class(
    item: &Item<'_>,
    base: &FilePath,
    remotes: &BTreeMap<String, Remote>,
    most: usize,
    report: &mut Report,
) -> Option<Class> {
    let class = Section::new(item, KEYS, report)?;
    let name = class.require("name", "give the class a name", report).and_then(|i| class_name(&i, report));
    runner_os(&class, report);
    let arch = match class.get("runner_arch") {
        Some(item) => arch(&item, report),
        None => host_arch(&class, report),
    };
    let labels = labels(&class, arch, report);
    let image = class
        .require("image", "write an alias or fingerprint of an image, or REMOTE:ALIAS", report)
        .and_then(|i| image::image(&i, remotes, report));
    let kind = class.or("type", InstanceType::Container, instance_type, report);
    let profiles = class.or("profiles", vec!["default".to_owned()], profiles, report);
    let wait_for = class.or("wait_for", Vec::new(), wait_for, report);
    let number = |item: &Item<'_>, report: &mut Report| item.number(1, 10_000, report).map(|n| n as usize);
    let max_workers = class.or("max_workers", most, number, report);
    let template = class.or("template", true, Item::flag, report);
    let standby = kept("standby", &class, max_workers, report);
    let idle = kept("idle", &class, max_workers, report);
    if template == Some(false) && standby.is_some_and(|n| n > 0) {
        let fix = "leave template out, or standby";
        report.error(&class.path.key("standby"), "needs a template, from which standbys are copied", fix);
    }
    let mut config = class.or("config", ConfigMap::new(), instance_config, report);
    let devices = class.or("devices", Devices::new(), devices, report);
    let project = class.or("project", "default".to_owned(), Item::name, report);
    // Its own errors are told even where others are.
    let (kind_here, mut nothing) = (kind.unwrap_or(InstanceType::Container), ConfigMap::new());
    let inside = inside::inside(&class, base, (kind_here, config.as_mut().unwrap_or(&mut nothing)), report);
    let target = match class.get("target") {
        Some(item) if *item.node == super::node::Node::Text(String::new()) => Some(String::new()),
        Some(item) => item.name(report),
        None => Some(String::new()),
    };
    let repos = guard::repos(&class, report);
    let runner_group = class.or("runner_group", super::DEFAULT_GROUP.to_owned(), group, report);

    Some(Class {
        name: name?,
        labels: labels?,
        image: image?,
        kind: kind?,
        arch: arch?,
        profiles: profiles?,
        inside: inside?,
        wait_for: wait_for?,
        max_workers: max_workers?,
        template: template?,
        standby: standby?,
        idle: idle?,
        config: config?,
        devices: devices?,
        project: project?,
        target: target?,
        runner_group: runner_group?,
        repos: repos?,
    })
}

fn wait_for(item: &Item<'_>, report: &mut Report) -> Option<Vec<String>> {
    let items = item.list("a list of systemd units, such as [docker.service]", report)?;
    let unit = |item: &Item<'_>, report: &mut Report| {
        let name = item.text("the name of a systemd unit", report)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let whole = name.rsplit_once('.').is_some_and(|(name, kind)| !name.is_empty() && !kind.is_empty());
        if !whole || name.starts_with('-') || name.len() > 255 || !name.chars().all(plain) {
            let fix = "write its whole name: docker.service; multi-user.target stands for the whole boot";
            report.error(&item.path, format!("{name:?} is not the name of a systemd unit"), fix);
            return None;
        }
        Some(name.to_owned())
    };
    items.iter().map(|item| unit(item, report)).collect::<Vec<_>>().into_iter().collect()
}

/// How many of something are kept ready; more than the class may have instances would never be reached.
fn kept(key: &str, class: &Section<'_>, most: Option<usize>, report: &mut Report) -> Option<usize> {
    let Some(item) = class.get(key) else { return Some(0) };
    let number = item.number(0, 1000, report)? as usize;
    if let Some(most) = most.filter(|most| number > *most) {
        report.warn(&item.path, format!("{number} are never reached: max_workers is {most}"));
    }
    Some(number)
}

fn class_name(item: &Item<'_>, report: &mut Report) -> Option<String> {
    let name = item.scalar(report)?;
    if name.trim().is_empty() || name.trim() != name || name.len() > 100 || name.contains(char::is_control) {
        let fix = "write 1 to 100 characters, no spaces at the ends";
        report.error(&item.path, format!("{name:?} is not a name"), fix);
        return None;
    }
    Some(name)
}

fn group(item: &Item<'_>, report: &mut Report) -> Option<String> {
    let name = item.scalar(report)?;
    if name.trim().is_empty() || name.contains(char::is_control) {
        report.error(&item.path, "is empty", "write the name of a runner group, or Default");
        return None;
    }
    Some(name)
}

fn runner_os(class: &Section<'_>, report: &mut Report) {
    let Some(item) = class.get("runner_os") else { return };
    match item.text("linux", report) {
        None | Some("linux") => {}
        Some(os @ ("win" | "windows" | "osx" | "macos")) => {
            report.error(&item.path, format!("{os} runners do not run in LXD's Linux instances"), "write linux");
        }
        Some(other) => report.error(&item.path, format!("{other:?} is not an operating system"), "write linux"),
    }
}

fn arch(item: &Item<'_>, report: &mut Report) -> Option<RunnerArch> {
    match item.text("x64, arm64 or arm", report)? {
        "x64" => Some(RunnerArch::X64),
        "arm" => Some(RunnerArch::Arm),
        "arm64" => Some(RunnerArch::Arm64),
        other => {
            let fix = match other {
                "x86_64" | "amd64" => "write x64",
                "aarch64" => "write arm64",
                "armv7" | "armhf" | "armv7l" => "write arm",
                _ => "write x64, arm64 or arm",
            };
            report.error(&item.path, format!("{other:?} is not GitHub's word for a processor"), fix);
            None
        }
    }
}

fn host_arch(class: &Section<'_>, report: &mut Report) -> Option<RunnerArch> {
    match std::env::consts::ARCH {
        "x86_64" => Some(RunnerArch::X64),
        "aarch64" => Some(RunnerArch::Arm64),
        "arm" => Some(RunnerArch::Arm),
        other => {
            let what = format!("is missing, and this machine's {other} is none that GitHub has a runner for");
            report.error(&class.path.key("runner_arch"), what, "write x64, arm64 or arm");
            None
        }
    }
}

fn labels(class: &Section<'_>, arch: Option<RunnerArch>, report: &mut Report) -> Option<Labels> {
    let item = class.require("labels", "write the labels that jobs ask for: [self-hosted]", report)?;
    let mut written = Vec::new();
    let items = item.list("a list of labels, such as [self-hosted, linux]", report)?;
    for one in &items {
        let Some(label) = one.scalar(report) else { continue };
        if label.is_empty() || label.trim() != label || label.len() > LONGEST_LABEL || label.contains([',', '\n']) {
            let fix = format!("write 1 to {LONGEST_LABEL} characters, no commas, no spaces at the ends");
            report.error(&one.path, format!("{label:?} is not a label"), fix);
            continue;
        }
        let lower = label.to_lowercase();
        let other_arch = ["x64", "arm", "arm64"].contains(&lower.as_str()) && arch.is_some_and(|a| a.as_str() != lower);
        if other_arch || matches!(lower.as_str(), "windows" | "macos") {
            report.warn(&one.path, format!("jobs that ask for {label} will get this linux {} class", or_unknown(arch)));
        }
        written.push(label);
    }
    let implied = ["self-hosted", "linux"].into_iter().chain(arch.map(RunnerArch::as_str));
    let labels: Labels = written.iter().map(String::as_str).chain(implied).collect();
    if labels.len() > MOST_LABELS {
        report.error(&item.path, format!("are {} labels", labels.len()), format!("GitHub takes {MOST_LABELS} at most"));
        return None;
    }
    (written.len() == items.len()).then_some(labels)
}

fn or_unknown(arch: Option<RunnerArch>) -> &'static str {
    arch.map_or("", RunnerArch::as_str)
}

fn instance_type(item: &Item<'_>, report: &mut Report) -> Option<InstanceType> {
    match item.text("container or virtual-machine", report)? {
        "container" => Some(InstanceType::Container),
        "virtual-machine" => Some(InstanceType::VirtualMachine),
        other => {
            let fix = if matches!(other, "vm" | "VM") {
                "write virtual-machine"
            } else {
                "write container or virtual-machine"
            };
            report.error(&item.path, format!("{other:?} is not a type of instance"), fix);
            None
        }
    }
}

fn profiles(item: &Item<'_>, report: &mut Report) -> Option<Vec<String>> {
    let items = item.list("a list of LXD profiles, such as [default]", report)?;
    let mut profiles: Vec<String> = Vec::new();
    for one in &items {
        let Some(name) = one.name(report) else { continue };
        if profiles.contains(&name) {
            report.error(&one.path, format!("{name:?} is in the list twice"), "remove one of them");
        }
        profiles.push(name);
    }
    (profiles.len() == items.len()).then_some(profiles)
}

fn instance_config(item: &Item<'_>, report: &mut Report) -> Option<ConfigMap> {
    let section = Section::free(item, report)?;
    let mut config = ConfigMap::new();
    let mut whole = true;
    for (key, value) in section.entries() {
        if key.starts_with("user.lxdrunner.") {
            report.error(&value.path, "is reserved for lxdrunner", "use another name: user.…");
            whole = false;
        } else if let Some(text) = value.scalar(report) {
            if key == "security.privileged" && text == "true" {
                report.warn(&value.path, "root in the instance is root on this machine: any job can take it over");
            }
            config.insert(key.to_owned(), text);
        } else {
            whole = false;
        }
    }
    whole.then_some(config)
}

fn devices(item: &Item<'_>, report: &mut Report) -> Option<Devices> {
    let section = Section::free(item, report)?;
    let mut devices = Devices::new();
    let mut whole = true;
    for (name, one) in section.entries() {
        let Some(settings) = Section::free(&one, report) else {
            whole = false;
            continue;
        };
        let mut device = ConfigMap::new();
        for (key, value) in settings.entries() {
            match value.scalar(report) {
                Some(text) => drop(device.insert(key.to_owned(), text)),
                None => whole = false,
            }
        }
        if settings.get("type").is_none() {
            report.error(&one.path, "has no type", "write type: disk, nic, gpu, …");
            whole = false;
        }
        devices.insert(name.to_owned(), device);
    }
    whole.then_some(devices)
}
