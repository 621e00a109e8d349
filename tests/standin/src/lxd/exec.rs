//! Commands in instances: what they do is the hook's matter.

use std::sync::Arc;

use serde_json::{Value, json};

use super::answer::{Answer, Ask};
use super::server::Shared;
use super::state::Power;
use super::{operations, state};
use lxdrunner::model::{ConfigMap, InstanceType};

pub(super) const DESCRIPTION: &str = "Executing command";

/// What a command does: it is given the instance, the command and its environment. It may block; nothing else waits
/// for it but the exec.
pub type ExecHook = dyn Fn(&InstanceView, &[String], &ConfigMap) -> ExecOutcome + Send + Sync;

/// How a command ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutcome {
    /// 126 and 127 make the operation fail, as LXD does where a command cannot be run or found.
    pub code: i64,
    /// Kept where the exec asked for it.
    pub stdout: String,
    /// The same.
    pub stderr: String,
}

impl ExecOutcome {
    /// With that code and without a word.
    pub fn code(code: i64) -> ExecOutcome {
        ExecOutcome { code, ..ExecOutcome::default() }
    }

    /// The command does not exist: the operation fails, with the code 127.
    pub fn not_found() -> ExecOutcome {
        ExecOutcome::code(127)
    }
}

/// A look into an instance, from the hook or from a test.
#[derive(Clone)]
pub struct InstanceView {
    shared: Arc<Shared>,
    project: String,
    name: String,
    /// The start that it looks at.
    boot: u32,
    /// The log that a command's output is recorded in.
    recorded: Option<String>,
}

impl InstanceView {
    pub(super) fn of(shared: &Arc<Shared>, project: &str, name: &str) -> Option<InstanceView> {
        let boot = shared.lock().instance(project, name)?.boots;
        let (project, name) = (project.to_owned(), name.to_owned());
        Some(InstanceView { shared: Arc::clone(shared), project, name, boot, recorded: None })
    }

    /// The instance's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The instance's project.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Its own config; empty where it is gone.
    pub fn config(&self) -> ConfigMap {
        let state = self.shared.lock();
        state.instance(&self.project, &self.name).map(|i| i.config.clone()).unwrap_or_default()
    }

    /// True while it is there and runs.
    pub fn is_running(&self) -> bool {
        self.shared.lock().instance(&self.project, &self.name).is_some_and(|i| i.power == Power::Running)
    }

    /// A file that was pushed or written.
    pub fn read_file(&self, path: &str) -> Option<Vec<u8>> {
        self.shared.lock().instance(&self.project, &self.name)?.files.read(path).map(<[u8]>::to_vec)
    }

    /// A file's or a directory's mode, in octal as it was sent.
    pub fn mode(&self, path: &str) -> Option<String> {
        self.shared.lock().instance(&self.project, &self.name)?.files.mode(path).map(str::to_owned)
    }

    /// Writes a file, its directories included.
    pub fn write_file(&self, path: &str, content: &[u8]) {
        if let Some(instance) = self.shared.lock().instance_mut(&self.project, &self.name) {
            instance.files.write(path, content);
        }
    }

    /// Removes a file, as the runner's start script does with its secret.
    pub fn remove_file(&self, path: &str) {
        if let Some(instance) = self.shared.lock().instance_mut(&self.project, &self.name) {
            instance.files.remove(path);
        }
    }

    /// What its state tells from now on.
    pub fn set_processes(&self, processes: i64) {
        if let Some(instance) = self.shared.lock().instance_mut(&self.project, &self.name) {
            instance.processes = processes;
        }
    }

    /// What `poweroff` inside does: it stops, and vanishes where it is ephemeral. Does nothing where it was stopped since.
    pub fn power_off(&self) {
        let mut state = self.shared.lock();
        if state.instance(&self.project, &self.name).is_some_and(|i| i.is_up_since(self.boot)) {
            state.stop(&self.project, &self.name);
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Waits until a file is there and the instance runs, so that it can see it; `None` where it stops before.
    pub fn wait_for_file(&self, path: &str) -> Option<Vec<u8>> {
        let mut state = self.shared.lock();
        loop {
            let instance = state.instance(&self.project, &self.name).filter(|i| i.is_up_since(self.boot))?;
            if let Some(content) = instance.files.read(path).filter(|_| instance.power == Power::Running) {
                return Some(content.to_vec());
            }
            if self.shared.is_stopping() {
                return None;
            }
            state = self.shared.wait(state, std::time::Duration::from_secs(1));
        }
    }

    /// Prints that, which can be read at once, and waits until it is read; false where the instance stops before.
    pub fn print(&self, text: &str) -> bool {
        let mut state = self.shared.lock();
        let mut before = 0;
        if let Some((log, instance)) = self.recorded.as_ref().zip(state.instance_mut(&self.project, &self.name)) {
            instance.logs.entry(log.clone()).or_default().extend(text.as_bytes());
            before = instance.output_reads;
        }
        loop {
            match state.instance(&self.project, &self.name).filter(|i| i.is_up_since(self.boot)) {
                Some(instance) if instance.output_reads > before => return true,
                Some(_) if !self.shared.is_stopping() => {}
                _ => return false,
            }
            state = self.shared.wait(state, std::time::Duration::from_secs(1));
        }
    }

    /// Waits until it is stopped or gone; one that was stopped and started again counts.
    pub fn wait_for_stop(&self) {
        let mut state = self.shared.lock();
        while state.instance(&self.project, &self.name).is_some_and(|i| i.is_up_since(self.boot))
            && !self.shared.is_stopping()
        {
            state = self.shared.wait(state, std::time::Duration::from_secs(1));
        }
    }
}

pub(super) fn exec(shared: &Arc<Shared>, ask: &Ask, name: &str) -> Result<Answer, Answer> {
    let body = ask.json()?;
    let project = ask.project().to_owned();
    let command: Vec<String> =
        body.get("command").cloned().and_then(|c| serde_json::from_value(c).ok()).unwrap_or_default();
    let asked: ConfigMap =
        body.get("environment").cloned().and_then(|e| serde_json::from_value(e).ok()).unwrap_or_default();
    let flag = |key: &str| body.get(key).and_then(Value::as_bool).unwrap_or(false);
    if flag("wait-for-websocket") || flag("interactive") {
        return Err(Answer::error(501, "the stand-in has no websockets"));
    }
    let record = flag("record-output");
    let mut state = shared.lock();
    let instance = state.find(&project, name)?;
    match instance.power {
        Power::Stopped => return Err(Answer::error(400, "Instance is not running")),
        Power::Frozen => return Err(Answer::error(400, "Instance is frozen")),
        Power::Running => {}
    }
    let (config, _) = state.expanded(&instance.profiles, &instance.config, &instance.devices);
    // What the instance's config gives all commands, and over it what is given to this one.
    let of_config = config.iter().filter_map(|(key, value)| Some((key.strip_prefix("environment.")?, value)));
    let of_config = of_config.map(|(name, value)| (name.to_owned(), value.clone()));
    let environment: ConfigMap = of_config.chain(asked).collect();
    let boot = instance.boots;
    let no_agent = instance.kind == InstanceType::VirtualMachine && instance.agent_polls > 0;
    let (id, json) = operations::begin(&mut state, DESCRIPTION, &project, name);
    if let Some(operation) = state.operations.get_mut(&id) {
        operation.metadata = json!({"record": record});
    }
    let recorded = record.then(|| format!("exec_{id}.stdout"));
    if let Some((log, instance)) = recorded.as_ref().zip(state.instance_mut(&project, name)) {
        // Both are there, and can be read, from the beginning.
        instance.logs.insert(log.clone(), Vec::new());
        instance.logs.insert(format!("exec_{id}.stderr"), Vec::new());
    }
    drop(state);
    let view = InstanceView { shared: Arc::clone(shared), project, name: name.to_owned(), boot, recorded };
    operations::spawn(shared, &id, move |shared, id| {
        if command.is_empty() {
            return Some(Err("Failed to retrieve PID of executing child process".to_owned()));
        }
        if no_agent {
            return Some(Err("LXD VM agent isn't currently running".to_owned()));
        }
        let outcome = (shared.exec)(&view, &command, &environment);
        finish(&mut shared.lock(), &view, id, &outcome, record);
        None
    });
    Ok(Answer::operation(json))
}

fn finish(state: &mut state::State, view: &InstanceView, id: &str, outcome: &ExecOutcome, record: bool) {
    if record && let Some(instance) = state.instance_mut(&view.project, &view.name) {
        for (stream, text) in [("stdout", &outcome.stdout), ("stderr", &outcome.stderr)] {
            instance.logs.entry(format!("exec_{id}.{stream}")).or_default().extend(text.as_bytes());
        }
    }
    let error = match outcome.code {
        126 => "Command not executable",
        127 => "Command not found",
        _ => "",
    };
    state.end(id, error, outcome_metadata(&view.name, id, outcome.code, record));
}

/// What an exec's operation tells at its end.
pub(super) fn outcome_metadata(name: &str, id: &str, code: i64, record: bool) -> Value {
    let url = |stream: &str| format!("/1.0/instances/{name}/logs/exec_{id}.{stream}");
    match record {
        true => json!({"return": code, "output": {"1": url("stdout"), "2": url("stderr")}}),
        false => json!({"return": code}),
    }
}
