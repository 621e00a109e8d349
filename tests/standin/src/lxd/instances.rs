//! Instances: their life from create to delete.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::answer::{Answer, Ask};
use super::files::Tree;
use super::operations;
use super::server::Shared;
use super::state::{ImageEntry, InstanceRecord, Power, State, instance_not_found, map};
use lxdrunner::model::{ConfigMap, Devices, InstanceType, Timestamp};

/// First parts of the config keys that LXD knows.
const KNOWN_KEYS: &[&str] = &[
    "agent.",
    "boot.",
    "cloud-init.",
    "cluster.",
    "environment.",
    "image.",
    "limits.",
    "linux.",
    "migration.",
    "nvidia.",
    "raw.",
    "security.",
    "snapshots.",
    "user.",
    "volatile.",
];

/// A user id that no host lets LXD give away.
const OUTSIDE: &str = "4000000000";

pub(super) fn list(state: &State, ask: &Ask) -> Result<Answer, Answer> {
    let project = ask.project();
    // Only the form that is used: `config.KEY eq VALUE`.
    let wanted = match ask.query("filter") {
        None => None,
        Some(filter) => {
            let clause = filter.split_once(" eq ").and_then(|(key, value)| Some((key.strip_prefix("config.")?, value)));
            Some(clause.ok_or_else(|| Answer::error(500, "Invalid filter: clause has no operator"))?)
        }
    };
    let whole = ask.query("recursion").is_some_and(|r| r != "0");
    let ours = state.instances.iter().filter(|((of, _), _)| of == project);
    let ours = ours.filter(|(_, i)| wanted.is_none_or(|(key, value)| i.config.get(key).is_some_and(|v| v == value)));
    let shown = ours.map(|((_, name), instance)| match whole {
        true => instance_json(state, project, name, instance),
        false => json!(format!("/1.0/instances/{name}")),
    });
    Ok(Answer::sync(shown.collect()))
}

pub(super) fn get(state: &State, ask: &Ask, name: &str) -> Result<Answer, Answer> {
    let instance = state.find(ask.project(), name)?;
    let answer = Answer::sync(instance_json(state, ask.project(), name, instance));
    Ok(answer.with("ETag", &format!("\"{}\"", instance.etag())))
}

pub(super) fn create(shared: &Arc<Shared>, ask: &Ask) -> Result<Answer, Answer> {
    let body = ask.json()?;
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let project = ask.project().to_owned();
    let state = shared.lock();
    if !state.projects.contains(&project) {
        return Err(Answer::error(404, "Failed loading project: Project not found"));
    }
    if ask.query("target").is_some() && !state.clustered {
        return Err(Answer::error(400, "Target only allowed when clustered"));
    }
    let kind = match text("type").as_str() {
        "" | "container" => InstanceType::Container,
        "virtual-machine" => InstanceType::VirtualMachine,
        _ => return Err(Answer::error(400, "Invalid instance type")),
    };
    let name = text("name");
    check_name(&name).map_err(|why| Answer::error(400, &format!("Invalid instance name: {why}")))?;
    let field = |key: &str| body.get(key).filter(|value| !value.is_null()).cloned();
    let config: ConfigMap = field("config").and_then(|c| serde_json::from_value(c).ok()).unwrap_or_default();
    let devices: Devices = field("devices").and_then(|d| serde_json::from_value(d).ok()).unwrap_or_default();
    let profiles: Vec<String> =
        field("profiles").and_then(|p| serde_json::from_value(p).ok()).unwrap_or_else(|| vec!["default".to_owned()]);
    if let Some(missing) = profiles.iter().find(|profile| !state.profiles.contains_key(*profile)) {
        return Err(Answer::error(500, &format!("Requested profile \"{missing}\" doesn't exist")));
    }
    let source = body.get("source").cloned().unwrap_or_default();
    if let Some(alias) = source.get("alias").and_then(Value::as_str)
        && source.get("server").is_none()
        && !state.images.iter().any(|image| image.alias == alias)
    {
        return Err(Answer::error(404, "Image alias not found"));
    }
    if state.clustered {
        // It looks at the image at once, to find a member for the instance.
        let text = |key: &str| source.get(key).and_then(Value::as_str);
        let known = |image: &ImageEntry| match (text("fingerprint"), text("alias")) {
            (Some(fingerprint), _) => image.fingerprint.starts_with(fingerprint),
            (_, alias) => alias.is_none_or(|alias| image.alias == alias),
        };
        match state.images.iter().any(known) {
            true => {}
            false if text("server").is_some() => return Err(Answer::error(500, "Failed getting image")),
            false => return Err(Answer::error(404, "Image not found")),
        }
    }
    let mut record = InstanceRecord {
        kind,
        architecture: "x86_64".to_owned(),
        config,
        devices,
        profiles,
        ephemeral: body.get("ephemeral").and_then(Value::as_bool).unwrap_or(false),
        created_at: Timestamp::now(),
        power: Power::Stopped,
        boots: 0,
        processes: 0,
        agent_polls: 0,
        files: Tree::new(),
        logs: Default::default(),
        output_reads: 0,
    };
    if source.get("type").and_then(Value::as_str) == Some("copy") {
        let original = source.get("source").and_then(Value::as_str).unwrap_or_default();
        let Some(original) = state.instance(&project, original) else { return Err(instance_not_found()) };
        record.take_over(original);
    }
    let start = state.starts_at_creation && body.get("start").and_then(Value::as_bool).unwrap_or(false);
    drop(state);
    let (own_project, own_name) = (project.clone(), name.clone());
    Ok(operations::run(shared, "Creating instance", &project, &name, move |shared| {
        made(&mut shared.lock(), (own_project.clone(), own_name.clone()), &source, record)?;
        if !start {
            return Ok(Value::Null);
        }
        let started = changed_power(shared, &own_project, &own_name, "start");
        shared.changed.notify_all();
        started
    }))
}

/// The public image servers have images for one product each.
fn serves(server: &str, product: &str) -> bool {
    match server.split("://").nth(1).and_then(|rest| rest.split('/').next()) {
        Some("images.linuxcontainers.org") => product == "incus",
        Some("images.lxd.canonical.com" | "cloud-images.ubuntu.com") => product != "incus",
        _ => true,
    }
}

/// What the operation of a create does.
fn made(state: &mut State, key: (String, String), source: &Value, mut record: InstanceRecord) -> operations::Outcome {
    let text = |name: &str| source.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let by_fingerprint = |start: &str| state.images.iter().find(|image| image.fingerprint.starts_with(start));
    // An image server's images are the stand-in's own, where the server has images for this product.
    if let Some(server) = text("server").filter(|server| !serves(server, &state.product)) {
        return Err(format!("Failed getting remote image info: Failed getting image from {server}: not found"));
    }
    let copied = text("type") == Some("copy");
    let base = record.config.get("volatile.base_image").cloned().unwrap_or_default();
    let image = match (text("alias"), text("fingerprint")) {
        (Some(alias), _) => state.images.iter().find(|image| image.alias == alias),
        (_, Some(fingerprint)) => by_fingerprint(fingerprint),
        _ if copied => by_fingerprint(&base),
        _ => None,
    };
    let Some(image) = image else {
        return Err(match text("server") {
            Some(server) => format!("Failed getting remote image info: Failed getting image from {server}: not found"),
            None => "Image not provided for instance creation".to_owned(),
        });
    };
    if image.kind != record.kind {
        let (has, wants) = (image.kind.as_str(), record.kind.as_str());
        return Err(format!("Requested image's type \"{has}\" doesn't match instance type \"{wants}\""));
    }
    if let (false, Some(files)) = (copied, state.published.get(&image.fingerprint)) {
        record.files = files.clone();
    }
    let failed = |why: &str| Err(format!("Failed creating instance record: {why}"));
    if state.instances.contains_key(&key) {
        return failed("Add instance info to the database: This \"instances\" entry already exists");
    }
    if let Some(unknown) = record.config.keys().find(|key| !KNOWN_KEYS.iter().any(|known| key.starts_with(known))) {
        return failed(&format!("Unknown configuration key: {unknown}"));
    }
    let (_, devices) = state.expanded(&record.profiles, &record.config, &record.devices);
    let mut pool = None;
    for (name, device) in &devices {
        let property = |key: &str| device.get(key).map_or("", String::as_str);
        match property("type") {
            "disk" if property("path") == "/" => pool = Some(property("pool").to_owned()),
            "nic" if !property("network").is_empty() && !state.networks.contains_key(property("network")) => {
                let network = property("network");
                return failed(&format!(
                    "Failed initialising instance: Invalid devices: Device validation failed for \"{name}\": Failed \
                     loading device \"{name}\": Failed to load network \"{network}\" for project \"{}\": Network not found",
                    key.0
                ));
            }
            "disk" | "nic" | "none" | "proxy" | "unix-char" | "gpu" | "usb" | "tpm" => {}
            other => return failed(&format!("Invalid device type {other}")),
        }
    }
    match pool {
        None => return failed("Failed initialising instance: Failed getting root disk: No root device could be found"),
        Some(pool) if !state.pools.contains_key(&pool) => {
            return failed("Failed initialising instance: Failed loading storage pool: Storage pool not found");
        }
        Some(_) if state.pool_full => {
            return Err("Failed creating instance from image: write: no space left on device".to_owned());
        }
        Some(_) => {}
    }
    for (name, value) in &image.properties {
        record.config.insert(format!("image.{name}"), value.clone());
    }
    if !copied {
        // The first start shifts the root's ids; what says so is then of the instance's own.
        record.config.extend(map(&[("volatile.base_image", &image.fingerprint), ("volatile.last_state.idmap", "[]")]));
    }
    let applied = if copied { "copy" } else { "create" };
    record.config.insert("volatile.apply_template".to_owned(), applied.to_owned());
    record.architecture.clone_from(&image.architecture);
    let number = state.number();
    let hardware = format!("00:16:3e:00:{:02x}:{:02x}", number >> 8 & 0xff, number & 0xff);
    record.config.insert("volatile.eth0.hwaddr".to_owned(), hardware);
    record.config.insert("volatile.uuid".to_owned(), format!("00000000-0000-4000-9000-{number:012x}"));
    state.instances.insert(key, record);
    Ok(Value::Null)
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    match name.as_bytes() {
        [] | [_, .., _] if name.is_empty() || name.len() > 63 => Err("Name must be 1-63 characters long"),
        bytes if !bytes.iter().all(|b| plain(*b)) => Err("Name can only contain alphanumeric and hyphen characters"),
        [b'0'..=b'9', ..] => Err("Name must not start with a number"),
        [b'-', ..] => Err("Name must not start with \"-\" character"),
        [.., b'-'] => Err("Name must not end with \"-\" character"),
        _ => Ok(()),
    }
}

pub(super) fn patch(shared: &Shared, ask: &Ask, name: &str) -> Result<Answer, Answer> {
    let body = ask.json()?;
    let mut state = shared.lock();
    let instance = state.find_mut(ask.project(), name)?;
    let etag = instance.etag();
    if let Some(wanted) = ask.headers.get("if-match")
        && wanted.trim_matches('"') != etag
    {
        return Err(Answer::error(412, &format!("ETag doesn't match: {etag} vs {}", wanted.trim_matches('"'))));
    }
    let config = body.get("config").cloned().and_then(|c| serde_json::from_value::<ConfigMap>(c).ok());
    let config = config.unwrap_or_default();
    if let Some(unknown) = config.keys().find(|key| !KNOWN_KEYS.iter().any(|known| key.starts_with(known))) {
        return Err(Answer::error(500, &format!("Invalid config: Unknown configuration key: {unknown}")));
    }
    let told = config.keys().any(|key| key.starts_with("user."));
    instance.config.extend(config);
    let deaf = agent_fails(instance).filter(|_| told && instance.kind == InstanceType::VirtualMachine);
    let deaf = deaf.filter(|why| *why == FROZEN || NEEDS_AGENT.contains(&state.version.as_str()));
    drop(state);
    shared.changed.notify_all();
    deaf.map_or_else(|| Ok(Answer::sync(json!({}))), |why| Err(Answer::error(500, why)))
}

/// Versions of LXD to which a running virtual machine whose agent has not started is a failure, too.
const NEEDS_AGENT: [&str; 6] = ["5.0.2", "5.0.3", "5.21.0", "5.21.1", "5.21.2", "6.1"];
const FROZEN: &str = "Failed to connect to lxd-agent";

/// What LXD says when it has changed a virtual machine's keys and cannot tell the agent.
fn agent_fails(instance: &InstanceRecord) -> Option<&'static str> {
    match instance.power {
        Power::Frozen => Some(FROZEN),
        Power::Running if instance.agent_polls > 0 => Some("LXD VM agent isn't currently running"),
        _ => None,
    }
}

pub(super) fn delete(shared: &Arc<Shared>, ask: &Ask, name: &str) -> Result<Answer, Answer> {
    let key = (ask.project().to_owned(), name.to_owned());
    if shared.lock().find(&key.0, name)?.power != Power::Stopped {
        return Err(Answer::error(400, "Instance is running"));
    }
    Ok(operations::run(shared, "Deleting instance", ask.project(), name, move |shared| {
        let mut state = shared.lock();
        match state.instances.remove(&key) {
            Some(_) => {
                state.note("instance-deleted", &key.0, &key.1);
                Ok(Value::Null)
            }
            None => Err("Instance not found".to_owned()),
        }
    }))
}

pub(super) fn state(shared: &Shared, ask: &Ask, name: &str) -> Result<Answer, Answer> {
    let mut state = shared.lock();
    let instance = state.find_mut(ask.project(), name)?;
    let (status, status_code) = instance.power.as_status();
    let mut processes = instance.processes;
    if instance.power == Power::Running && instance.agent_polls > 0 {
        instance.agent_polls -= 1;
        processes = -1;
    }
    let pid = if instance.power == Power::Stopped { 0 } else { 4242 };
    Ok(Answer::sync(json!({
        "status": status, "status_code": status_code, "processes": processes, "pid": pid, "disk": {}, "network": null,
        "memory": {"usage": 0, "usage_peak": 0, "swap_usage": 0, "swap_usage_peak": 0}, "cpu": {"usage": 0},
    })))
}

pub(super) fn set_state(shared: &Arc<Shared>, ask: &Ask, name: &str) -> Result<Answer, Answer> {
    let body = ask.json()?;
    let action = body.get("action").and_then(Value::as_str).unwrap_or_default().to_owned();
    shared.lock().find(ask.project(), name)?;
    let description = match action.as_str() {
        "start" => "Starting instance",
        "stop" => "Stopping instance",
        "freeze" => "Freezing instance",
        "unfreeze" => "Unfreezing instance",
        _ => return Err(Answer::error(400, &format!("Unknown action: '{action}'"))),
    };
    let (project, own) = (ask.project().to_owned(), name.to_owned());
    Ok(operations::run(shared, description, ask.project(), name, move |shared| {
        let outcome = changed_power(shared, &project, &own, &action);
        shared.changed.notify_all();
        outcome
    }))
}

fn changed_power(shared: &Shared, project: &str, name: &str, action: &str) -> operations::Outcome {
    let mut state = shared.lock();
    if action == "start" {
        let ready = Instant::now() + state.start_delay;
        while Instant::now() < ready && !shared.is_stopping() {
            state = shared.wait(state, ready.saturating_duration_since(Instant::now()));
        }
    }
    let agent_polls = state.agent_polls;
    let Some(instance) = state.instance_mut(project, name) else { return Err("Instance not found".to_owned()) };
    // The ids that the host may give away are the stand-in's own.
    if action == "start" && instance.config.get("raw.idmap").is_some_and(|map| map.contains(OUTSIDE)) {
        let why = format!("newuidmap: uid range [1000-1001) -> [{OUTSIDE}-4000000001) not allowed");
        let log =
            format!("lxc {name} 20260102030405.678 ERROR    conf - newuidmap failed to write mapping \"{why}\"\n");
        instance.logs.insert("lxc.log".to_owned(), log.into_bytes());
        let conf = format!("/var/log/lxd/{name}/lxc.conf");
        return Err(format!(
            "Failed to run: /usr/bin/lxd forkstart {name} /var/lib/lxd/containers {conf}: exit status 1"
        ));
    }
    match (action, instance.power) {
        ("start", Power::Stopped) => instance.start(agent_polls),
        ("start", _) => return Err("The instance is already running".to_owned()),
        ("stop", Power::Stopped) => return Err("The instance is already stopped".to_owned()),
        ("stop", _) => state.stop(project, name),
        (_, Power::Stopped) => return Err("The container isn't running".to_owned()),
        ("freeze", Power::Running) => instance.power = Power::Frozen,
        ("freeze", _) => return Err("The container is already frozen".to_owned()),
        (_, Power::Frozen) => instance.power = Power::Running,
        (_, Power::Running) => return Err("The container is already running".to_owned()),
    }
    Ok(Value::Null)
}

fn instance_json(state: &State, project: &str, name: &str, instance: &InstanceRecord) -> Value {
    let (status, status_code) = instance.power.as_status();
    let (config, devices) = state.expanded(&instance.profiles, &instance.config, &instance.devices);
    json!({
        "name": name, "project": project, "type": instance.kind.as_str(), "status": status,
        "status_code": status_code, "architecture": instance.architecture, "config": instance.config,
        "devices": instance.devices, "profiles": instance.profiles, "ephemeral": instance.ephemeral,
        "expanded_config": config, "expanded_devices": devices, "created_at": instance.created_at.to_rfc3339(),
        "last_used_at": "1970-01-01T00:00:00Z", "location": "none", "stateful": false, "description": "",
    })
}
