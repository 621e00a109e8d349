//! What a case runs on: a daemon, real or not, and instances that are removed whatever happens.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lxdrunner::lxd::transport::{Body, Keep, Request, Transport};
use lxdrunner::lxd::{Error, ErrorKind, Exec, ExecResult, Lxd, NewInstance, Source};
use lxdrunner::model::{ConfigMap, InstanceType, keys};
use standin::lxd::{ExecOutcome, ImageEntry, InstanceView, LxdStandin, Options};

pub const PATIENCE: Duration = Duration::from_secs(60);
pub const PROJECT: &str = "default";
/// Prints now and then, for six seconds.
pub const PRINTS: &str = "for n in 1 2 3 4 5 6; do echo line $n >&2; sleep 1; done; echo the last";
/// Prints once.
pub const FALLS_SILENT: &str = "echo a line; exec sleep 1000";

/// One daemon, and the instances that a case made on it.
pub struct Bench {
    pub lxd: Lxd,
    pub image: String,
    case: &'static str,
    made: Mutex<Vec<String>>,
    images: Mutex<Vec<String>>,
}

/// Runs a case on the stand-in, and on a real LXD where `LXDRUNNER_TEST_LXD_SOCKET` names its socket.
pub fn on_both(case: &'static str, run: impl Fn(&Bench)) {
    let dir = TempDir::new(case);
    for (starts_at_creation, clustered) in [(false, false), (true, false), (false, true)] {
        let images = vec![ImageEntry::container("dev")];
        let options = Options { images, exec: Box::new(command), starts_at_creation, clustered, ..Options::default() };
        let options = match starts_at_creation {
            true => Options { version: "5.21.2".to_owned(), ..options },
            false => options,
        };
        let standin = LxdStandin::start_with(&dir.0, options).unwrap();
        run(&Bench::new(case, standin.socket().into(), "dev".to_owned()));
    }
    on_real(case, run);
}

/// Runs a case on a real LXD alone.
pub fn on_real(case: &'static str, run: impl Fn(&Bench)) {
    if let Some(socket) = real_socket() {
        let image = std::env::var("LXDRUNNER_TEST_IMAGE").unwrap_or_else(|_| "dev".to_owned());
        run(&Bench::new(case, socket, image));
    }
}

/// The real LXD's socket, where there is one to be tested with.
pub fn real_socket() -> Option<PathBuf> {
    std::env::var_os("LXDRUNNER_TEST_LXD_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// What the commands of the cases do, as a Debian does them.
fn command(view: &InstanceView, command: &[String], environment: &ConfigMap) -> ExecOutcome {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let says = |stdout: &str| ExecOutcome { stdout: stdout.to_owned(), ..ExecOutcome::default() };
    match words.as_slice() {
        ["true"] => ExecOutcome::code(0),
        ["sh", "-c", "echo out; echo err >&2; exit 3"] => {
            ExecOutcome { code: 3, stdout: "out\n".to_owned(), stderr: "err\n".to_owned() }
        }
        ["printenv", name] => says(&format!("{}\n", environment[*name])),
        ["seq", "1", last] => says(&(1..=last.parse().unwrap()).map(|n: u32| format!("{n}\n")).collect::<String>()),
        ["cat", path] => says(&String::from_utf8(view.read_file(path).unwrap()).unwrap()),
        ["stat", "-c", "0%a", path] => says(&format!("{}\n", view.mode(path).unwrap())),
        ["sh", "-c", self::PRINTS] => {
            view.print("a line\n");
            says("the last\n")
        }
        ["sh", "-c", self::FALLS_SILENT] => {
            view.print("a line\n");
            view.wait_for_stop();
            ExecOutcome::code(137)
        }
        ["sleep", _] => {
            view.wait_for_stop();
            ExecOutcome::code(137)
        }
        ["poweroff", "-f"] => {
            view.power_off();
            ExecOutcome::code(0)
        }
        ["/no/such/command"] => ExecOutcome::not_found(),
        ["/root"] => ExecOutcome::code(126),
        other => panic!("the bench does not know {other:?}"),
    }
}

impl Bench {
    fn new(case: &'static str, socket: PathBuf, image: String) -> Bench {
        Bench { lxd: Lxd::new(socket), image, case, made: Mutex::default(), images: Mutex::default() }
    }

    /// A name for an instance, which is removed at the end.
    pub fn name(&self, n: u32) -> String {
        let name = format!("contract-{}-{}-{n}", std::process::id(), self.case);
        self.made.lock().unwrap().push(name.clone());
        name
    }

    /// An image of this case, which is removed at the end.
    pub fn owns_image(&self, fingerprint: &str) {
        self.images.lock().unwrap().push(fingerprint.to_owned());
    }

    /// Makes an image of a stopped instance as a user does who says nothing of it; its fingerprint.
    pub fn publish_plainly(&self, name: &str) -> String {
        let before = self.lxd.images(PROJECT).unwrap();
        let body = serde_json::json!({"source": {"type": "instance", "name": name}, "compression_algorithm": "none"});
        let (target, headers) = (format!("/1.0/images?project={PROJECT}"), Vec::new());
        let (body, deadline) = (Body::Json(body.to_string().into_bytes()), Instant::now() + PATIENCE);
        let request = Request { method: "POST", target, headers, body, keep: Keep::All, deadline };
        assert_eq!(Transport::new(self.lxd.socket()).exchange(request).unwrap().status, 202);
        loop {
            let new = |image: &lxdrunner::lxd::Image| !before.iter().any(|old| old.fingerprint == image.fingerprint);
            let owner = |image: &lxdrunner::lxd::Image| image.properties.get(keys::OWNER) == Some(&self.owner());
            if let Some(image) = self.lxd.images(PROJECT).unwrap().into_iter().find(|i| new(i) && owner(i)) {
                self.owns_image(&image.fingerprint);
                return image.fingerprint;
            }
            assert!(Instant::now() < deadline, "{name} was not published");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The owner that this case's instances have.
    pub fn owner(&self) -> String {
        format!("contract-{}-{}", std::process::id(), self.case)
    }

    /// An ephemeral container from the image.
    pub fn new_instance(&self, name: &str) -> NewInstance {
        NewInstance {
            name: name.to_owned(),
            kind: InstanceType::Container,
            source: Source::Alias(self.image.clone()),
            profiles: vec!["default".to_owned()],
            config: ConfigMap::from([(keys::OWNER.to_owned(), self.owner())]),
            devices: Default::default(),
            ephemeral: true,
        }
    }

    /// Creates and waits.
    pub fn create(&self, new: &NewInstance) -> Result<(), Error> {
        self.lxd.wait(&self.lxd.create(PROJECT, "", new)?, PATIENCE)
    }

    /// Changes the power and waits.
    pub fn power(&self, name: &str, action: &str) -> Result<(), Error> {
        self.lxd.wait(&self.lxd.set_state(PROJECT, name, action, true)?, PATIENCE)
    }

    /// All of an instance's config; the client keeps only what the daemon reads.
    pub fn whole_config(&self, name: &str) -> ConfigMap {
        let target = format!("/1.0/instances/{name}?project={PROJECT}");
        let (method, headers, deadline) = ("GET", Vec::new(), Instant::now() + PATIENCE);
        let request = Request { method, target, headers, body: Body::Empty, keep: Keep::All, deadline };
        let response = Transport::new(self.lxd.socket()).exchange(request).unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        serde_json::from_value(answer["metadata"]["config"].clone()).unwrap()
    }

    /// A stopped instance.
    #[track_caller]
    pub fn stopped(&self) -> String {
        let name = self.name(1);
        self.create(&self.new_instance(&name)).unwrap();
        name
    }

    /// A running instance.
    #[track_caller]
    pub fn running(&self) -> String {
        let name = self.stopped();
        self.power(&name, "start").unwrap();
        name
    }

    pub fn exec(&self, name: &str, command: &[&str]) -> Result<ExecResult, Error> {
        self.lxd.exec(PROJECT, name, &exec(command), PATIENCE)
    }

    /// Waits until the instance is gone. LXD's own removal of it has no operation that we could wait for.
    #[track_caller]
    pub fn wait_until_gone(&self, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.lxd.instance(PROJECT, name).unwrap().is_some() {
            assert!(Instant::now() < deadline, "{name} is still there");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for name in self.made.lock().unwrap().iter() {
            if let Ok(Some(_)) = self.lxd.instance(PROJECT, name) {
                drop(self.power(name, "stop"));
                drop(self.lxd.delete(PROJECT, name).and_then(|operation| self.lxd.wait(&operation, PATIENCE)));
            }
        }
        for image in self.images.lock().unwrap().iter() {
            drop(self.lxd.delete_image(PROJECT, image).and_then(|operation| self.lxd.wait(&operation, PATIENCE)));
        }
    }
}

/// A command whose output is kept.
pub fn exec(command: &[&str]) -> Exec {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    Exec { command, environment: ConfigMap::new(), record: true }
}

#[track_caller]
pub fn fails_with<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind) {
    match result {
        Err(error) => assert_eq!(error.kind, kind, "{error}"),
        Ok(value) => panic!("{value:?} instead of {kind:?}"),
    }
}

/// A directory that is removed at the end.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new(case: &str) -> TempDir {
        let path = std::env::temp_dir().join(format!("lxdrunner-{}-{case}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
