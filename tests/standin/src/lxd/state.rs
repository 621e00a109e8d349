//! What the stand-in knows: instances, operations and what they are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Options;
use super::answer::Answer;
use super::files::Tree;
use lxdrunner::model::{ConfigMap, Devices, InstanceType, Timestamp};

/// An image of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageEntry {
    /// Its one name; empty where it has none.
    pub alias: String,
    /// 64 hexadecimal digits.
    pub fingerprint: String,
    /// Container or virtual machine.
    pub kind: InstanceType,
    /// LXD's word: `x86_64`.
    pub architecture: String,
    /// `os`, `release`, …
    pub properties: ConfigMap,
    /// Bytes.
    pub size: u64,
    /// The image server, and its name there, where it was fetched.
    pub fetched_from: Option<(String, String)>,
}

impl ImageEntry {
    /// A container's, with a fingerprint that follows from the alias.
    pub fn container(alias: &str) -> ImageEntry {
        ImageEntry {
            alias: alias.to_owned(),
            fingerprint: hex(&Sha256::digest(alias.as_bytes())),
            kind: InstanceType::Container,
            architecture: "x86_64".to_owned(),
            properties: map(&[("os", "debian"), ("release", "bookworm"), ("description", "Debian bookworm")]),
            size: 80_000_000,
            fetched_from: None,
        }
    }

    /// A virtual machine's.
    pub fn virtual_machine(alias: &str) -> ImageEntry {
        let fingerprint = hex(&Sha256::digest(format!("{alias}, as a virtual machine").as_bytes()));
        ImageEntry { kind: InstanceType::VirtualMachine, fingerprint, ..ImageEntry::container(alias) }
    }
}

/// How the download of an image goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Download {
    /// It is over before anybody looks at it.
    #[default]
    Quick,
    /// So many looks find it under way, each further on.
    Slow(u32),
    /// It does not get on, and does not end.
    Stalls,
}

impl Download {
    /// In LXD's words.
    fn progress(self) -> String {
        match self {
            Download::Slow(left) => format!("rootfs: {}% (1.49MB/s)", 100_u32.saturating_sub(left)),
            Download::Quick | Download::Stalls => "rootfs: 43% (1.49MB/s)".to_owned(),
        }
    }
}

/// A profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileEntry {
    /// Instance config.
    pub config: ConfigMap,
    /// By name.
    pub devices: Devices,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkEntry {
    /// True where LXD made it.
    pub managed: bool,
    /// `bridge`, `loopback`, …
    pub kind: String,
    /// `ipv4.address`, …
    pub config: ConfigMap,
}

/// An instance's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    Stopped,
    Running,
    Frozen,
}

impl Power {
    /// LXD's word and number.
    pub fn as_status(self) -> (&'static str, u16) {
        match self {
            Power::Stopped => ("Stopped", 102),
            Power::Running => ("Running", 103),
            Power::Frozen => ("Frozen", 110),
        }
    }
}

/// An instance.
#[derive(Clone, Debug)]
pub(super) struct InstanceRecord {
    pub kind: InstanceType,
    pub architecture: String,
    pub config: ConfigMap,
    pub devices: Devices,
    pub profiles: Vec<String>,
    pub ephemeral: bool,
    pub created_at: Timestamp,
    pub power: Power,
    /// How often it was started.
    pub boots: u32,
    pub processes: i64,
    /// Looks at its state that still find no agent.
    pub agent_polls: u32,
    pub files: Tree,
    pub logs: BTreeMap<String, Vec<u8>>,
    /// How often what a command prints was read.
    pub output_reads: u64,
}

/// How a container's ids are shifted once it was started.
const SHIFTED: &str = r#"[{"Isuid":true,"Isgid":true,"Hostid":100000,"Nsid":0,"Maprange":65536}]"#;

impl InstanceRecord {
    /// What a copy has from its original, unless it was given its own: all config but what is volatile, of which only
    /// the root's state is kept; devices; and the files.
    pub fn take_over(&mut self, original: &InstanceRecord) {
        let kept = |key: &str| {
            !key.starts_with("volatile.") || matches!(key, "volatile.base_image" | "volatile.last_state.idmap")
        };
        for (key, value) in original.config.iter().filter(|(key, _)| kept(key)) {
            self.config.entry(key.clone()).or_insert_with(|| value.clone());
        }
        for (name, device) in &original.devices {
            self.devices.entry(name.clone()).or_insert_with(|| device.clone());
        }
        self.files = original.files.clone();
        // Whatever was asked for.
        self.kind = original.kind;
    }

    /// Whether it has run without a break since that start.
    pub fn is_up_since(&self, boot: u32) -> bool {
        self.power != Power::Stopped && self.boots == boot
    }

    /// What starting does to it.
    pub fn start(&mut self, agent_polls: u32) {
        self.power = Power::Running;
        self.boots += 1;
        self.files.boot();
        self.processes = 7;
        self.agent_polls = if self.kind == InstanceType::VirtualMachine { agent_polls } else { 0 };
        self.config.insert("volatile.last_state.power".to_owned(), "RUNNING".to_owned());
        self.config.remove("volatile.apply_template");
        if self.kind == InstanceType::Container {
            self.config.insert("volatile.last_state.idmap".to_owned(), SHIFTED.to_owned());
        }
    }

    /// What a conditional change compares.
    pub fn etag(&self) -> String {
        let parts = (&self.architecture, &self.config, &self.devices, self.ephemeral, &self.profiles);
        hex(&Sha256::digest(format!("{parts:?}").as_bytes()))
    }
}

/// An operation.
#[derive(Clone, Debug)]
pub(super) struct OperationRecord {
    pub description: &'static str,
    pub created_at: Timestamp,
    /// The instance that it is about: project and name.
    pub instance: (String, String),
    pub metadata: Value,
    /// What it downloads, while it does.
    pub download: Option<Download>,
    /// How and when it ended; the text is empty where it ended well.
    pub ended: Option<(String, Instant)>,
}

/// Everything.
pub(super) struct State {
    pub product: String,
    pub version: String,
    pub starts_at_creation: bool,
    pub clustered: bool,
    pub start_delay: Duration,
    pub pool_full: bool,
    pub agent_polls: u32,
    pub virtual_machines: bool,
    pub images: Vec<ImageEntry>,
    /// What every image server has.
    pub served: Vec<ImageEntry>,
    /// How it is downloaded.
    pub downloads: Download,
    /// What is being downloaded: whoever wants it too waits.
    pub downloading: BTreeSet<String>,
    /// What instances of the images begin with that were made of others, by fingerprint.
    pub published: BTreeMap<String, Tree>,
    pub profiles: BTreeMap<String, ProfileEntry>,
    pub networks: BTreeMap<String, NetworkEntry>,
    /// Drivers by name.
    pub pools: BTreeMap<String, String>,
    pub projects: BTreeSet<String>,
    /// By project and name.
    pub instances: BTreeMap<(String, String), InstanceRecord>,
    pub operations: BTreeMap<String, OperationRecord>,
    next_operation: u64,
    /// For the event stream, from the beginning.
    pub happened: Vec<super::events::Happened>,
}

impl State {
    pub fn new(options: &Options) -> State {
        let nic = map(&[("type", "nic"), ("network", "lxdbr0"), ("name", "eth0")]);
        let root = map(&[("type", "disk"), ("path", "/"), ("pool", "default")]);
        let devices = BTreeMap::from([("eth0".to_owned(), nic), ("root".to_owned(), root)]);
        let bridge = map(&[("ipv4.address", "10.0.100.1/24"), ("ipv4.nat", "true"), ("ipv6.address", "none")]);
        let bridge = NetworkEntry { managed: true, kind: "bridge".to_owned(), config: bridge };
        let loopback = NetworkEntry { managed: false, kind: "loopback".to_owned(), config: ConfigMap::new() };
        State {
            product: options.product.clone(),
            version: options.version.clone(),
            starts_at_creation: options.starts_at_creation,
            clustered: options.clustered,
            start_delay: options.start_delay,
            pool_full: options.pool_full,
            agent_polls: options.agent_polls,
            virtual_machines: true,
            images: options.images.clone(),
            served: Vec::new(),
            downloads: Download::default(),
            downloading: BTreeSet::new(),
            published: BTreeMap::new(),
            profiles: BTreeMap::from([("default".to_owned(), ProfileEntry { config: ConfigMap::new(), devices })]),
            networks: BTreeMap::from([("lxdbr0".to_owned(), bridge), ("lo".to_owned(), loopback)]),
            pools: BTreeMap::from([("default".to_owned(), "btrfs".to_owned())]),
            projects: BTreeSet::from(["default".to_owned()]),
            instances: BTreeMap::new(),
            operations: BTreeMap::new(),
            happened: Vec::new(),
            next_operation: 1,
        }
    }

    pub fn instance(&self, project: &str, name: &str) -> Option<&InstanceRecord> {
        self.instances.get(&(project.to_owned(), name.to_owned()))
    }

    pub fn instance_mut(&mut self, project: &str, name: &str) -> Option<&mut InstanceRecord> {
        self.instances.get_mut(&(project.to_owned(), name.to_owned()))
    }

    /// The instance, or LXD's refusal.
    pub fn find(&self, project: &str, name: &str) -> Result<&InstanceRecord, Answer> {
        self.instance(project, name).ok_or_else(instance_not_found)
    }

    /// The same, to change it.
    pub fn find_mut(&mut self, project: &str, name: &str) -> Result<&mut InstanceRecord, Answer> {
        self.instance_mut(project, name).ok_or_else(instance_not_found)
    }

    /// Config of the profiles and of the instance over it, and the devices alike.
    pub fn expanded(&self, profiles: &[String], config: &ConfigMap, devices: &Devices) -> (ConfigMap, Devices) {
        let mut all = (ConfigMap::new(), Devices::new());
        for profile in profiles.iter().filter_map(|name| self.profiles.get(name)) {
            all.0.extend(profile.config.clone());
            all.1.extend(profile.devices.clone());
        }
        all.0.extend(config.clone());
        all.1.extend(devices.clone());
        all
    }

    /// A number that was not given before.
    pub fn number(&mut self) -> u64 {
        self.next_operation += 1;
        self.next_operation
    }

    /// Notes a new operation; its id, in the form of a UUID.
    pub fn begin(&mut self, description: &'static str, project: &str, name: &str) -> String {
        self.forget_operations();
        let id = format!("00000000-0000-4000-8000-{:012x}", self.next_operation);
        self.next_operation += 1;
        let record = OperationRecord {
            description,
            created_at: Timestamp::now(),
            instance: (project.to_owned(), name.to_owned()),
            metadata: Value::Null,
            download: None,
            ended: None,
        };
        self.operations.insert(id.clone(), record);
        self.note_operation(&id);
        id
    }

    /// Ends an operation, once; `error` is empty where it went well.
    pub fn end(&mut self, id: &str, error: &str, metadata: Value) {
        if let Some(operation) = self.operations.get_mut(id)
            && operation.ended.is_none()
        {
            operation.metadata = metadata;
            operation.ended = Some((error.to_owned(), Instant::now()));
            self.note_operation(id);
        }
    }

    /// A download that is slow is further on each time that it is looked at.
    pub fn look_at(&mut self, id: &str) {
        let download = self.operations.get_mut(id).and_then(|operation| operation.download.as_mut());
        if let Some(Download::Slow(left)) = download.filter(|download| **download != Download::Slow(0)) {
            *left -= 1;
            self.note_operation(id);
        }
    }

    /// LXD remembers an operation for five seconds after its end.
    pub fn forget_operations(&mut self) {
        let recent = |at: &Instant| at.elapsed() < Duration::from_secs(5);
        self.operations.retain(|_, operation| operation.ended.as_ref().is_none_or(|(_, at)| recent(at)));
    }

    /// Stops an instance: what runs in it is killed, and it vanishes where it is ephemeral.
    pub fn stop(&mut self, project: &str, name: &str) {
        let key = (project.to_owned(), name.to_owned());
        let Some(instance) = self.instances.get_mut(&key) else { return };
        instance.power = Power::Stopped;
        instance.processes = 0;
        instance.config.insert("volatile.last_state.power".to_owned(), "STOPPED".to_owned());
        let ephemeral = instance.ephemeral;
        let mut killed = Vec::new();
        for (id, operation) in &mut self.operations {
            if operation.ended.is_none()
                && operation.description == super::exec::DESCRIPTION
                && operation.instance == key
            {
                let recorded = operation.metadata.get("record").is_some_and(|r| r == true);
                operation.metadata = super::exec::outcome_metadata(name, id, 137, recorded);
                operation.ended = Some((String::new(), Instant::now()));
                killed.push(id.clone());
            }
        }
        killed.iter().for_each(|id| self.note_operation(id));
        self.note("instance-shutdown", project, name);
        if ephemeral {
            self.instances.remove(&key);
            self.note("instance-deleted", project, name);
        }
    }

    /// What the host's power cut and boot do: operations are forgotten, all instances stop, none is deleted, and those are
    /// started again that ran, unless `boot.autostart` says otherwise.
    pub fn reboot(&mut self) {
        self.operations.clear();
        let agent_polls = self.agent_polls;
        let keys: Vec<(String, String)> = self.instances.keys().cloned().collect();
        for (project, name) in keys {
            let Ok(instance) = self.find(&project, &name) else { continue };
            let (config, _) = self.expanded(&instance.profiles, &instance.config, &instance.devices);
            let key = |key: &str| config.get(key).map_or("", String::as_str);
            let starts = match key("boot.autostart") {
                "" => key("volatile.last_state.power") == "RUNNING",
                chosen => matches!(chosen, "true" | "1" | "yes" | "on"),
            };
            let Some(instance) = self.instance_mut(&project, &name) else { continue };
            (instance.power, instance.processes) = (Power::Stopped, 0);
            if starts {
                instance.start(agent_polls);
            }
        }
    }

    /// Tells the listeners of the event stream.
    pub fn note(&mut self, action: &'static str, project: &str, name: &str) {
        let (project, name) = (project.to_owned(), name.to_owned());
        self.happened.push(super::events::Happened::Lifecycle { action, project, name });
    }

    /// Tells them how an operation is.
    fn note_operation(&mut self, id: &str) {
        let Some(operation) = self.operations.get(id) else { return };
        let (project, shown) = (operation.instance.0.clone(), self.operation_json(id, operation));
        self.happened.push(super::events::Happened::Operation { project, shown });
    }

    /// An operation as LXD shows it.
    pub fn operation_json(&self, id: &str, operation: &OperationRecord) -> Value {
        let (status, code, error) = match &operation.ended {
            None => ("Running", 103, ""),
            Some((error, _)) if error.is_empty() => ("Success", 200, ""),
            Some((error, _)) => ("Failure", 400, error.as_str()),
        };
        let metadata = match (&operation.ended, &operation.download) {
            (Some(_), _) => operation.metadata.clone(),
            (None, Some(download)) => json!({"download_progress": download.progress()}),
            (None, None) => Value::Null,
        };
        json!({
            "id": id, "class": "task", "description": operation.description,
            "created_at": operation.created_at.to_rfc3339(), "updated_at": operation.created_at.to_rfc3339(),
            "status": status, "status_code": code, "metadata": metadata, "may_cancel": false, "err": error,
            "resources": {"instances": [format!("/1.0/instances/{}", operation.instance.1)]}, "location": "none",
        })
    }
}

pub(super) fn instance_not_found() -> Answer {
    Answer::error(404, "Instance not found")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn map(pairs: &[(&str, &str)]) -> ConfigMap {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
