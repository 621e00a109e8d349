//! `runnermap`: the classes.

use std::collections::{BTreeMap, BTreeSet};

use super::node::Node;
use super::read::{Item, Section};
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
pub(super) fn classes(top: &Section<'_>, remotes: &BTreeMap<String, Remote>, max_workers: usize) -> Option<Vec<Class>> {
    let fix = "write at least one class: `- {name: ubuntu, labels: [self-hosted], image: \"ubuntu:24.04\"}`";
    let map = top.require("runnermap", fix)?;
    let items = map.list("a list of classes, each starting with `- name: …`")?;
    if items.is_empty() {
        map.error("has no classes: no job would ever be served", fix);
    }
    let (common, authorities) = (inside::env(top), inside::authorities(top));
    let mut classes: Vec<Class> = Vec::new();
    for item in &items {
        let Some(mut class) = class(item, remotes, max_workers) else { continue };
        class.inside.env = common.clone().into_iter().chain(class.inside.env).collect();
        class.inside.authorities.clone_from(&authorities);
        if let Some(twin) = classes.iter().find(|c| c.name.to_lowercase() == class.name.to_lowercase()) {
            let what = format!("{:?} is the name of another class already", twin.name);
            item.at("name").error(what, "give each class a name of its own");
        }
        if let Some(twin) = classes.iter().find(|c| c.labels == class.labels) {
            let what = format!("classes {:?} and {:?} have the same labels ({})", twin.name, class.name, class.labels);
            let fix = "remove one, or give one a label of its own: every runner has \
                       self-hosted, linux and its processor, so jobs cannot tell the two apart";
            item.at("labels").error(what, fix);
        }
        classes.push(class);
    }
    (classes.len() == items.len()).then_some(classes)
}

fn class(item: &Item<'_>, remotes: &BTreeMap<String, Remote>, most: usize) -> Option<Class> {
    let class = Section::new(item, KEYS)?;
    let name = class.require("name", "give the class a name").and_then(|i| class_name(&i));
    runner_os(&class);
    let arch = match class.get("runner_arch") {
        Some(item) => arch(&item),
        None => host_arch(&class),
    };
    let labels = labels(&class, arch);
    let image = class
        .require("image", "write an alias or fingerprint of an image, or REMOTE:ALIAS")
        .and_then(|i| image::image(&i, remotes));
    let kind = class.or("type", InstanceType::Container, instance_type);
    // Unknown where it is wrong.
    let max_workers =
        class.get("max_workers").map_or(Some(most), |item| item.number(1, 10_000).map(|number| number as usize));
    let template = class.or("template", true, Item::flag);
    let standby = kept("standby", &class, max_workers);
    if !template && standby > 0 {
        let fix = "leave template out, or standby";
        class.at("standby").error("needs a template, from which standbys are copied", fix);
    }
    let mut config = class.or("config", ConfigMap::new(), instance_config);
    let inside = inside::inside(&class, kind, &mut config);

    Some(Class {
        kind,
        profiles: class.or("profiles", vec!["default".to_owned()], profiles),
        inside,
        wait_for: class.or("wait_for", Vec::new(), wait_for),
        template,
        standby,
        idle: kept("idle", &class, max_workers),
        config,
        devices: class.or("devices", Devices::new(), devices),
        project: class.or("project", "default".to_owned(), Item::name),
        target: class.or("target", String::new(), target),
        runner_group: class.or("runner_group", super::DEFAULT_GROUP.to_owned(), group),
        repos: guard::repos(&class),
        // Last, so that all errors are reported before one of these is found missing.
        name: name?,
        labels: labels?,
        image: image?,
        arch: arch?,
        max_workers: max_workers?,
    })
}

/// Empty text is allowed: no member in particular.
fn target(item: &Item<'_>) -> Option<String> {
    match item.node {
        Node::Text(text) if text.is_empty() => Some(String::new()),
        _ => item.name(),
    }
}

fn wait_for(item: &Item<'_>) -> Option<Vec<String>> {
    item.each("a list of systemd units, such as [docker.service]", |item| {
        let name = item.text("the name of a systemd unit")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let whole = name.rsplit_once('.').is_some_and(|(name, kind)| !name.is_empty() && !kind.is_empty());
        if !whole || name.starts_with('-') || name.len() > 255 || !name.chars().all(plain) {
            let fix = "write its whole name: docker.service; multi-user.target stands for the whole boot";
            return item.refuse(format!("{name:?} is not the name of a systemd unit"), fix);
        }
        Some(name.to_owned())
    })
}

/// How many of something are kept ready; more than the class may have instances would never be reached.
fn kept(key: &str, class: &Section<'_>, most: Option<usize>) -> usize {
    let number = class.or(key, 0, |item| item.number(0, 1000)) as usize;
    if let Some(most) = most.filter(|most| number > *most) {
        class.at(key).warn(format!("{number} are never reached: max_workers is {most}"));
    }
    number
}

fn class_name(item: &Item<'_>) -> Option<String> {
    let name = item.scalar()?;
    if name.trim().is_empty() || name.trim() != name || name.len() > 100 || name.contains(char::is_control) {
        let fix = "write 1 to 100 characters, no spaces at the ends";
        return item.refuse(format!("{name:?} is not a name"), fix);
    }
    Some(name)
}

fn group(item: &Item<'_>) -> Option<String> {
    let name = item.scalar()?;
    if name.trim().is_empty() || name.contains(char::is_control) {
        return item.refuse("is empty", "write the name of a runner group, or Default");
    }
    Some(name)
}

fn runner_os(class: &Section<'_>) {
    let Some(item) = class.get("runner_os") else { return };
    match item.text("linux") {
        None | Some("linux") => {}
        Some(os @ ("win" | "windows" | "osx" | "macos")) => {
            item.error(format!("{os} runners do not run in LXD's Linux instances"), "write linux");
        }
        Some(other) => item.error(format!("{other:?} is not an operating system"), "write linux"),
    }
}

fn arch(item: &Item<'_>) -> Option<RunnerArch> {
    match item.text("x64, arm64 or arm")? {
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
            item.refuse(format!("{other:?} is not GitHub's word for a processor"), fix)
        }
    }
}

fn host_arch(class: &Section<'_>) -> Option<RunnerArch> {
    match std::env::consts::ARCH {
        "x86_64" => Some(RunnerArch::X64),
        "aarch64" => Some(RunnerArch::Arm64),
        "arm" => Some(RunnerArch::Arm),
        other => {
            let what = format!("is missing, and this machine's {other} is none that GitHub has a runner for");
            class.at("runner_arch").refuse(what, "write x64, arm64 or arm")
        }
    }
}

fn labels(class: &Section<'_>, arch: Option<RunnerArch>) -> Option<Labels> {
    let item = class.require("labels", "write the labels that jobs ask for: [self-hosted]")?;
    let written = item.each("a list of labels, such as [self-hosted, linux]", |one| {
        let label = one.scalar()?;
        if label.is_empty() || label.trim() != label || label.len() > LONGEST_LABEL || label.contains([',', '\n']) {
            let fix = format!("write 1 to {LONGEST_LABEL} characters, no commas, no spaces at the ends");
            return one.refuse(format!("{label:?} is not a label"), fix);
        }
        let lower = label.to_lowercase();
        let other_arch = ["x64", "arm", "arm64"].contains(&lower.as_str()) && arch.is_some_and(|a| a.as_str() != lower);
        if other_arch || matches!(lower.as_str(), "windows" | "macos") {
            let arch = arch.map_or("", RunnerArch::as_str);
            one.warn(format!("jobs that ask for {label} will get this linux {arch} class"));
        }
        Some(label)
    })?;
    let implied = ["self-hosted", "linux"].into_iter().chain(arch.map(RunnerArch::as_str));
    let labels: Labels = written.iter().map(String::as_str).chain(implied).collect();
    if labels.len() > MOST_LABELS {
        return item.refuse(format!("are {} labels", labels.len()), format!("GitHub takes {MOST_LABELS} at most"));
    }
    Some(labels)
}

fn instance_type(item: &Item<'_>) -> Option<InstanceType> {
    match item.text("container or virtual-machine")? {
        "container" => Some(InstanceType::Container),
        "virtual-machine" => Some(InstanceType::VirtualMachine),
        other => {
            let fix = if matches!(other, "vm" | "VM") {
                "write virtual-machine"
            } else {
                "write container or virtual-machine"
            };
            item.refuse(format!("{other:?} is not a type of instance"), fix)
        }
    }
}

fn profiles(item: &Item<'_>) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    item.each("a list of LXD profiles, such as [default]", |one| {
        let name = one.name()?;
        if !seen.insert(name.clone()) {
            one.error(format!("{name:?} is in the list twice"), "remove one of them");
        }
        Some(name)
    })
}

fn instance_config(item: &Item<'_>) -> Option<ConfigMap> {
    Section::free(item)?.each(|key, value| {
        if key.starts_with("user.lxdrunner.") {
            return value.refuse("is reserved for lxdrunner", "use another name: user.…");
        }
        let text = value.scalar()?;
        if key == "security.privileged" && text == "true" {
            value.warn("root in the instance is root on this machine: any job can take it over");
        }
        Some(text)
    })
}

fn devices(item: &Item<'_>) -> Option<Devices> {
    Section::free(item)?.each(|_, one| {
        let settings = Section::free(one)?;
        let device = settings.each(|_, value| value.scalar());
        if settings.get("type").is_none() {
            return one.refuse("has no type", "write type: disk, nic, gpu, …");
        }
        device
    })
}
